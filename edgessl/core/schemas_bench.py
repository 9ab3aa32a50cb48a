"""JSON Schemas of what a bench writes beside its result; see :mod:`edgessl.core.schemas`."""

from __future__ import annotations

from typing import Any

from edgessl.core.schema_parts import (
    COUNT,
    COUNT_OR_NULL,
    NUMBER,
    NUMBER_OR_NULL,
    SHA256,
    TEXT,
    TEXT_OR_NULL,
    object_of,
)

# in result.json; without a figure ``notes`` say why there is none
ENERGY = object_of(
    {
        "scope": {
            "enum": ["wall", "usb", "module", "soc", "battery", None],
            "description": "what the sensor sees; null where nothing was measured",
        },
        "source": {**TEXT_OR_NULL, "description": "the sensor, or the file of a meter"},
        "idle_w": {**NUMBER_OR_NULL, "description": "watts, mean of the idle windows"},
        "busy_w": {**NUMBER_OR_NULL, "description": "watts while samples were taken"},
        "gross_j": {**NUMBER_OR_NULL, "description": "joules an inference, idle included"},
        "net_j": {**NUMBER_OR_NULL, "description": "joules an inference above idle"},
        "net_low": {**NUMBER_OR_NULL, "description": "95 % interval, without the meter's error"},
        "net_high": NUMBER_OR_NULL,
        "j_per_correct": {**NUMBER_OR_NULL, "description": "gross_j / top-1 on the device"},
        "fps": {**NUMBER_OR_NULL, "description": "images a second; null: one after the other"},
        "wh_per_hour": {**NUMBER_OR_NULL, "description": "at that rate, idle time included"},
        "hours_on_battery": {**NUMBER_OR_NULL, "description": "null where a part is not seen"},
        "battery_wh": NUMBER_OR_NULL,
        "n_readings": COUNT_OR_NULL,
        "hz": {**NUMBER_OR_NULL, "description": "readings a second"},
        "notes": {"type": "array", "items": TEXT},
        "estimate": {
            **object_of(
                {"scope": {"const": "estimate"}, "source": TEXT, "idle_w": NUMBER_OR_NULL,
                 "busy_w": NUMBER_OR_NULL, "gross_j": NUMBER_OR_NULL, "net_j": NUMBER_OR_NULL}
            ),
            "description": "of the whole board by a published line; not measured",
        },
    },
    optional=("estimate",),
    description="of one inference, over the very window in which latency was taken",
)  # fmt: skip

BENCH_SCHEMAS: dict[str, dict[str, Any]] = {
    "board-parity": object_of(
        {
            "seal": {**SHA256, "description": "of the exported file"},
            "where": {"type": "string", "description": "id of the device"},
            "compared_with": {"const": "workstation"},
            "n": {**COUNT, "description": "images that both answered"},
            "agreement": {"type": "number", "description": "share of equal answers"},
            "agreement_low": {"type": "number", "description": "95 % interval (Wilson)"},
            "agreement_high": NUMBER,
            "least_agreement": {"type": "number", "description": "wanted for this precision"},
            "gained": {**COUNT, "description": "right only on the device"},
            "lost": {**COUNT, "description": "right only on the workstation"},
            "unlabelled": {**COUNT, "description": "other answers without a label"},
            "drop": {**NUMBER_OR_NULL, "description": "of top-1; null without some labels"},
            "drop_low": {"type": "number", "description": "exact one-sided bound"},
            "drop_high": {"type": "number", "description": "exact one-sided bound"},
            "max_drop": {"type": "number", "description": "share of top-1 that may be lost"},
            "outcome": {"enum": ["PASS", "FAIL", "INCONCLUSIVE"]},
        },
        title="BoardParity",
        description="parity.json of a bench: the same file's answers on the device and here",
    ),
    "layer-profile": object_of(
        {
            "seal": {**SHA256, "description": "of the exported file"},
            "unit": {"type": "string", "description": "of p50: us"},
            "runs": {**COUNT, "description": "in the pass that was profiled; 0 without a profile"},
            "note": {"type": "string", "description": "why there is none, or what to know"},
            "rows": {
                "type": "array",
                "items": object_of(
                    {
                        "module": {**TEXT_OR_NULL, "description": "name in PyTorch"},
                        "name": {**TEXT, "description": "as the runtime calls it"},
                        "op": TEXT,
                        "p50": {"type": "number", "description": "median, under the profiler"},
                        "share": {"type": "number", "description": "of the sum of all medians"},
                    }
                ),
                "description": "operations in the order they ran",
            },
        },
        title="LayerProfile",
        description="profile.json: what each operation took, in a pass of its own",
    ),
    "bench-grid": object_of(
        {
            "device": {"type": "string", "description": "id of the device"},
            "images": {"type": "string", "description": "source of the pictures that were rotated"},
            "note": TEXT,
            "rows": {
                "type": "array",
                "items": object_of(
                    {
                        "encoder": TEXT,
                        "width": NUMBER,
                        "imgsz": {**COUNT, "description": "pixels, both sides"},
                        "target": TEXT,
                        "quantize": TEXT,
                        "parameters": COUNT,
                        "macs": {**COUNT, "description": "multiply-accumulates of one image"},
                        "bytes": {**COUNT, "description": "of the exported files"},
                        "runtime": {"type": "string", "description": "with its version"},
                        "threads": COUNT,
                        "p50": {**NUMBER_OR_NULL, "description": "of infer, milliseconds"},
                        "ci_low": {**NUMBER_OR_NULL, "description": "95 % interval of p50"},
                        "ci_high": NUMBER_OR_NULL,
                        "p90": NUMBER_OR_NULL,
                        "e2e_p50": {**NUMBER_OR_NULL, "description": "from uint8, milliseconds"},
                        "max_rss_mb": NUMBER_OR_NULL,
                        "verdict": {"type": "string", "description": "the worst of its bench"},
                        "result_kind": {"enum": ["measured", "browser", "emulated", "estimated"]},
                        "result": {"type": "string", "description": "its result.json in the run"},
                    }
                ),
            },
        },
        title="BenchGrid",
        description="grid.json: untrained nets on a device, to choose width and image size",
    ),
}  # fmt: skip

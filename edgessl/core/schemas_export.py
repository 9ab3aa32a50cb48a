"""JSON Schemas of what stands beside an exported file; see :mod:`edgessl.core.schemas`."""

from __future__ import annotations

from typing import Any

from edgessl.core.schema_parts import (
    COUNT,
    COUNT_OR_NULL,
    FLAG,
    NUMBER,
    NUMBER_OR_NULL,
    SHA256,
    TEXT,
    TEXT_OR_NULL,
    object_of,
)

OUTCOME = {"enum": ["PASS", "FAIL", "INCONCLUSIVE"]}
PART = object_of({"name": TEXT, "n": COUNT, "labelled": COUNT})

EXPORT_SCHEMAS: dict[str, dict[str, Any]] = {
    "gate": object_of(
        {
            "seal": {**SHA256, "description": "of the quantised file"},
            "outcome": OUTCOME,
            "n": {**COUNT, "description": "images that were judged on"},
            "labelled": {**COUNT, "description": "those whose label is known"},
            "flips": {**COUNT, "description": "answers that differ from float32"},
            "unlabelled_flips": COUNT,
            "gained": {**COUNT, "description": "right only when quantised"},
            "lost": {**COUNT, "description": "right only in float32"},
            "drop": {**NUMBER_OR_NULL, "description": "of top-1, proportion; null without labels"},
            "drop_low": {**NUMBER_OR_NULL, "description": "exact one-sided bound"},
            "drop_high": {"type": "number", "description": "exact one-sided bound"},
            "shift": {"type": "number", "description": "mean confidence lost, proportion"},
            "shift_low": NUMBER,
            "shift_high": NUMBER,
            "needed": {**COUNT_OR_NULL, "description": "images in all that could decide"},
            "to_label": {**COUNT, "description": "images in flips/ whose labels would help"},
            "reasons": {"type": "array", "items": TEXT},
            "bounds": object_of({"max_drop": NUMBER, "confidence": NUMBER, "max_shift": NUMBER}),
            "images": {"type": "array", "items": PART},
            "trained_on": {
                "type": "boolean", "description": "the net has learned from these images",
            },
        },
        title="Gate",
        description="gate.json: whether a quantised file holds its answers, on images it never saw",
    ),
    "quantization-search": object_of(
        {
            "seal": TEXT,
            "asked": TEXT_OR_NULL,
            "chosen": {**TEXT_OR_NULL, "description": "name of a candidate"},
            "selection": {
                "type": "object", "description": "images that were chosen on: n, labelled",
            },
            "float": object_of({"bytes": COUNT, "ms": NUMBER_OR_NULL}),
            "candidates": {
                "type": "array",
                "items": object_of(
                    {
                        "name": TEXT,
                        "scheme": {"type": "object"},
                        "calibration_images": COUNT,
                        "aware": FLAG,
                        "n": COUNT_OR_NULL,
                        "agreement": NUMBER_OR_NULL,
                        "kl": {**NUMBER_OR_NULL, "description": "KL(float32 || file), nats"},
                        "shift": NUMBER_OR_NULL,
                        "snr_db": NUMBER_OR_NULL,
                        "labelled": COUNT_OR_NULL,
                        "drop": {**NUMBER_OR_NULL, "description": "on the labelled ones"},
                        "bytes": COUNT_OR_NULL,
                        "ms": {**NUMBER_OR_NULL, "description": "median here, one thread"},
                        "ratio": {
                            **NUMBER_OR_NULL, "description": "ms over that of float32, in turns",
                        },
                        "holds": {"type": "boolean", "description": "on the selection images"},
                        "pointless": {
                            "type": "boolean", "description": "slower and no smaller than float32",
                        },
                        "seconds": NUMBER,
                        "error": TEXT_OR_NULL,
                    }
                ),
            },
        },
        title="QuantizationSearch",
        description="search.json: which ways of quantising were tried, with their figures",
    ),
    "sensitivity": object_of(
        {
            "seal": {**SHA256, "description": "of the quantised file"},
            "images": COUNT,
            "layers": {
                "type": "array",
                "items": object_of(
                    {
                        "module": {**TEXT, "description": "name in PyTorch"},
                        "op": {"enum": ["conv", "linear"]},
                        "file_snr_db": {
                            **NUMBER_OR_NULL,
                            "description": "of its output inside the file; null where fused",
                        },
                        "alone_snr_db": {
                            "type": "number",
                            "description": "of the logits when it alone is quantised (simulated)",
                        },
                        "alone_kl": NUMBER,
                        "alone_agreement": NUMBER,
                    }
                ),
            },
        },
        title="Sensitivity",
        description="sensitivity.json: what every layer loses by quantisation",
    ),
    "layers": object_of(
        {
            "seal": SHA256,
            "layers": {
                "type": "array",
                "items": object_of(
                    {
                        "module": {**TEXT, "description": "name in PyTorch"},
                        "node": {**TEXT, "description": "name in the file"},
                        "op": {"enum": ["conv", "linear"]},
                    }
                ),
            },
        },
        title="Layers",
        description="layers.json: operations of a file and the PyTorch modules they came from",
    ),
    "judged": object_of(
        {
            "identity": {"type": "object", "description": "all that the file depends on"},
            "origin": object_of(
                {"sources": {"type": "array", "items": PART}, "trained_on": FLAG},
            ),
        },
        title="Judged",
        description="judged.json: what the answers in judged.npz belong to",
    ),
    "preprocessing-costs": object_of(
        {
            "source_seal": {**SHA256, "description": "of the PyTorch net"},
            "n": COUNT,
            "data_sha256": SHA256,
            "tried": {"type": "array", "items": TEXT},
            "rows": {
                "type": "array",
                "items": object_of(
                    {
                        "name": TEXT,
                        "summary": TEXT,
                        "agreement": NUMBER,
                        "top1": NUMBER_OR_NULL,
                        "delta": NUMBER_OR_NULL,
                        "delta_low": NUMBER_OR_NULL,
                        "delta_high": NUMBER_OR_NULL,
                    }
                ),
            },
        },
        title="PreprocessingCosts",
        description="resizes.json: what other ways to prepare an image cost",
    ),
}  # fmt: skip

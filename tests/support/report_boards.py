"""A run folder with benches of boards, a browser and a stand-in, and a folder with only a grid."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from report_runs import artifact_in, begun, bench
from report_study import parity as float_parity

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.measurement import BenchResult, Latency, Verdict
from edgessl.core.statistics import wilson

PI = {
    "board": "Raspberry Pi 5 Model B Rev 1.0", "compatible": ["raspberrypi,5-model-b"], "l4t": None,
    "cpu": "Cortex-A76", "machine": "aarch64", "cores": 4, "affinity": [0, 1, 2, 3],
    "policies": {"policy0": {"governor": "ondemand", "max_mhz": 2400.0, "cores": [0, 1, 2, 3]}},
    "clusters": [{"cores": [0, 1, 2, 3], "max_mhz": 2400.0}], "temp_c": {"cpu-thermal": 52.1},
    "fans": {"pwmfan fan1_input": 2400.0},
    "memory_mb": {"MemTotal": 8062.4, "MemAvailable": 7011.2, "SwapTotal": 512.0},
    "os": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.6.31+rpt-rpi-2712", "libc": "glibc 2.36",
    "python": "3.11.2", "wheels": {"machine": "aarch64", "bits": 64}, "virtual_machine": None,
    "emulated": False, "emulator": None, "power_supplies": {}, "host_hash": "a1b2c3",
    "runtimes": {"ai-edge-litert": "2.3.0", "onnxruntime": "1.31.1", "numpy": "2.4.6"},
    "not_observable": ["swap traffic"],
}  # fmt: skip
JETSON = PI | {
    "board": "NVIDIA Jetson Orin Nano Developer Kit", "cpu": "Cortex-A78AE", "cores": 6,
    "affinity": [0, 1, 2, 3], "l4t": "# R36 (release), REVISION: 4.3", "host_hash": "d4e5f6",
    "policies": {"policy0": {"governor": "schedutil", "max_mhz": 1510.4, "cores": [0, 1, 2, 3]}},
}  # fmt: skip
PHONE = {
    "board": "Pixel 8", "browser": "Chrome 141", "user_agent": "Mozilla/5.0 (Linux; Android 16)",
    "cpu": "Android 16", "machine": "browser", "cores": 9, "policies": {}, "temp_c": {},
    "emulated": False, "power_supplies": {"battery": "Discharging, 81 %"}, "host_hash": "0f9e8d",
    "not_observable": ["temperature", "clock frequency and governor", "power draw"],
}  # fmt: skip
STAND_IN = PI | {
    "board": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "Cortex-A72", "emulated": True,
    "emulator": "qemu-user", "host_hash": "123abc",
}  # fmt: skip
HEAT = (
    "governor: ondemand", "clock by the firmware: 2399 to 2400 MHz",
    "temperature by the firmware: 51.6 C before, 58.2 C after",
    "no under-voltage, capping or throttling while it ran",
    "interference: others 0.4% of the cores, waiting for a core 0.1%",
    "not observable here: swap traffic",
)  # fmt: skip


def energy(scope: str, net: float, **changes: Any) -> dict[str, Any]:
    """The energy of a bench as it is written: a sensor saw ``net`` joules an inference."""
    body = {
        "scope": scope, "source": "PMIC of the Raspberry Pi 5: sum of 12 rails", "idle_w": 2.41,
        "busy_w": 5.87, "gross_j": net * 5.87 / 3.46, "net_j": net, "net_low": 0.97 * net,
        "net_high": 1.03 * net, "j_per_correct": net * 5.87 / 3.46 / 0.748, "fps": None,
        "wh_per_hour": 5.87, "hours_on_battery": None, "battery_wh": None, "n_readings": 728,
        "hz": 12.1, "notes": ["interval of net: bootstrap over blocks of 5 s"],
    }  # fmt: skip
    return body | changes


def board_parity(seal: str, outcome: str, flips: int, n: int = 1600, **changes: Any) -> dict:
    """Body of the parity.json of a bench: all flips are lost but one."""
    low, high = wilson(n - flips, n)
    body = {
        "seal": seal, "where": "pi5", "compared_with": "workstation", "n": n,
        "agreement": 1 - flips / n, "agreement_low": low, "agreement_high": high,
        "least_agreement": 0.99, "gained": 1, "lost": flips - 1, "unlabelled": 0,
        "drop": (flips - 2) / n, "drop_low": (flips - 4) / n, "drop_high": (flips + 4) / n,
        "max_drop": 0.01, "outcome": outcome,
    }  # fmt: skip
    return body | changes


def layer_profile(seal: str, modules: int = 18, **changes: Any) -> dict[str, Any]:
    """Body of a profile.json: most of the time in features.2, two operations without a module."""
    rng = random.Random(5)
    rows = [
        {"module": f"features.{i // 3}.block.{i % 3}", "name": f"node_{i}", "op": "Conv",
         "p50": (4.0 if i == 6 else 1.0) * rng.uniform(40, 120)}
        for i in range(modules)
    ]  # fmt: skip
    rows.append(dict(rows[6], name="node_6_act", op="HardSwish", p50=61.0))
    rows += [
        {"module": None, "name": f"reorder {i}", "op": "ReorderInput", "p50": 3.0} for i in (1, 2)
    ]
    total = sum(row["p50"] for row in rows)
    rows = [row | {"share": row["p50"] / total} for row in rows]
    return {"seal": seal, "unit": "us", "runs": 50, "note": "", "rows": rows} | changes


def board_bench(
    run: Path, made: Artifact, device: str, facts: dict[str, Any], *, median: float, **changes: Any
) -> Path:
    """Add a bench of one device; ``changes`` are fields of its result. Returns its folder."""
    target = made.format
    verdict: Verdict = changes.pop("verdict", "VALID")
    samples, told = changes.pop("samples", 300), changes.pop("reasons", ())
    result = bench(
        run, made, device=device, runtime=changes.pop("runtime", "litert"), target=target,
        median=median, verdict=verdict, samples=samples, reasons=told,
        top1=changes.pop("top1", 0.748),
    )  # fmt: skip
    (path,) = (run / "bench" / device).glob(f"*-{target}-*/result.json")
    kind = {"browser": "browser"}.get(device, changes.pop("kind", "ssh"))
    document = result.model_copy(
        update={"device": {"kind": kind, "id": device} | facts, "conditions": HEAT} | changes
    )
    body = document.model_dump(mode="json", by_alias=True)
    files.write_json(path, "bench-result", body)
    return path.parent


def boards_run(folder: Path, samples: int = 300) -> Path:
    """Write a run whose file was benched on two boards, in a browser and on a stand-in."""
    begun(folder)
    made = artifact_in(folder / "export" / "1x-tflite-none", "export", "tflite", 39_000)
    float_parity(folder / "export" / "1x-tflite-none", made.seal)
    fit = "community fit for the Raspberry Pi 5: 1.1451 x rails + 0.5879 W"
    pi = board_bench(
        folder, made, "pi5", PI, median=6.31, kind="rpi", samples=samples,
        energy=energy(
            "soc", 0.0219, fps=10.0, battery_wh=20.0,
            notes=["on a battery of 20 Wh at most 3.4 h: the sensor misses USB devices"],
            estimate={"scope": "estimate", "source": fit, "idle_w": 3.35, "busy_w": 7.31,
                      "gross_j": 0.0461, "net_j": 0.0251},
        ),
    )  # fmt: skip
    files.write_json(pi / "parity.json", "board-parity", board_parity(made.seal, "PASS", 3))
    files.write_json(pi / "profile.json", "layer-profile", layer_profile(made.seal))
    orin = board_bench(
        folder, made, "orin", JETSON, median=2.87, kind="jetson", runtime="tensorrt",
        samples=samples, verdict="BUSY", reasons=("BUSY: other work used 7 % of the cores",),
        energy=energy("usb", 0.0184, source="power.csv: Power (W)", hours_on_battery=8.1,
                      battery_wh=48.0),
    )  # fmt: skip
    worse = board_parity(made.seal, "FAIL", 80, least_agreement=0.99)
    files.write_json(orin / "parity.json", "board-parity", worse)
    note = "the Python packages of LiteRT time whole inferences only, not layers"
    none = layer_profile(made.seal, runs=0, rows=[], note=note)
    files.write_json(orin / "profile.json", "layer-profile", none)
    absent = "not measurable here: this board has no current sensor; use an external meter"
    board_bench(
        folder, made, "pi4", PI | {"board": "Raspberry Pi 4 Model B Rev 1.4"}, median=19.4,
        kind="rpi", samples=samples, energy={"scope": None, "notes": [absent]},
    )  # fmt: skip
    board_bench(
        folder, made, "browser", PHONE, median=0.913, samples=samples, runtime="litert.js",
        result_kind="browser", conditions=("battery: Discharging, 81 %",),
    )  # fmt: skip
    board_bench(
        folder, made, "stand-in", STAND_IN, median=0.517, samples=samples, verdict="EMULATED",
        result_kind="emulated",
        reasons=("EMULATED: the processor is emulated; times say nothing about a board",),
    )  # fmt: skip
    return folder


def grid_run(folder: Path, verdict: Verdict = "VALID", **facts: Any) -> Path:
    """Write a run that holds nothing but a grid of six nets; the last gave wrong answers."""
    begun(folder)
    rows = []
    sizes = [(w, s) for s in (96, 160, 224) for w in (0.5, 1.0)]
    for index, (width, side) in enumerate(sizes):
        name = f"mobilenet_v3_small-{width:g}x-{side}px"
        made = artifact_in(
            folder / "export" / f"{name}-tflite-none", "export", "tflite", 1000 + 100 * index,
            labels=(), imgsz=side, untrained=True, width=width, architecture="mobilenet_v3_small",
        )  # fmt: skip
        macs = round(5e7 * width**1.8 * (side / 224) ** 2)
        said: Verdict = "WRONG_ANSWERS" if index == 5 else verdict
        result = bench(
            folder, made, device="pi5", runtime=f"litert{index}", target=f"tflite{index}",
            median=1.2 + macs / 1e7, verdict=said, samples=80,
        )  # fmt: skip
        (path,) = folder.glob(f"bench/pi5/*-tflite{index}-*/result.json")
        kind = "emulated" if verdict == "EMULATED" else "measured"
        changes = {"device": PI | {"id": "pi5", "kind": "rpi"} | facts, "accuracy": None,
                   "result_kind": kind}  # fmt: skip
        body = result.model_copy(update=changes).model_dump(mode="json", by_alias=True)
        files.write_json(path, "bench-result", body)
        infer: Latency = BenchResult.model_validate(body).latency_ms["infer"]
        rows.append(
            {
                "encoder": "mobilenet_v3_small", "width": width, "imgsz": side, "target": "tflite",
                "quantize": "none", "parameters": round(2.5e6 * width**1.7), "macs": macs,
                "bytes": 4_000_000, "runtime": "litert 2.3.0", "threads": 4, "p50": infer.p50,
                "ci_low": infer.ci_low, "ci_high": infer.ci_high, "p90": infer.p90,
                "e2e_p50": (infer.p50 or 0) + 0.4, "max_rss_mb": 61.2, "verdict": said,
                "result_kind": kind,
                "result": path.relative_to(folder).as_posix(),
            }
        )  # fmt: skip
    body = {"device": "pi5", "images": "digits", "note": "random weights", "rows": rows}
    files.write_json(folder / "grid.json", "bench-grid", body)
    return folder

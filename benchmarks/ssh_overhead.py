"""What a bench takes longer over SSH than on this machine, all else equal.

A real OpenSSH server on loopback, the same Python, the same MobileNetV3-large at 224 px (ONNX,
21 MB) and pack, everything sent anew. A round is one bench of 2 s of timing by each way, in turning
order, timed from the first contact to the closed connection. Needs tests/standins/ssh, and root.

    python benchmarks/ssh_overhead.py [--rounds 7] [--save]

Prints one JSON document: seconds per bench, what each client adds (median of the differences
within rounds, and their range), and the medians of inference side by side; ``--save`` also writes
it to benchmarks/results/ssh_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.images import image_sha256, to_model_input
from edgessl.devices import DEVICES
from edgessl.devices.base import Board
from edgessl.devices.bench import bench_artifact
from edgessl.devices.choice import Asked
from edgessl.devices.protocol import Preset

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
RESULT = Path(__file__).parent / "results" / "ssh_overhead.json"
SIDE, IMAGES = 224, 64
PRESET = Preset("overhead", 10, 1.0, 20, 2.0, ("p50",))
WAYS = ("local", "openssh", "asyncssh")


def write_stage(folder: Path) -> tuple[Path, Path]:
    """Write an export stage folder and a pack; return both."""
    import torch
    import torchvision

    from edgessl.exporters import EXPORTERS
    from edgessl.exporters.base import Form

    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_large(num_classes=100).eval()
    stage = folder / "stage"
    stage.mkdir()
    exporter = EXPORTERS.load("onnx")()
    written = exporter.write(net, InputSpec.square(SIDE), stage, Form())
    artifact = Artifact.sealed(
        stage, [path.name for path in stage.iterdir()],
        artifact_kind="export", format="onnx", input=written.input,
    )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    session = exporter.open(stage)
    inputs = to_model_input(images[:4], written.input)
    logits = np.concatenate([np.asarray(session.infer(row[None])) for row in inputs])
    np.savez(
        stage / "golden.npz",
        images=images[:4], reference=logits, expected=logits, seal=artifact.seal,
    )  # fmt: skip
    pack, names = folder / "pack.npz", np.array([image_sha256(image) for image in images])
    np.savez(pack, images=images, labels=np.full(IMAGES, -1), sha256=names)
    return stage, pack


def one_bench(way: str, stage: Path, pack: Path, out: Path) -> tuple[float, float]:
    """Return the seconds of a whole bench, and its median inference in milliseconds."""
    board = Board("local") if way == "local" else Board("ssh", "root", python=sys.executable)
    os.environ["EDGESSL_SSH"] = "" if way == "local" else way
    begin = time.monotonic()
    device = DEVICES.load(board.kind)(board)
    result = bench_artifact(device, stage, pack, out, asked=Asked(PRESET))
    device.close()
    return time.monotonic() - begin, float(result.latency_ms["infer"].p50 or 0)


def measure(rounds: int) -> dict[str, Any]:
    """Take everything."""
    from sshd import Sshd

    load, server = os.getloadavg()[0], Sshd()
    os.environ["EDGESSL_SSH_CONFIG"] = str(server.config)
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    infer: dict[str, list[float]] = {way: [] for way in WAYS}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stage, pack = write_stage(folder)
            sent = sum(path.stat().st_size for path in (*stage.iterdir(), pack))
            for turn in range(rounds):
                for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
                    server.new_home("root")
                    seconds, ms = one_bench(way, stage, pack, folder / f"{way}-{turn}")
                    took[way].append(seconds)
                    infer[way].append(ms)
                print({way: round(values[-1], 2) for way, values in took.items()}, file=sys.stderr)
    finally:
        server.close()
    added = {
        way: [s - here for s, here in zip(took[way], took["local"], strict=True)]
        for way in WAYS[1:]
    }
    client = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True)
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {
            "ssh": client.stderr.strip(),
            **{package: version(package) for package in ("asyncssh", "numpy", "onnxruntime")},
        },
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": {"before": load, "after": os.getloadavg()[0]},
        "network": f"mobilenet_v3_large, 100 classes, {SIDE} px, batch 1, 1 thread",
        "sent_mb": round(sent / 1e6, 1),
        "rounds": rounds,
        "median_s": {way: round(median(values), 2) for way, values in took.items()},
        "added_s": {
            way: {
                "median": round(median(values), 2),
                "min": round(min(values), 2),
                "max": round(max(values), 2),
            }
            for way, values in added.items()
        },
        "infer_p50_ms": {way: round(median(values), 3) for way, values in infer.items()},
        "rounds_s": {way: [round(s, 2) for s in values] for way, values in took.items()},
    }


def main() -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    text = json.dumps(measure(options.rounds), indent=1) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()

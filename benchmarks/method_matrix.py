"""Every method on every encoder through the whole chain, on real images: digits.

    python benchmarks/method_matrix.py --out runs/matrix
    python benchmarks/method_matrix.py --out runs/matrix --collect benchmarks/results/methods.json

Pretrain, evaluate, fine-tune, extract, export to ONNX: what a method trains must go the same way as
what any other one trains. It goes on where it stopped. Accuracies here tell that a net has learned,
not which method is better: trainings are short and options are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.files import read_jsonl
from edgessl.core.ledger import Ledger
from edgessl.methods import METHODS

QUIET = Reporter(quiet=True)
ENCODERS = {
    "mobilenet_v1_short": "stock", "mobilenet_v2": "small", "mobilenet_v3_small": "small",
    "resnet20": "stock",
}  # fmt: skip
SLIM = {"mobilenet_v2": 0.35}  # at 0.25x its connections are not those of 0.5x; others: 0.25
TEACHER = "mobilenet_v1_short"
# parts of a method that would start after such a short training, and queues as long as it
EARLY: dict[str, dict[str, Any]] = {
    "rekd-style": {"relation_from": 0, "prototypes": 32, "queue": 256},
    "oss-style": {"queue_from": 1, "prototypes": 32, "queue": 256},
}
RATES = {"byol": 5e-4}
# its contrast gets harder as the momentum encoder improves; what a teacher is for has to fall
TERMS = {"disco": "distillation"}
SETTINGS: dict[str, Any] = {
    "pretrain.batch": 64, "pretrain.max_seconds": None,
    "labels.draws": 2, "finetune.epochs": 20, "finetune.max_seconds": None,
    "finetune.learning_rates": [3e-3], "finetune.scratch": False, "evaluate.protocols": ["knn"],
    "export.targets": ["onnx"], "pretrain.monitor.collapse": "warn",
}  # fmt: skip


def options(method: str) -> dict[str, Any]:
    """Small projectors and queues, as fit a short training."""
    known = METHODS.load(method).Options.model_fields
    default = METHODS.load(method).Options()
    made: dict[str, Any] = {"projector": [64, 32]} if default.projector else {}
    if "queue" in known:
        made["queue"] = 256
    return made | EARLY.get(method, {})


def width(method: str, encoder: str) -> str:
    """A host and a slim net where the method trains both."""
    slim = SLIM.get(encoder, 0.25)
    return f"{2 * slim:g}x-{slim:g}x" if "host_units" in METHODS[method].facts else f"{slim:g}x"


def teacher_of(method: str, folder: Path, epochs: int) -> str | None:
    """A net of twice the width: trained before, or along."""
    kind = METHODS.load(method).teacher_kind
    if kind == "online":
        return f"{TEACHER}@0.5x"
    if kind != "frozen":
        return None
    run = folder / "teacher"
    if not (run / "pretrain" / "encoder.json").is_file():
        values = {
            "data.labels": "digits", "data.imgsz": 16, "encoder.name": TEACHER,
            "encoder.width": "0.5x", "pretrain.method": "moco-v2", "pretrain.batch": 64,
            # the momentum that the teacher of the kept rows was trained with
            "pretrain.options": options("moco-v2") | {"momentum": 0.99},
            "pretrain.epochs": epochs,
            "pretrain.views": {"preset": "moco_v2", "crop_scale": [0.6, 1.0], "flip": 0},
        }  # fmt: skip
        api.pretrain(settings=values, out=run, reporter=QUIET)
    return str(run)


def chain(method: str, encoder: str, folder: Path, *, epochs: int = 10) -> dict[str, Any]:
    """Walk the chain once and return what it left.

    Args:
        method: Key of the table of methods.
        encoder: Key of the table of encoders.
        folder: Gets the run, and the teacher that several runs share.
        epochs: Passes over the digits of the training split, 16 steps each.
    """
    run = folder / f"{method}-{encoder}".replace(":", "-")
    values = SETTINGS | {
        "encoder.name": encoder, "encoder.width": width(method, encoder),
        "encoder.stem": ENCODERS.get(encoder, "small"), "pretrain.method": method,
        "pretrain.options": options(method), "pretrain.epochs": epochs,
        "pretrain.teacher": teacher_of(method, folder, epochs),
        "pretrain.learning_rate": RATES.get(method, 2e-3),
    }  # fmt: skip
    start = time.process_time()
    outcome = api.run("quickstart", settings=values, out=run, until="export", reporter=QUIET)
    took = time.process_time() - start
    if outcome.errors:
        raise outcome.errors[0]
    steps = read_jsonl(run / "pretrain" / "metrics.jsonl")
    losses = [row["loss"][TERMS.get(method, "total")] for row in steps]
    looks = read_jsonl(run / "pretrain" / "monitor.jsonl")
    slim = width(method, encoder).split("-")[-1]
    rows = Ledger.open(run).rows
    parity = json.loads((run / f"export/{slim}-onnx-none/parity.json").read_text("utf-8"))
    equal = json.loads((run / f"extract/{slim}/equivalence.json").read_text("utf-8"))
    return {
        "method": method, "encoder": encoder, "width": width(method, encoder),
        "steps": steps[-1]["step"],
        # the first line belongs to the warm-up
        "loss": {"early": round(fmean(losses[1:3]), 4), "late": round(fmean(losses[-2:]), 4)},
        "knn": {"before": looks[0]["knn"][slim], "after": looks[-1]["knn"][slim]},
        "alarms": [row["alarm"] for row in looks if row["alarm"]],
        "std": looks[-1]["std"][slim], "rankme": looks[-1]["rankme"][slim],
        "top1": {
            f"{row.stage} {row.metric}": round(row.value, 2)
            for row in rows
            if row.stage in ("evaluate", "finetune") and row.draw is None
        },
        "equivalence": {key: equal[key] for key in ("max_abs_features", "same_answers", "pass")},
        "parity": {key: parity["checks"][0][key] for key in ("max_abs", "agreement", "pass")},
        "seconds": round(took, 1),
    }  # fmt: skip


def main() -> None:
    """Run, or collect what was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS))
    parser.add_argument("--collect", type=Path, help="write what is there to this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.collect:
        rows = [json.loads(p.read_text("utf-8")) for p in sorted(asked.out.glob("row-*.json"))]
        about = {"torch": torch.__version__, "cores": os.cpu_count(),
                 "machine": platform.machine(), "seconds": "CPU seconds of one thread"}  # fmt: skip
        asked.collect.write_text(json.dumps({"conditions": about, "rows": rows}, indent=1) + "\n")
        return
    for encoder in asked.encoders:
        for method in asked.methods:
            path = asked.out / f"row-{encoder}-{method}.json"
            if not path.is_file():
                row = chain(method, encoder, asked.out, epochs=asked.epochs)
                path.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
                print(encoder, method, row["loss"], row["top1"], row["seconds"], flush=True)


if __name__ == "__main__":
    main()

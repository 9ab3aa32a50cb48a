"""A whole study as a run folder: rivals, budgets, widths, monitors, mistakes, data findings."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
from report_runs import artifact_in, bench, share

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.measurement import ParityCheck
from edgessl.core.statistics import student_t_interval, wilson

NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
BUDGETS = (1, 5, 10, 50, None)
# top-1 with 1, 5, 10, 50 and all labels per class
PROBES = {
    "pixels": (0.44, 0.62, 0.68, 0.77, 0.83),
    "imagenet": (0.42, 0.61, 0.69, 0.79, 0.85),
    "sacl-xd": (0.49, 0.68, 0.74, 0.81, 0.86),
    "imagenet+sacl-xd": (0.50, 0.70, 0.755, 0.82, 0.865),
}
TUNED = {
    "scratch": (0.38, 0.58, 0.67, 0.79, 0.88),
    "imagenet": (0.43, 0.64, 0.73, 0.82, 0.89),
    "sacl-xd": (0.48, 0.69, 0.765, 0.83, 0.89),
    "imagenet+sacl-xd": (0.49, 0.71, 0.775, 0.84, 0.895),
}
LOSS = {"1x": 0.0, "0.5x": -0.025}
TEST = 2000


def study_rows(rng: random.Random, widths: tuple[str, ...], split: str = "test") -> list[LedgerRow]:
    """Draws and summaries of every variant, protocol, budget and width."""
    rows: list[LedgerRow] = []
    for width in widths:
        for stage, metric, table in (
            ("evaluate", "linear_top1", PROBES),
            ("finetune", "top1", TUNED),
        ):
            for variant, levels in table.items():
                if variant == "pixels" and width != widths[0]:
                    continue
                for budget, level in zip(BUDGETS, levels, strict=True):
                    loss = 0.0 if variant == "pixels" else LOSS[width]
                    own = None if variant == "pixels" else width
                    rows += _group(rng, stage, metric, variant, own, budget, level + loss, split)
                    if stage == "finetune":
                        rows += _group(
                            rng, stage, "balanced_top1", variant, own, budget, level - 0.01, split
                        )
        for variant, level in (("pixels", 0.81), ("sacl-xd", 0.83)):
            if variant != "pixels" or width == widths[0]:
                rows.append(
                    LedgerRow(
                        id=f"evaluate/{width}/{variant}/knn", stage="evaluate", variant=variant,
                        metric="knn_top1", split=split,
                        width=None if variant == "pixels" else width, data_sha256="d" * 64,
                        **share(level, TEST),
                    )
                )  # fmt: skip
    return rows


def _group(
    rng: random.Random, stage: str, metric: str, variant: str, width: str | None,
    budget: int | None, level: float, split: str,
) -> list[LedgerRow]:  # fmt: skip
    spread = 0.03 / math.sqrt(budget or 400)
    base = f"{stage}/{width}/{variant}/{metric}/{budget or 'all'}"
    luck = random.Random(f"{budget}{width}")  # the same labels are lucky for all variants
    values = []
    for _ in range(1 if budget is None else 3):
        value = level + luck.gauss(0, spread) + rng.gauss(0, spread / 4)
        values.append(round(value * TEST) / TEST)
    common = {
        "stage": stage, "variant": variant, "metric": metric, "split": split, "width": width,
        "labels_per_class": budget, "data_sha256": "d" * 64,
    }  # fmt: skip
    rows = [
        LedgerRow(id=f"{base}/draw{k}", draw=k, seed=0, **common, **share(value, TEST))
        for k, value in enumerate(values)
    ]
    low, high = student_t_interval(values) or (None, None)
    summary = {"value": sum(values) / len(values), "n": TEST, "ci_low": low, "ci_high": high}
    parents = tuple(row.id for row in rows)
    return [*rows, LedgerRow(id=base, parents=parents, **common, **summary)]


def pretraining(folder: Path, weights: bool, alarm: bool = False) -> None:
    """Write metrics and monitors of one pretraining."""
    rng = random.Random(weights)
    start = 2.2 if weights else 4.1
    files.append_jsonl(
        folder / "metrics.jsonl",
        (
            {
                "step": step, "epoch": step // 100, "lr": _cosine(step / 3000, 0.05) * 2e-3,
                "images_per_s": 880 + rng.gauss(0, 25), "seconds": step * 0.14,
                "loss": {
                    "total": start * math.exp(-step / 600) + 1.1 + rng.gauss(0, 0.04),
                    "sacl": 0.7 * start * math.exp(-step / 700) + 0.8 + rng.gauss(0, 0.03),
                    "xd": 0.3 * start * math.exp(-step / 300) + 0.3 + rng.gauss(0, 0.02),
                },
            }
            for step in range(10, 3001, 10)
        ),
    )  # fmt: skip
    files.append_jsonl(
        folder / "monitor.jsonl",
        (
            {
                "step": 100 * k, "epoch": k,
                "rankme": {
                    "host": 180 * (1 - 0.8 * math.exp(-k / 6)) + rng.gauss(0, 3),
                    "1x": 140 * (1 - 0.8 * math.exp(-k / 6)) + rng.gauss(0, 3),
                },
                "std": {"host": 0.93 - 0.3 * math.exp(-k / 5), "1x": 0.9 - 0.3 * math.exp(-k / 5)},
                "knn": {"host": 0.8 - 0.4 * math.exp(-k / 7), "1x": 0.78 - 0.4 * math.exp(-k / 7)}
                if k % 2 == 0
                else None,
                "agreement": {"1x": 0.72 - 0.4 * math.exp(-k / 8)},
                "alarm": "RankMe of 1x fell to 1.4 of 512" if alarm and k == 20 else None,
            }
            for k in range(1, 31)
        ),
    )  # fmt: skip


def _cosine(t: float, warmup: float) -> float:
    return t / warmup if t < warmup else 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))


def predicted_answers(folder: Path, names: int, n: int, right: float, seed: int = 0) -> None:
    """Write predictions.csv with mistakes that prefer the neighbouring class."""
    rng = random.Random(seed)
    lines = ["sha256,label,predicted,score,margin"]
    for i in range(n):
        true = i % names
        ability = right - 0.25 * (true % 3 == 0)
        near = [(true + 1) % names, (true - 1) % names, rng.randrange(names)]
        said = true if rng.random() < ability else rng.choice(near)
        lines.append(f"{i:064x},{true},{said},{0.4 + 0.6 * rng.random():.4f},0.2")
    files.write_text(folder / "predictions.csv", "\n".join(lines) + "\n")


def mistakes_file(folder: Path, side: int, names: int, count: int = 24) -> None:
    """Write mistakes.npz with drawn pictures."""
    rng = np.random.default_rng(side)
    y, x = np.mgrid[0:side, 0:side] / side
    images = np.stack(
        [
            np.stack(
                [
                    128 + 120 * np.sin(6 * x * rng.uniform(0.5, 2) + rng.uniform(0, 6)),
                    255 * np.hypot(x - 0.5, y - 0.5) ** rng.uniform(0.5, 1.5),
                    255 * (np.abs(x - y) < rng.uniform(0.1, 0.5)),
                ],
                axis=-1,
            )
            for _ in range(count)
        ]
    )
    label = np.arange(count) % names
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "mistakes.npz",
        images=np.clip(images + rng.normal(0, 6, images.shape), 0, 255).astype(np.uint8),
        label=label,
        predicted=(label + 1) % names,
        score=np.linspace(0.999, 0.7, count),
        sha256=np.array([f"{i:064x}" for i in range(count)]),
        item=np.array([f"photos/shelf {i}/IMG_{1000 + i}.jpg" for i in range(count)]),
    )


def parity(folder: Path, seal: str, passed: bool = True) -> None:
    """Write parity.json of a float32 file."""
    check = ParityCheck(
        level="tensors", n=TEST, max_abs=2.1e-6 if passed else 0.4, tolerance=1e-3,
        cosine=0.99999998, agreement=1.0, passed=passed,
    )  # fmt: skip
    body = {"seal": seal, "checks": [check.model_dump(mode="json", by_alias=True)]}
    files.write_json(folder / "parity.json", "parity", body)


def data_json(folder: Path, names: tuple[str, ...], **changes: object) -> None:
    """Write the findings of the data stage."""
    sizes = {"min": [28, 28], "median": [28, 28], "max": [28, 28]}
    counts = {name: 520 - 37 * i for i, name in enumerate(names)}
    skipped = [
        {"item": "raw/zero.jpg", "reason": "empty file"},
        {"item": 'raw/"quoted" 🦊\nnew line.png', "reason": "truncated PNG"},
    ]
    body = {
        "sources": [
            {
                "role": "unlabeled", "name": "fashion-mnist:train", "images": 60000,
                "classes": None, "sizes": sizes, "duplicates": 0, "skipped": [],
                "skipped_count": 0,
            },
            {
                "role": "labels", "name": "fashion-mnist:train", "images": sum(counts.values()),
                "classes": counts, "sizes": {**sizes, "max": [640, 480]}, "duplicates": 4,
                "skipped": skipped, "skipped_count": 2,
            },
        ],
        "splits": {"train": 4000, "validation": 600, "test": TEST},
        "folds": None, "groups": 12,
        "near_duplicates": [
            {"a": "a/1.png", "b": "b/7.png", "a_split": "train", "b_split": "test",
             "distance": 0.031},
            {"a": "a/2.png", "b": "a/3.png", "a_split": "train", "b_split": "train",
             "distance": 0.044},
        ],
    } | changes  # fmt: skip
    files.write_json(folder / "data.json", "data-findings", body)


def study_run(folder: Path, widths: tuple[str, ...] = ("1x", "0.5x"), samples: int = 900) -> Path:
    """Write the run folder of a study that walked the whole chain at every width."""
    rng = random.Random(11)
    rows = study_rows(rng, widths)
    pretraining(folder / "pretrain", weights=False)
    pretraining(folder / "pretrain-imagenet", weights=True, alarm=True)
    artifact_in(
        folder / "pretrain", "encoder", "safetensors", 90_000,
        imgsz=28, architecture="mobilenet_v2", images=60_000,
    )  # fmt: skip
    data_json(folder, NAMES)
    by_id = {row.id: row for row in rows}
    for index, width in enumerate(widths):
        number = float(width[:-1])
        net = _net(folder / "extract" / width, width)
        files.write_json(
            folder / "extract" / width / "equivalence.json", "equivalence",
            {"seal": net.seal, "width": width, "images": 256, "max_abs_features": 0.0,
             "max_abs_logits": 2e-7, "tolerance": 1e-5, "pass": True},
        )  # fmt: skip
        predicted_answers(folder / "extract" / width, len(NAMES), TEST, 0.86 - 0.05 * index, index)
        mistakes_file(folder / "extract" / width, 28, len(NAMES))
        root = by_id[f"finetune/{width}/imagenet+sacl-xd/top1/10/draw0"]
        step = {"delta": 0.0, "delta_low": -0.001, "delta_high": 0.001}
        common = root.model_dump(
            include={"variant", "metric", "split", "width", "labels_per_class", "data_sha256",
                     "value", "n", "ci_low", "ci_high", "interval", "draw"}
        )  # fmt: skip
        rows.append(
            LedgerRow(
                id=f"extract/{width}", stage="extract", parents=(root.id,), target="pytorch",
                compared_with=root.id, artifact_sha256=net.seal, **common, **step,
            )
        )  # fmt: skip
        for target, cost in (("onnx", 1.3), ("openvino", 0.9), ("tflite", 1.1)):
            name = f"{width}-{target}-none"
            made = artifact_in(
                folder / "export" / name, "export", target, round(4e4 * number), (net.seal,),
                imgsz=28, labels=NAMES, architecture="mobilenet_v2", width=number,
            )  # fmt: skip
            parity(folder / "export" / name, made.seal)
            where = {"target": target, "quantize": "none", "artifact_sha256": made.seal}
            rows.append(
                LedgerRow(
                    id=f"export/{name}", stage="export", parents=(f"extract/{width}",),
                    compared_with=f"extract/{width}", **where, **common, **step,
                )
            )  # fmt: skip
            low, high = wilson(round(0.9995 * TEST), TEST)
            agreement = {"metric": "agreement", "value": 0.9995, "ci_low": low, "ci_high": high}
            rows.append(
                LedgerRow(
                    id=f"export/{name}/agreement", stage="export", **where,
                    **{**common, **agreement},
                )
            )  # fmt: skip
            shift = 0.004 if target == "tflite" else 0.0
            bench(
                folder, made, device="pi5", runtime=f"{target}-rt", target=target,
                median=8 * cost * number**1.4, samples=samples, top1=root.value - shift,
                verdict="UNSTABLE" if (target, width) == ("openvino", "0.5x") else "VALID",
                width=width, n=TEST,
            )  # fmt: skip
            rows.append(
                LedgerRow(
                    id=f"bench/pi5/{name}", stage="bench", parents=(f"export/{name}",),
                    compared_with=f"export/{name}", where="pi5", **where,
                    **{**common, "value": root.value - shift, "delta": -shift,
                       "delta_low": -shift - 0.002, "delta_high": -shift + 0.002},
                )
            )  # fmt: skip
    Ledger(folder / "ledger.json").put(rows)
    _papers(folder, widths)
    return folder


def _net(folder: Path, width: str) -> Artifact:
    number = float(width[:-1])
    files.write_bytes(folder / "model.safetensors", random.Random(width).randbytes(5000))
    return Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=InputSpec.square(28), labels=NAMES,
        facts={
            "architecture": "mobilenet_v2", "width": number, "host_width": 1.5,
            "parameters": round(2.2e6 * number**1.7), "macs": round(2.4e7 * number**1.6),
        },
    )  # fmt: skip


def _papers(folder: Path, widths: tuple[str, ...]) -> None:
    files.write_json(
        folder / "run.json", "run",
        {
            "commands": [["edgessl", "run", "recipes/fashion-mnist.yaml"]],
            "started": "2026-01-02T08:00:00Z", "finished": "2026-01-02T08:38:00Z",
            "machine": {"cpu": "AMD EPYC 9R14", "cores": 2, "memory_mb": 15_900},
            "versions": {"edgessl": "0.1.0", "torch": "2.14.1", "onnxruntime": "1.22.0"},
            "stages": {"pretrain": {"status": "done", "seconds": 1200.0}},
        },
    )  # fmt: skip
    files.write_text(
        folder / "recipe.yaml",
        f"encoder:\n  name: mobilenet_v2\n  width: 1.5x-{'-'.join(widths)}\n"
        "pretrain:\n  method: sacl-xd\n",
    )
    files.write_text(folder / "log.txt", "08:00:00 pretrain: 60000 images\n")

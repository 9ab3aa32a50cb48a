"""Run folders written as the stages leave them, and a reader for the report made of them."""

from __future__ import annotations

import math
import random
from html.parser import HTMLParser
from pathlib import Path

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.measurement import Accuracy, BenchResult, Latency, ParityCheck, Verdict
from edgessl.core.statistics import student_t_interval, wilson

HOSTILE = "<script>alert('cat')</script>"
CLASSES = ("cup", "bolt", "nut", HOSTILE, "washer", "spring | coil", "gear & rack", "pin")
N = 1600  # test images


def share(right: float, n: int = N) -> dict[str, float | int | str]:
    """Value, n and Wilson interval of a proportion."""
    low, high = wilson(round(right * n), n)
    return {"value": right, "n": n, "ci_low": low, "ci_high": high, "interval": "Wilson"}


def begun(folder: Path) -> Path:
    """Make a run folder in which nothing was done yet."""
    files.write_json(folder / "run.json", "run", {})
    return folder


def training_rows(rng: random.Random) -> list[LedgerRow]:
    rows = []
    settings = [
        ("pixels", "evaluate", "top1", (0.412, 0.583)),
        ("scratch", "finetune", "top1", (0.447, 0.694)),
        ("sacl-xd", "evaluate", "linear_top1", (0.561, 0.701)),
        ("sacl-xd", "evaluate", "knn_top1", (0.548, 0.662)),
        ("sacl-xd", "finetune", "top1", (0.612, 0.748)),  # draw 0 goes on to the device
    ]
    for variant, stage, metric, levels in settings:
        for budget, level in zip((5, 25), levels, strict=True):
            values = [level] + [level + rng.gauss(0, 0.014) for _ in range(4)]
            name = f"{stage}-{variant}-{metric}-{budget}"
            common = {
                "stage": stage,
                "variant": variant,
                "metric": metric,
                "split": "test",
                "labels_per_class": budget,
                "data_sha256": "d" * 64,
                "width": None if variant == "pixels" else "1x",
            }
            for draw, value in enumerate(values):
                rows.append(
                    LedgerRow(id=f"{name}-d{draw}", draw=draw, seed=draw, **common, **share(value))
                )
            low, high = student_t_interval(values) or (0.0, 1.0)
            rows.append(
                LedgerRow(
                    id=name,
                    parents=tuple(f"{name}-d{d}" for d in range(5)),
                    **common,
                    value=sum(values) / 5,
                    n=N,
                    ci_low=low,
                    ci_high=high,
                    interval="t over 5 draws",
                )
            )
    return rows


def artifact_in(
    folder: Path, kind: str, target: str, size: int, parents: tuple = (), **changes: object
) -> Artifact:
    name = {"onnx": "model.onnx", "tflite": "model.tflite"}.get(target, "model.safetensors")
    files.write_bytes(folder / name, random.Random(f"{folder.name}").randbytes(size))
    return Artifact.sealed(
        folder,
        [name],
        artifact_kind=kind,
        format=target,
        input=InputSpec.square(changes.pop("imgsz", 96)),
        labels=() if kind == "encoder" else changes.pop("labels", CLASSES),
        parents=parents,
        facts={"architecture": "mobilenet_v3_large"}
        | ({"width": 1.0, "target": target, "quantize": "none"} if kind == "export" else {})
        | ({"host_width": 1.5, "slim_width": 1.0} if kind == "encoder" else {})
        | ({"images": 12_400, "method": "sacl-xd"} if kind == "encoder" else {})
        | changes,
    )


def bench(
    folder: Path,
    artifact: Artifact,
    *,
    device: str,
    runtime: str,
    target: str,
    median: float,
    verdict: Verdict = "VALID",
    samples: int = 1200,
    top1: float = 0.748,
    reasons: tuple[str, ...] = (),
    width: str = "1x",
    n: int = N,
) -> BenchResult:
    rng = random.Random(f"{device}{runtime}{target}{width}")
    infer, whole = [], []
    for index in range(samples):
        drift = 1 + (0.25 * index / samples if verdict == "UNSTABLE" else 0)
        tail = rng.expovariate(1) * 8 if rng.random() < 0.01 else 0
        infer.append(drift * median * math.exp(rng.gauss(0, 0.03)) + tail)
        whole.append(infer[-1] + 0.4 + rng.random() * 0.05)
    low, high = wilson(round(top1 * n), n)
    answers = verdict != "WRONG_ANSWERS"
    result = BenchResult(
        run={"started": "2025-01-02T10:11:12+00:00"},
        model={"seal": artifact.seal, "format": target, "facts": artifact.facts},
        data={"n": n, "data_sha256": "d" * 64},
        device={"kind": "ssh", "id": device, "board": "Raspberry Pi 5", "cores": 4},
        runtime={
            "name": runtime,
            "version": "1.22.0",
            "asked": {"provider": "CPU", "threads": 4},
            "used": {"providers": ["CPU"], "threads": 4, "precision": "float32"},
        },
        protocol={"preset": {"name": "standard", "repeats": 3}, "outliers": [12, 13, 9]},
        latency_ms={
            "load": Latency.of([41.0]),
            "first": Latency.of([median * 3]),
            "infer": Latency.of(infer),
            "e2e_from_uint8": Latency.of(whole),
        },
        throughput_fps=1000 / median,
        memory_mb={"peak": 61.5},
        accuracy=Accuracy(
            top1=top1, n=n, ci_low=low, ci_high=high, agreement=1.0 if answers else 0.31
        ),
        parity=(
            ParityCheck(
                level="golden",
                n=16,
                max_abs=3e-6 if answers else 0.8,
                tolerance=1e-3,
                cosine=0.9999999 if answers else 0.41,
                agreement=1.0 if answers else 0.3,
                passed=answers,
            ),
        ),
        verdicts=(verdict,),
        reasons=reasons,
        conditions=("governor performance", "throttling not observable here"),
    )
    place = folder / "bench" / device / f"{width}-{target}-none-{runtime}-4t-20250102T101112Z"
    files.write_json(
        place / "result.json", "bench-result", result.model_dump(mode="json", by_alias=True)
    )
    files.append_jsonl(
        place / "samples.jsonl",
        (
            {"repeat": 1 + i * 3 // samples, "at_s": 0.1 * i, "infer_ms": a, "e2e_from_uint8_ms": b}
            for i, (a, b) in enumerate(zip(infer, whole, strict=True))
        ),
    )
    return result


def fake_run(folder: Path) -> Path:
    """Write a run folder as a complete chain leaves it, with one bad and one drifting bench."""
    rng = random.Random(7)
    rows = training_rows(rng)
    files.append_jsonl(
        folder / "pretrain" / "metrics.jsonl",
        (
            {
                "step": step,
                "epoch": step // 50,
                "lr": 0.03 * (1 - step / 2000),
                "images_per_s": 910 + rng.gauss(0, 20),
                "seconds": step * 0.28,
                "loss": {
                    "total": 4.1 * math.exp(-step / 600) + 1.2 + rng.gauss(0, 0.05),
                    "sacl": 3.0 * math.exp(-step / 700) + 0.9 + rng.gauss(0, 0.04),
                    "xd": float("nan") if step == 30 else 1.1 * math.exp(-step / 300) + 0.3,
                },
            }
            for step in range(0, 2000, 2)
        ),
    )
    files.append_jsonl(
        folder / "finetune" / "metrics.jsonl",
        (
            {"epoch": e, "loss": 2 * math.exp(-e / 9), "val_top1": 0.75 - 0.5 / (e + 1)}
            for e in range(40)
        ),
    )
    encoder = artifact_in(folder / "pretrain", "encoder", "safetensors", 90_000)
    tuned = artifact_in(folder / "finetune", "model", "safetensors", 91_000, (encoder.seal,))
    slim = artifact_in(folder / "extract" / "1x", "model", "safetensors", 41_000, (tuned.seal,))
    files.write_json(
        folder / "extract" / "1x" / "equivalence.json",
        "equivalence",
        {
            "seal": slim.seal,
            "width": "1x",
            "images": 256,
            "max_abs_features": 0.0,
            "max_abs_logits": 2e-7,
            "same_answers": True,
            "tolerance": 1e-5,
            "pass": True,
            "groups": {"stem": [16, 24], "features.1": [24, 40]},
        },
    )
    parent = "finetune-sacl-xd-top1-25-d0"
    common = {
        "variant": "sacl-xd",
        "metric": "top1",
        "split": "test",
        "labels_per_class": 25,
        "width": "1x",
        "data_sha256": "d" * 64,
    }
    same = {"delta": 0.0, "delta_low": -0.0012, "delta_high": 0.0012}

    rows.append(
        LedgerRow(
            id="extract-1x",
            stage="extract",
            parents=(parent,),
            target="pytorch",
            artifact_sha256=slim.seal,
            **common,
            **same,
            **share(0.748),
        )
    )
    for target, top1 in (("onnx", 0.748), ("openvino", 0.748), ("tflite", 0.748)):
        place = folder / "export" / f"1x-{target}-none"
        made = artifact_in(place, "export", target, 39_000, (slim.seal,))
        check = {
            "level": "tensors",
            "n": N,
            "max_abs": 2.1e-6,
            "cosine": 0.99999998,
            "agreement": 1.0,
            "tolerance": 1e-3,
            "pass": True,
        }
        files.write_json(
            place / "parity.json", "parity", {"seal": made.seal, "checks": [check], "snr_db": 118.0}
        )
        where = {"target": target, "quantize": "none", "artifact_sha256": made.seal}
        rows.append(
            LedgerRow(
                id=f"export-{target}",
                stage="export",
                parents=("extract-1x",),
                **where,
                **common,
                **same,
                **share(top1),
            )
        )
        wrong = target == "tflite"
        bench(
            folder,
            made,
            device="pi5",
            target=target,
            runtime=f"{target}-rt",
            median={"onnx": 6.31, "openvino": 4.27, "tflite": 1.234}[target],
            verdict="WRONG_ANSWERS" if wrong else "UNSTABLE" if target == "openvino" else "VALID",
            samples=6000 if target == "openvino" else 1200,
            top1=0.31 if wrong else top1,
            reasons=(f"WRONG_ANSWERS: agreement 31 % with {HOSTILE}",)
            if wrong
            else ("UNSTABLE: the last quarter is 21 % slower than the first",)
            if target == "openvino"
            else (),
        )
        rows.append(
            LedgerRow(
                id=f"bench-{target}",
                stage="bench",
                parents=(f"export-{target}",),
                where="pi5",
                **where,
                **common,
                **(
                    same
                    if not wrong
                    else {"delta": -0.438, "delta_low": -0.46, "delta_high": -0.41}
                ),
                **share(0.31 if wrong else top1),
            )
        )
    Ledger(folder / "ledger.json").put(rows)
    sizes = {"train": 200, "val": 800, "test": N}
    files.write_json(
        folder / "splits.json",
        "splits",
        {
            "data_sha256": "d" * 64,
            "seed": 0,
            "duplicates": 3,
            "asked": {"val": 0.15, "test": 0.25},
            "splits": {k: {"sha256": ["0"] * n, "items": ["x"] * n} for k, n in sizes.items()},
            "skipped": [{"item": f"raw/{HOSTILE}.jpg", "reason": "truncated JPEG"}],
        },
    )
    files.write_json(
        folder / "run.json",
        "run",
        {
            "commands": [
                ["edgessl", "run", "my recipe.yaml", "--out", "runs/parts"],
                ["edgessl", "bench", "last", "--device", "pi5"],
            ],
            "started": "2025-01-02T08:00:00Z",
            "finished": "2025-01-02T10:20:00Z",
            "machine": {"cpu": "AMD EPYC 9R14", "cores": 2, "memory_mb": 15_900},
            "versions": {"python": "3.11.9", "torch": "2.14.1"},
            "stages": {
                "pretrain": {"status": "done", "seconds": 5400.0},
                "finetune": {"status": "failed", "seconds": 310.5},
            },
        },
    )
    files.write_text(
        folder / "recipe.yaml",
        "encoder:\n  name: mobilenet_v3_large\n  width: 1.5x-1x\npretrain:\n  method: sacl-xd\n",
    )
    files.write_text(folder / "log.txt", "08:00:00 pretrain: 12400 images\n")
    return folder


class Page(HTMLParser):
    """Checks nesting while reading, and keeps what the tests ask about."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.cells: list[str] = []
        self.rows: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if "id" in named:
            self.ids.append(named["id"])
        if tag == "table":
            self.tables.append({"caption": 0, "th": 0, "scoped": 0})
        elif tag == "caption":
            self.tables[-1]["caption"] += 1
        elif tag == "th":
            self.tables[-1]["th"] += 1
            self.tables[-1]["scoped"] += named.get("scope") in ("col", "row", "rowgroup")
        if tag in ("td", "dd"):
            self.cells.append("")
        if tag == "tr":
            self.rows.append("")
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1]}>"
        self.stack.pop()

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.words.append(data)
        if {"td", "dd"} & set(self.stack):
            self.cells[-1] += data
        if "tr" in self.stack:
            self.rows[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

"""From the events of the agent to figures and files: samples, telemetry, predictions, accuracy."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.measurement import Accuracy, Latency, ParityCheck
from edgessl.core.statistics import wilson
from edgessl.devices import events
from edgessl.devices.events import Run

ECE_BINS = 15
COUNTERS = ("load1", "busy_s", "own_s", "wait_s", "swap_pages", "rss_mb")


def latencies(runs: Sequence[Run]) -> dict[str, Latency]:
    """Summarise each part over all repeats; ``load`` and ``first`` have one sample a process."""
    pooled: dict[str, list[float]] = {
        "load": [loaded["load_ms"] for loaded in events.all_of(runs, "loaded")],
        "first": [first["ms"] for first in events.all_of(runs, "first")],
    }
    for run in runs:
        for part, values in events.samples_ms(run).items():
            if part != "at_s":
                pooled.setdefault(part, []).extend(values)
    if "infer" not in pooled:  # answers were wrong: a time would stand beside nothing
        return {}
    order = ("load", "first", "preprocess", "copy_in", "infer", "copy_out", "postprocess")
    names = [name for name in (*order, "e2e_from_uint8") if pooled.get(name)]
    return {name: Latency.of(pooled[name]) for name in names}


def memory_mb(runs: Sequence[Run]) -> dict[str, float]:
    """Return the largest resident size, and by how much loading and a first run grew it."""
    peak = [d["max_rss_mb"] for d in events.all_of(runs, "done") if d["max_rss_mb"] is not None]
    grown = [f["model_mb"] for f in events.all_of(runs, "first") if f["model_mb"] is not None]
    found = {"max_rss": max(peak, default=None), "model_rss": max(grown, default=None)}
    return {name: round(value, 2) for name, value in found.items() if value is not None}


def built(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return what was built on the board before it was timed; None where nothing was.

    Returns:
        ``path`` below the folder that EdgeSSL keeps on the board, ``sha256`` ("" of several files),
        ``seconds`` of the build, ``gpu``, ``version`` of what built it, ``reused`` from earlier.
    """
    told = next(iter(events.all_of(runs, "built")), None)
    if told is None or not told["path"]:
        return None
    # what lies above it names the board's user
    _, engines, below = told["path"].rpartition("/engines/")
    return {
        "path": f"engines/{below}" if engines else PurePosixPath(told["path"]).name,
        "sha256": told["sha256"],
        "seconds": round(told["s"], 1),
        "gpu": told["gpu"],
        "version": told["version"],
        "reused": bool(told.get("reused")),
    }


def answers(run: Run) -> dict[str, list[Any]]:
    """Join the chunks of predictions: predicted, top5, score, margin (and comparisons)."""
    joined: dict[str, list[Any]] = {}
    for event in events.of_kind(run, "acc"):
        for name, values in event["rows"].items():
            joined.setdefault(name, []).extend(values)
    return joined


def accuracy(
    found: dict[str, list[Any]],
    labels: NDArray[np.int64],
    reference: NDArray[np.float32] | None,
    classes: int,
) -> Accuracy | None:
    """Score predictions in pack order; None without predictions or without labels (-1).

    Args:
        found: What :func:`answers` returned, N rows.
        labels: (N,) class indices.
        reference: (N, C) float32 PyTorch logits of the same images, if the pack has them.
        classes: C; top-5 means nothing for five classes or fewer.
    """
    predicted = np.asarray(found.get("predicted", []), np.int64)
    if len(predicted) == 0 or (labels < 0).any():
        return None
    right = predicted == labels
    n, hits = len(right), int(right.sum())
    low, high = wilson(hits, n)
    shift = None
    if reference is not None:
        logits = reference.astype(np.float64)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        confidence = exponents.max(1) / exponents.sum(1)
        before = calibration_error(confidence, logits.argmax(1) == labels)
        shift = calibration_error(np.asarray(found["score"]), right) - before
    top5 = [int(y) in five for y, five in zip(labels, found["top5"], strict=True)]
    return Accuracy(
        top1=hits / n,
        top5=sum(top5) / n if classes > 5 else None,
        n=n,
        ci_low=low,
        ci_high=high,
        agreement=float(np.mean(found["agrees"])) if "agrees" in found else None,
        ece_shift=shift,
    )


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 15 bins of equal width over (0, 1].

    Source: Guo et al., ICML 2017.

    Args:
        confidence: (N,) probability of the answer.
        right: (N,) whether the answer is right.
    """
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, confidence - right, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def parity(
    runs: Sequence[Run], found: dict[str, list[Any]], reference: NDArray[np.float32] | None
) -> tuple[ParityCheck, ...]:
    """Return the comparisons with PyTorch: golden images, and the whole pack if it has logits.

    The golden check passes only if the file also gives what it gave on the workstation.
    """
    golden = next(iter(events.all_of(runs, "golden")), None)
    if golden is None:
        return ()
    checks = [_check("golden", golden["n"], golden["reference"], golden["tolerance"], golden["ok"])]
    if reference is not None and found.get("gap"):
        figures = {
            "max_abs": max(found["gap"]) / (float(np.abs(reference).max()) or 1.0),
            "cosine": min(found["cosine"]),
            "agreement": float(np.mean(found["agrees"])),
        }
        within = figures["max_abs"] <= golden["tolerance"]
        checks.append(_check("answers", len(found["gap"]), figures, golden["tolerance"], within))
    return tuple(checks)


def _check(
    level: str, n: int, figures: Mapping[str, float], tolerance: float, passed: bool
) -> ParityCheck:
    names = ("max_abs", "cosine", "agreement")
    body = {"level": level, "n": n, "tolerance": tolerance, "pass": passed}
    return ParityCheck.model_validate(body | {name: figures[name] for name in names})


def write_samples(path: Path, runs: Sequence[Run]) -> None:
    """Write one JSON line per sample in the order they were taken; milliseconds."""

    def lines() -> Iterable[str]:
        for repeat, run in enumerate(runs, 1):
            parts = events.samples_ms(run)
            at_s = parts.pop("at_s", [])
            names = [f"{name}_ms" for name in parts]
            for moment, values in zip(at_s, zip(*parts.values(), strict=True), strict=True):
                row = {"repeat": repeat, "at_s": moment} | dict(zip(names, values, strict=True))
                yield json.dumps(row) + "\n"

    files.write_text(path, "".join(lines()))


def write_telemetry(path: Path, runs: Sequence[Run]) -> None:
    """Write one row per reading of the sensors; ``*_s`` counters are cumulative."""
    readings = list(events.all_of(runs, "tel"))
    zones = sorted({zone for reading in readings for zone in reading["temp_c"]})
    policies = sorted({policy for reading in readings for policy in reading["freq_mhz"]})
    temperatures, clocks = [f"temp_c {z}" for z in zones], [f"mhz {p}" for p in policies]
    rows: list[list[object]] = [
        [
            repeat,
            reading["phase"],
            reading["t"],
            *(reading[name] for name in COUNTERS),
            *(reading["temp_c"].get(zone) for zone in zones),
            *(reading["freq_mhz"].get(policy) for policy in policies),
        ]
        for repeat, run in enumerate(runs, 1)
        for reading in events.of_kind(run, "tel")
    ]
    _write_csv(path, ["repeat", "phase", "t_s", *COUNTERS, *temperatures, *clocks], rows)


def write_predictions(
    path: Path, sha256: Sequence[str], labels: NDArray[np.int64], found: dict[str, list[Any]]
) -> None:
    """Write one row per image of the pack: what paired tests need later."""
    columns = [found[name] for name in ("predicted", "score", "margin")]
    rows = [
        [image, int(label), predicted, f"{score:.7g}", f"{margin:.7g}"]
        for image, label, predicted, score, margin in zip(sha256, labels, *columns, strict=True)
    ]
    _write_csv(path, ["sha256", "label", "predicted", "score", "margin"], rows)


def _write_csv(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())

"""Ledger rows from answers: proportions with intervals, paired differences, summaries of draws."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.ledger import LedgerRow
from edgessl.core.statistics import (
    paired_difference,
    resampled_t_interval,
    student_t_interval,
    wilson,
)  # fmt: skip
from edgessl.evaluation.answers import Answers
from edgessl.stages.roles import Split

MISTAKES = 24  # wrong answers that are kept with their pictures


def accuracy_row(
    correct_N: NDArray[np.bool_],
    *,
    compared: tuple[LedgerRow, NDArray[np.bool_]] | None = None,
    **fields: Any,
) -> LedgerRow:
    """Return a row for one set of answers.

    Args:
        correct_N: Whether each image was answered right.
        compared: Row to compare with, and its answers to the same images; gives the delta.
        fields: The other fields of the row (``id``, ``stage``, ``variant``, ``metric``, ...).
    """
    n, right = len(correct_N), int(correct_N.sum())
    low, high = wilson(right, n)
    values = {
        "value": right / n, "n": n, "ci_low": low, "ci_high": high, "interval": "Wilson 95 %",
    }  # fmt: skip
    if compared is not None:
        before = compared[1]
        gained, lost = int((correct_N & ~before).sum()), int((before & ~correct_N).sum())
        bounds = paired_difference(gained, lost, n)
        values |= {
            "parents": (compared[0].id,), "compared_with": compared[0].id,
            "delta": (gained - lost) / n, "delta_low": bounds[0], "delta_high": bounds[1],
        }  # fmt: skip
    return LedgerRow(**{**values, **fields})


def with_note(row: LedgerRow, told: str) -> LedgerRow:
    """Return a row with something added to its note; as it is where there is nothing to add."""
    note = "; ".join(filter(None, (row.note, told)))
    return row.model_copy(update={"note": note}) if told else row


def summary_row(
    draws: Sequence[LedgerRow],
    *,
    compared: tuple[str, Sequence[LedgerRow]] | None = None,
    test_to_train: float | None = None,
    **fields: Any,
) -> LedgerRow:
    """Return the mean over label draws with a t interval, cut to what a proportion can be.

    Args:
        draws: Rows of the same figure, one per draw; they become the parents.
        compared: Id of another summary and its draws, on the same labels: gives the delta.
        test_to_train: Test images per training image when the draws are folds, whose figures
            depend on each other; see :func:`resampled_t_interval`.
        fields: ``id`` and whatever differs from the draws.
    """
    if len(draws) == 1:
        return _only(draws[0], compared[0] if compared else None, fields)
    low, high = _interval([row.value for row in draws], 0.0, test_to_train)
    kind = f"t over {len(draws)} draws, 95 %"
    if test_to_train is not None:
        kind = f"corrected resampled t over {len(draws)} folds, 95 %"
    values = draws[0].model_dump() | {
        "value": fmean(row.value for row in draws), "ci_low": low, "ci_high": high, "draw": None,
        "interval": kind,
        "parents": tuple(row.id for row in draws), "seconds": sum(r.seconds or 0 for r in draws),
        "artifact_sha256": None, "compared_with": None,
        "delta": None, "delta_low": None, "delta_high": None,
    }  # fmt: skip
    if compared is not None and len(compared[1]) == len(draws):
        differences = [a.value - b.value for a, b in zip(draws, compared[1], strict=True)]
        low, high = _interval(differences, -1.0, test_to_train)
        values |= {
            "compared_with": compared[0], "delta": fmean(differences),
            "delta_low": low, "delta_high": high,
        }  # fmt: skip
    return LedgerRow(**{**values, **fields})


def _only(draw: LedgerRow, compared: str | None, fields: dict[str, Any]) -> LedgerRow:
    """Return the summary of a single draw: its own figure, interval and paired difference."""
    values = draw.model_dump() | {
        "draw": None, "parents": (draw.id,), "artifact_sha256": None, "compared_with": compared
    }  # fmt: skip
    return LedgerRow(**{**values, **fields})


def _interval(
    values: Sequence[float], least: float, test_to_train: float | None
) -> tuple[float | None, float | None]:
    if test_to_train is None:
        bounds = student_t_interval(values)
    else:
        bounds = resampled_t_interval(values, test_to_train)
    return (None, None) if bounds is None else (max(least, bounds[0]), min(1.0, bounds[1]))


def write_mistakes(path: Path, test: Split, logits_NC: NDArray[np.float32]) -> None:
    """Write the most confident wrong answers with their pictures, for the report.

    The ``.npz`` holds ``images`` uint8 (M, H, W, 3), ``label`` and ``predicted`` int64 (M,),
    ``score`` float64 (M,), ``sha256`` and ``item`` (M,); M is at most :data:`MISTAKES`.
    """
    answers = Answers.of(logits_NC)
    wrong = np.flatnonzero(answers.predicted != test.labels)
    worst = wrong[np.argsort(-answers.score[wrong], kind="stable")][:MISTAKES]
    buffer = io.BytesIO()
    np.savez(
        buffer, allow_pickle=False, images=test.images[worst], label=test.labels[worst],
        predicted=answers.predicted[worst], score=answers.score[worst],
        sha256=np.array([test.sha256[i] for i in worst], dtype="U64"),
        item=np.array([test.items[i] for i in worst], dtype=np.str_),
    )  # fmt: skip
    files.write_bytes(path, buffer.getvalue())


def write_predictions(
    path: Path, sha256: Sequence[str], labels_N: NDArray[np.int64], logits_NC: NDArray[np.float32]
) -> None:
    """Write ``predictions.csv``: image sha256, label, predicted, score, margin."""
    answers = Answers.of(logits_NC)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sha256", "label", "predicted", "score", "margin"])
    for i, sha in enumerate(sha256):
        score, margin = f"{answers.score[i]:.6f}", f"{answers.margin[i]:.6f}"
        writer.writerow([sha, int(labels_N[i]), int(answers.predicted[i]), score, margin])
    files.write_text(path, text.getvalue())

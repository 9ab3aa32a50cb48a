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
from edgessl.core.statistics import paired_difference, student_t_interval, wilson
from edgessl.evaluation.answers import Answers


def accuracy_row(
    correct_N: NDArray[np.bool_],
    *,
    parent: tuple[LedgerRow, NDArray[np.bool_]] | None = None,
    **fields: Any,
) -> LedgerRow:
    """Return a row for one set of answers.

    Args:
        correct_N: Whether each image was answered right.
        parent: Row to compare with, and its answers to the same images; gives the paired delta.
        fields: The other fields of the row (``id``, ``stage``, ``variant``, ``metric``, ...).
    """
    n, right = len(correct_N), int(correct_N.sum())
    low, high = wilson(right, n)
    values = {
        "value": right / n, "n": n, "ci_low": low, "ci_high": high, "interval": "Wilson 95 %",
    }  # fmt: skip
    if parent is not None:
        before = parent[1]
        gained, lost = int((correct_N & ~before).sum()), int((before & ~correct_N).sum())
        bounds = paired_difference(gained, lost, n)
        values |= {
            "parents": (parent[0].id,), "delta": (gained - lost) / n,
            "delta_low": bounds[0], "delta_high": bounds[1],
        }  # fmt: skip
    return LedgerRow(**{**values, **fields})


def summary_row(
    draws: Sequence[LedgerRow], *, parent: Sequence[LedgerRow] | None = None, **fields: Any
) -> LedgerRow:
    """Return the mean over label draws with a t interval.

    Args:
        draws: Rows of the same figure, one per draw.
        parent: Rows of another variant on the same draws: gives the paired delta.
        fields: ``id`` and whatever differs from the draws.
    """
    values = [row.value for row in draws]
    bounds = student_t_interval(values) or (None, None)
    base = draws[0].model_dump()
    base |= {
        "value": fmean(values), "ci_low": bounds[0], "ci_high": bounds[1], "draw": None,
        "interval": f"t over {len(draws)} draws, 95 %" if len(draws) > 1 else None,
        "parents": tuple(row.id for row in draws), "seconds": sum(r.seconds or 0 for r in draws),
        "artifact_sha256": None, "delta": None, "delta_low": None, "delta_high": None,
    }  # fmt: skip
    if parent and len(parent) == len(draws):
        differences = [a.value - b.value for a, b in zip(draws, parent, strict=True)]
        bounds = student_t_interval(differences) or (None, None)
        base |= {
            "delta": fmean(differences), "delta_low": bounds[0], "delta_high": bounds[1],
        }  # fmt: skip
    return LedgerRow(**{**base, **fields})


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

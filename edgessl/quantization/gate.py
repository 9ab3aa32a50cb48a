"""May this file replace the model it came from? PASS, FAIL or INCONCLUSIVE, with few labels.

Top-1 can only change on images whose answer flips, so only flipped images need labels. A flip
without a label counts as lost where the drop is bounded from above and as gained where it is
bounded from below. Hence labels only bring the two bounds closer: a PASS or FAIL without them is
what all labels would give too, and judging again once the flips are labelled is no second test.
(Judging again with more images is one; take as many as are needed at once.)

With an admitted error of 5 %:

- PASS needs both the upper bound of the drop (95 %) and the whole interval of the confidence shift
  within what is admitted, so a file beyond either has a chance of at most 5 %.
- There are two ways to FAIL, so each gets half of the error: the lower bound of the drop (97.5 %),
  or the whole interval of the shift (95 %, so 2.5 % on either side), lies beyond.

The bounds of the drop are exact: see :mod:`edgessl.core.noninferiority`. The interval of the shift
is Student's: exact for normal differences, and close for the hundreds of images that the drop
takes to PASS.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgessl.core.errors import DataInvalid, GateFailed
from edgessl.core.statistics import student_t_quantile
from edgessl.quantization import criteria
from edgessl.quantization.criteria import Bounds, Counts, Outcome

UNKNOWN = -1  # label of an image that has none

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of :func:`judge`. Drop and shift are proportions; positive: the file is worse.

    Attributes:
        outcome: The decision.
        n: Images judged.
        labelled: Images with a label.
        flips: Images with another argmax than the reference, or an output that is not finite.
        unlabelled_flips: Finite flips without a label.
        gained: Flips that the file gets right.
        lost: Flips that the reference gets right, and all outputs that are not finite.
        drop: (lost - gained) / n; None while flips lack labels.
        drop_low: Exact lower bound of the drop, every unlabelled flip taken as gained.
        drop_high: Exact upper bound of the drop, every unlabelled flip taken as lost.
        shift: Mean top-1 probability of the reference, minus that of the file.
        shift_low: Lower end of its interval.
        shift_high: Upper end of its interval.
        needed: If INCONCLUSIVE, about how many such images in all would decide, their flips
            labelled; ``n`` where labels may do. None if decided, or if no number would decide.
        to_label: Positions of the unlabelled flips.
        reasons: What decided, or what is missing, in words.
    """

    outcome: Outcome
    n: int
    labelled: int
    flips: int
    unlabelled_flips: int
    gained: int
    lost: int
    drop: float | None
    drop_low: float
    drop_high: float
    shift: float
    shift_low: float
    shift_high: float
    needed: int | None
    to_label: tuple[int, ...]
    reasons: tuple[str, ...]


def judge(
    reference_NC: ArrayLike, got_NC: ArrayLike, labels_N: ArrayLike, bounds: Bounds | None = None
) -> Verdict:
    """Decide whether a file's answers may stand in for those of its reference.

    Args:
        reference_NC: (N, C) logits of the float32 reference, finite.
        got_NC: (N, C) logits of the file; a single image that is not finite is a FAIL.
        labels_N: (N,) integer classes; -1 where the label is unknown.
        bounds: What is admitted; a point of top-1 and five of confidence unless said.

    Raises:
        GateFailed: The shapes differ, there are no images, or the reference is not finite.
        DataInvalid: The labels do not fit the logits.
    """
    bounds = bounds or Bounds()
    reference, got, labels = _checked(reference_NC, got_NC, labels_N)
    broken = np.logical_not(np.isfinite(got).all(axis=1))
    got = np.where(broken[:, None], 0.0, got)

    before, after = reference.argmax(axis=1), got.argmax(axis=1)
    flipped = (before != after) & ~broken
    to_label = np.flatnonzero(flipped & (labels == UNKNOWN))
    counts = Counts(
        n=len(labels),
        broken=int(broken.sum()),
        flips=int((flipped | broken).sum()),
        unlabelled=len(to_label),
        gained=int((flipped & (labels == after)).sum()),
        lost=int(((flipped & (labels == before)) | broken).sum()),
    )
    # an output that is not finite has no confidence at all
    less_confident = _top1_probability(reference) - np.where(broken, 0.0, _top1_probability(got))
    shift, shift_low, shift_high = _mean_and_interval(less_confident, bounds.confidence)

    findings = [
        criteria.finite(counts),
        criteria.drop(counts, bounds),
        criteria.shift(shift, shift_low, shift_high, counts.n, bounds),
    ]
    outcome = _worst([finding.outcome for finding in findings])
    decisive = [f for f in findings if f.outcome == outcome and f.reason]
    needed = [f.needed for f in decisive if f.needed is not None]
    return Verdict(
        outcome=outcome,
        n=counts.n,
        labelled=int((labels != UNKNOWN).sum()),
        flips=counts.flips,
        unlabelled_flips=counts.unlabelled,
        gained=counts.gained,
        lost=counts.lost,
        drop=None if counts.unlabelled else (counts.lost - counts.gained) / counts.n,
        drop_low=counts.drop_low(bounds),
        drop_high=counts.drop_high(bounds),
        shift=shift,
        shift_low=shift_low,
        shift_high=shift_high,
        needed=max(needed) if len(needed) == len(decisive) else None,
        to_label=tuple(to_label.tolist()),
        reasons=tuple(finding.reason for finding in decisive),
    )


def as_record(verdict: Verdict, bounds: Bounds) -> dict[str, Any]:
    """Return what gate.json says of a verdict, ready for JSON; ``to_label`` is a count there."""
    return asdict(verdict) | {
        "to_label": len(verdict.to_label),
        "reasons": list(verdict.reasons),
        "bounds": asdict(bounds),
    }


def _checked(
    reference: ArrayLike, got: ArrayLike, labels: ArrayLike
) -> tuple[Logits, Logits, Labels]:
    want, have = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    if want.ndim != 2 or want.size == 0 or want.shape != have.shape:
        raise GateFailed(
            f"the file gives logits of shape {have.shape}, its reference {want.shape}",
            hint="both must be (images, classes); export the model again",
        )
    if not np.isfinite(want).all():
        raise GateFailed(
            "the reference itself gives NaN or infinite logits; no file can be judged by it",
            hint="train again with a lower learning rate, or check the images for NaN",
        )
    classes, known = want.shape[1], np.asarray(labels)
    if known.shape != (len(want),) or not np.issubdtype(known.dtype, np.integer):
        raise DataInvalid(
            f"{len(want)} images have labels of shape {known.shape} and type {known.dtype}",
            hint=f"give one integer for each image, {UNKNOWN} where the label is unknown",
        )
    if known.min() < UNKNOWN or known.max() >= classes:
        wrong = known[(known < UNKNOWN) | (known >= classes)][0]
        raise DataInvalid(
            f"the label {wrong} is none of the {classes} classes of the model",
            hint=f"labels go from 0 to {classes - 1}, {UNKNOWN} where the label is unknown",
        )
    return want, have, known.astype(np.int64)


def _top1_probability(logits: Logits) -> Logits:
    """Largest softmax probability of each row: exp(0) over the sum."""
    return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def _mean_and_interval(values: Logits, confidence: float) -> tuple[float, float, float]:
    """Mean of values in [-1, 1] with Student's two-sided interval; one value tells nothing."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, -1.0, 1.0
    half = _t_quantile(0.5 + confidence / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


@lru_cache(maxsize=64)
def _t_quantile(probability: float, degrees: int) -> float:
    return student_t_quantile(probability, degrees)


def _worst(outcomes: list[Outcome]) -> Outcome:
    order: tuple[Outcome, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
    return min(outcomes, key=order.index)

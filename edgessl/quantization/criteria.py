"""The criteria of the gate: finite outputs, the drop in top-1, the shift of confidence.

Each gives a finding: an outcome, the reason in words, and how many images would decide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgessl.core.errors import DataInvalid
from edgessl.core.noninferiority import drop_lower, drop_upper, images_needed

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is admitted.

    Attributes:
        max_drop: Largest drop in top-1, a proportion in [0, 1).
        confidence: One minus the chance of a wrong PASS, and of a wrong FAIL; in (0.5, 1).
        max_shift: Largest change of the mean confidence, up or down, in (0, 1].
    """

    max_drop: float = 0.01
    confidence: float = 0.95
    max_shift: float = 0.05

    def __post_init__(self) -> None:
        if not (0 <= self.max_drop < 1 and 0.5 < self.confidence < 1 and 0 < self.max_shift <= 1):
            raise DataInvalid(
                f"a gate cannot admit a drop of {self.max_drop} and a shift of {self.max_shift} "
                f"at a confidence of {self.confidence}",
                hint="give proportions: one point is 0.01; confidence is above 0.5 and below 1",
            )

    @property
    def fail_confidence(self) -> float:
        """One-sided confidence of each of the two ways to FAIL, which share the error."""
        return 1 - (1 - self.confidence) / 2


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the answers.

    Attributes:
        n: Images.
        broken: Outputs that are not finite.
        flips: Answers that changed, broken ones among them.
        unlabelled: Flips that need a label.
        gained: Flips that the file gets right.
        lost: Flips that the reference gets right, and broken outputs.
    """

    n: int
    broken: int
    flips: int
    unlabelled: int
    gained: int
    lost: int

    def drop_low(self, bounds: Bounds, open_lost: int = 0) -> float:
        """Lower bound of the drop; flips without a label are gained, but for ``open_lost``."""
        gained = self.gained + self.unlabelled - open_lost
        return drop_lower(gained, self.lost + open_lost, self.n, bounds.fail_confidence)

    def drop_high(self, bounds: Bounds, open_gained: int = 0) -> float:
        """Upper bound of the drop; flips without a label are lost, but for ``open_gained``."""
        lost = self.lost + self.unlabelled - open_gained
        return drop_upper(self.gained + open_gained, lost, self.n, bounds.confidence)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one criterion says.

    Attributes:
        outcome: The decision.
        reason: The same in words; empty where there is nothing to say.
        needed: Images in all that would decide an INCONCLUSIVE one, if any number would.
    """

    outcome: Outcome
    reason: str = ""
    needed: int | None = None


def finite(counts: Counts) -> Finding:
    """No output may be NaN or infinite."""
    if counts.broken:
        return Finding("FAIL", f"{counts.broken:,} of {counts.n:,} outputs are NaN or infinite")
    return Finding("PASS")


def drop(counts: Counts, bounds: Bounds) -> Finding:
    """Judge the drop in top-1 by its exact bounds."""
    low, high, admitted = counts.drop_low(bounds), counts.drop_high(bounds), bounds.max_drop
    least, most = points(low, admitted), points(high, admitted)
    flips = f"{counts.flips:,} of {counts.n:,} answers {'flips' if counts.flips == 1 else 'flip'}"
    if high <= admitted:
        worst_case = "; even if all without a label are lost, " if counts.unlabelled else ": "
        return Finding("PASS", f"{flips}{worst_case}that bounds the drop at {most} points")
    if low > admitted:
        best_case = "; even if all without a label are gained, " if counts.unlabelled else ": "
        return Finding(
            "FAIL",
            f"{flips}{best_case}that is a drop of {least} points at least, "
            f"{points(admitted)} admitted",
        )
    needed = _images_needed(counts, bounds)
    if counts.flips == 0:
        such = f"{needed:,} such images" if needed else "no number of such images"
        reason = f"{flips}: that bounds the drop at {most} points; {such} would bound it at "
        return Finding("INCONCLUSIVE", reason + points(admitted), needed)
    such = f"about {needed:,} such images" if needed else "no number of such images"
    if _labels_may_decide(counts, bounds):
        every = counts.unlabelled == counts.flips
        reason = f"{flips}; label {'these' if every else 'the'} {counts.unlabelled:,}"
        reason += "" if every else " that lack one"
        if needed is None or needed > counts.n:
            reason += f"; should half of them be lost, {such} would decide"
        return Finding("INCONCLUSIVE", reason, needed)
    if counts.unlabelled:
        reason = f"{flips}, and labels could not decide; {such} would"
    else:
        reason = f"{flips}, {counts.lost:,} lost and {counts.gained:,} gained: a drop of {least} "
        reason += f"to {most} points, {points(admitted)} admitted; {such} would decide"
    return Finding("INCONCLUSIVE", reason, needed)


def _labels_may_decide(counts: Counts, bounds: Bounds) -> bool:
    """Whether there are flips to label, and one way or the other labels would decide."""
    every = counts.unlabelled
    return every > 0 and (
        counts.drop_high(bounds, open_gained=every) <= bounds.max_drop
        or counts.drop_low(bounds, open_lost=every) > bounds.max_drop
    )


def _images_needed(counts: Counts, bounds: Bounds) -> int | None:
    """How many images would decide if half of the flips without a label are lost.

    Not below the present number, which alone may do only where labels may still decide.
    """
    half = counts.unlabelled / 2
    gained, lost = counts.gained + half, counts.lost + half
    fails = (lost - gained) / counts.n > bounds.max_drop
    confidence = bounds.fail_confidence if fails else bounds.confidence
    needed = images_needed(gained, lost, counts.n, bounds.max_drop, confidence)
    fewest = counts.n if _labels_may_decide(counts, bounds) else counts.n + 1
    return None if needed is None else max(needed, fewest)


def shift(mean: float, low: float, high: float, n: int, bounds: Bounds) -> Finding:
    """Judge the change of the mean confidence by its interval; positive is less confident."""
    admitted = bounds.max_shift
    verb = "falls" if mean >= 0 else "rises"
    ends = sorted((low, high) if mean >= 0 else (-high, -low))
    interval = " to ".join(points(end, admitted) for end in ends)
    reason = f"the mean confidence {verb} by {points(abs(mean))} points ({interval})"
    if -admitted <= low and high <= admitted:
        return Finding("PASS", reason)
    reason += f", {points(admitted)} admitted"
    if low > admitted or high < -admitted:
        return Finding("FAIL", reason)
    margin = abs(admitted - abs(mean))
    if margin == 0:
        return Finding("INCONCLUSIVE", reason)
    # the interval narrows with the root of the number of images
    needed = max(n + 1, math.ceil(n * ((high - low) / 2 / margin) ** 2))
    return Finding("INCONCLUSIVE", f"{reason}; about {needed:,} such images would decide", needed)


def points(value: float, limit: float = math.inf) -> str:
    """Return percentage points in two digits, or as many as tell the value from the limit."""
    for digits in range(2, 12):
        text = f"{float(f'{100 * value:.{digits}g}'):g}"
        if (float(text) > 100 * limit) == (value > limit):
            return text
    return f"{100 * value}"

"""How large can the drop be? Exact bounds for two proportions measured on the same images.

Of n images, ``lost`` are right under the reference only and ``gained`` under the new file only;
the drop is (lost - gained) / n. The two counts are trinomial with unknown rates; the true drop is
their difference, and how often images flip at all is a nuisance that only the same images tell.

The bound is Buehler's (Annals of Mathematical Statistics 28, 1957), as Lloyd and Moldovan take it
for paired proportions (Statistics in Medicine 26, 2007), over plausible rates only, after Berger
and Boos (Journal of the American Statistical Association 89, 1994):

1. All outcomes are put in one order, by the upper limit of Tango's score interval (Statistics in
   Medicine 17, 1998). One more lost or one fewer gained always comes later.
2. A 500th of the admitted error is spent on an upper bound of the lost rate (Clopper and Pearson).
3. The bound is the largest drop under which, at some lost rate up to that, the outcome seen or one
   before it has a chance above the rest of the admitted error.

So the true drop is above the bound in at most 1 - confidence of all experiments, at any n and any
flip rate, and one more lost or one fewer gained never lowers it. With no flips it is Clopper and
Pearson's bound at 499/500 of the admitted error, and with no gains it is near theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SPENT_ON_RATE = 1 / 500  # of the admitted error
PRECISION = 1e-10  # of a drop or a rate, where a bisection ends
NOISE = 1e-9  # relative error of a chance, or error of a score, that rounding may cause
TINY = 1e-300  # stands for zero where a logarithm is taken
POINTS_PER_SD = 3  # rates tried in one standard deviation of the number of lost images
SPAN_SDS, SPAN_FLIPS = 14, 60  # flip counts outside this window have no chance (below 1e-11)
NEAR_PEAK = 0.02  # a peak between two tried rates exceeds the nearer one by less than this
ZOOM, ZOOMS = 10, 4  # a zoom cuts the spacing by 10, and what a smooth peak can hide by 100
BLOCK = 64  # rates worked on at once


def drop_lower(gained: int, lost: int, n: int, confidence: float = 0.95) -> float:
    """One-sided exact lower bound of the drop, in [-1, 1]; see :func:`drop_upper`."""
    return -drop_upper(lost, gained, n, confidence)


@lru_cache(maxsize=65536)
def drop_upper(gained: int, lost: int, n: int, confidence: float = 0.95) -> float:
    """One-sided exact upper bound of the drop (lost - gained) / n, in [-1, 1].

    Args:
        gained: Images that only the new file gets right.
        lost: Images that only the reference gets right.
        n: All images, flipped or not.
        confidence: Least chance that the true drop is not above the bound, in (0.5, 1).

    Raises:
        ValueError: The counts do not fit ``n``, or ``confidence`` is outside its range.
    """
    if n < 1 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"gained {gained} and lost {lost} do not fit n {n}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be in (0.5, 1), got {confidence}")
    if lost == n:
        return 1.0
    spent = SPENT_ON_RATE * (1 - confidence)
    highest = _rate_upper(lost, n, spent)
    most_lost = _outcomes_up_to(gained, lost, n, confidence)
    outcomes = _Outcomes(most_lost, alpha=1 - confidence - spent)
    # the edges of what is plausible: no gains or no losses, all flip, the highest lost rate
    bound = max(
        _end_of(lambda drop: outcomes.likely(max(drop, 0), max(-drop, 0)), -1, 1),
        _end_of(lambda drop: outcomes.likely((1 + drop) / 2, (1 - drop) / 2), -1, 2 * highest - 1),
        _end_of(lambda drop: outcomes.likely(highest, highest - drop), 2 * highest - 1, highest),
    )
    return _raised_inside(bound, outcomes, highest)


def images_needed(
    gained: float, lost: float, n: int, max_drop: float, confidence: float = 0.95
) -> int | None:
    """About how many images in all would decide on which side of ``max_drop`` the drop is.

    They are supposed to lose and gain as often as the ``n`` at hand; then the score statistic
    grows with the root of their number. As they will do so only on average, that number gives a
    decision about every second time.

    Args:
        gained: Images gained; halves are welcome where a label is missing.
        lost: Images lost.
        n: Images these were counted on.
        max_drop: Largest drop admitted, in [0, 1).
        confidence: Of the one-sided bound that has to be on one side of it.

    Returns:
        At least what it takes with no flips, for which the number is exact. None if no number
        decides, as the drop is ``max_drop`` itself.
    """
    alpha = (1 - SPENT_ON_RATE) * (1 - confidence)
    without_flips = math.ceil(math.log(alpha) / math.log1p(-max_drop)) if max_drop > 0 else None
    if gained == lost == 0:
        return without_flips
    statistic = float(score(gained, lost, n, max_drop))
    if abs(statistic) < NOISE:
        return None
    needed = math.ceil(n * (NormalDist().inv_cdf(confidence) / statistic) ** 2)
    return needed if statistic > 0 else max(needed, without_flips or 1)


def score(gained: float | Integers, lost: float | Integers, n: int, drop: float | Floats) -> Floats:
    """Tango's score statistic of an outcome under a true drop; about standard normal there.

    The variance is that of the most likely trinomial with that drop, whose gained rate is the
    larger root of a quadratic. Source: Tango, Statistics in Medicine 17 (1998).
    """
    linear = (2 * n - lost + gained) * np.asarray(drop, np.float64) - lost - gained
    constant = -gained * drop * (1 - drop)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0))
    gained_rate = (root - linear) / (4 * n)
    variance = n * (2 * gained_rate + drop * (1 - drop))
    return (lost - gained - n * drop) / np.sqrt(np.maximum(variance, TINY))


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """The outcome seen and all before it.

    Attributes:
        most_lost: For every number of flips 0..n, how many at most are lost; -1 for none. It
            grows by one or stays with every flip more.
        alpha: The chance that they may have at drops above the bound.
    """

    most_lost: Integers
    alpha: float

    def likely(self, lost_rate: float, gained_rate: float) -> bool:
        """Whether their chance is above alpha."""
        chance = _chance(self.most_lost, np.array([lost_rate]), np.array([gained_rate]))
        return chance[0] > self.alpha

    def chances(self, shares: Floats, drop: float, highest: float) -> Floats:
        """Their chance where a share of the images that the drop leaves over flip evenly.

        So the share is 0 where nothing is gained (or, below zero, lost) and 1 where all flip;
        the chance falls as the drop grows, whatever the share. It is 0 beyond what is plausible.
        """
        even = shares * (1 - abs(drop)) / 2
        lost, gained = even + max(drop, 0), even + max(-drop, 0)
        inside = (shares > 0) & (shares < 1) & (lost < highest)
        chances = np.zeros(len(shares))
        chances[inside] = _chance(self.most_lost, lost[inside], gained[inside])
        return chances


def _raised_inside(bound: float, outcomes: _Outcomes, highest: float) -> float:
    """Raise a bound over all rates between the edges.

    They are tried at points even in standard deviations of the smallest count, which is that of
    the gained, the lost or the unflipped images, and then closer around each peak.
    """

    def raised(shares: Floats) -> Floats:
        """Raise the bound until no chance is above alpha, and return the chances there."""
        nonlocal bound
        while True:
            chances = outcomes.chances(shares, bound, highest)
            if chances.max() <= outcomes.alpha * (1 + NOISE):
                return chances
            worst = shares[[chances.argmax()]]
            bound = _end_of(
                lambda drop, at=worst: outcomes.chances(at, drop, highest)[0] > outcomes.alpha,
                bound,
                1.0,
            )

    n = len(outcomes.most_lost) - 1
    largest_share = min(1.0, 2 * (highest - max(bound, 0)) / (1 - abs(bound)))
    end = math.asin(math.sqrt(max(largest_share, 0)))
    points = math.ceil(2 * POINTS_PER_SD * math.sqrt(n * (1 - abs(bound))) * end) + 2
    shares = np.sin(np.linspace(0, end, points)) ** 2
    chances, near = raised(shares), NEAR_PEAK
    padded = np.concatenate([[0.0], chances, [0.0]])
    peaks = (chances >= padded[:-2]) & (chances >= padded[2:])
    at = np.flatnonzero(peaks & (chances > outcomes.alpha * (1 - near)))
    low, high = shares[np.maximum(at - 1, 0)], shares[np.minimum(at + 1, points - 1)]
    for _ in range(ZOOMS):
        if len(low) == 0:
            break
        grid = np.linspace(low, high, 2 * ZOOM + 1, axis=1)  # one row for each peak
        chances, near = raised(grid.ravel()).reshape(grid.shape), near / ZOOM**2
        rows = np.flatnonzero(chances.max(axis=1) > outcomes.alpha * (1 - near))
        at = chances.argmax(axis=1)[rows]
        low, high = grid[rows, np.maximum(at - 1, 0)], grid[rows, np.minimum(at + 1, 2 * ZOOM)]
    return bound


def _end_of(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds up to some point ends, from above; -1 if it holds nowhere."""
    if holds(high):
        return high
    if not holds(low):
        return -1.0
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def _rate_upper(count: int, n: int, error: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a rate."""
    k = np.arange(count + 1)

    def likely(rate: float) -> bool:
        return _binomial(k, np.array(n), np.array(rate), np.array(1 - rate), n).sum() > error

    return _end_of(likely, count / n, 1.0)


def _outcomes_up_to(gained: int, lost: int, n: int, confidence: float) -> Integers:
    """Return ``most_lost`` of the outcome at hand and all before it.

    These are the outcomes whose score limit is not above that of the outcome at hand: at that
    limit, their statistic is not above its own.
    """
    z = NormalDist().inv_cdf(confidence)
    limit = _end_of(lambda drop: float(score(gained, lost, n, drop)) > -z, (lost - gained) / n, 1.0)
    threshold = float(score(gained, lost, n, limit)) + NOISE  # ties are of one rank
    flips = np.arange(n + 1)
    low, high = np.full(n + 1, -1), flips + 1  # low belongs to them, high does not
    while (high - low > 1).any():
        middle = (low + high) // 2
        belongs = (middle < 0) | (score(flips - middle, middle, n, limit) <= threshold)
        low, high = np.where(belongs, middle, low), np.where(belongs, high, middle)
    return low


def _chance(most_lost: Integers, lost_rates: Floats, gained_rates: Floats) -> Floats:
    """Chance that, whatever the number of flips, at most ``most_lost`` of them are lost.

    Args:
        most_lost: As in :class:`_Outcomes`.
        lost_rates: (R,).
        gained_rates: (R,); the two add up to at most 1.
    """
    parts = [
        _chance_of_block(
            most_lost, lost_rates[i : i + BLOCK, None], gained_rates[i : i + BLOCK, None]
        )
        for i in range(0, len(lost_rates), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _chance_of_block(most_lost: Integers, lost_rate: Floats, gained_rate: Floats) -> Floats:
    n = len(most_lost) - 1
    flip_rate = np.clip(lost_rate + gained_rate, TINY, 1)
    loses, gains = lost_rate / flip_rate, gained_rate / flip_rate  # shares of the flips

    # the flip counts that have a chance, one row for each rate
    variance = n * float((flip_rate * np.maximum(1 - flip_rate, loses * gains)).max())
    width = min(n + 1, math.ceil(SPAN_SDS * math.sqrt(variance)) + SPAN_FLIPS)
    first = (n * flip_rate).astype(np.int64) - width // 2
    first = np.clip(first, 0, n + 1 - width)
    flips = first + np.arange(width)
    most = most_lost[flips]

    # chance of at most so many lost: a sum for the first of these flip counts ...
    top = np.minimum(most[:, :1], (first * loses).astype(np.int64) + width // 2)
    held = _binomial(top - np.arange(width), first, loses, gains, n).sum(axis=1, keepdims=True)
    # ... then each flip more pushes its losses over the edge, or lets its gains in
    edge = _binomial(most[:, 1:], flips[:, :-1], loses, gains, n)
    steps = np.where(most[:, 1:] == most[:, :-1], -loses, gains) * edge
    holds = np.cumsum(np.concatenate([held, steps], axis=1), axis=1)
    return (_binomial(flips, np.array(n), flip_rate, 1 - flip_rate, n) * holds).sum(axis=1)


def _binomial(k: Integers, n: Integers, p: Floats, not_p: Floats, largest: int) -> Floats:
    """Chance of k in n, 0 where there is no such outcome; arrays that broadcast."""
    possible = (k >= 0) & (k <= n)
    k = np.where(possible, k, 0)
    logs = _log_factorials(largest)
    exponent = logs[n] - logs[k] - logs[n - k]
    exponent += k * np.log(np.maximum(p, TINY)) + (n - k) * np.log(np.maximum(not_p, TINY))
    return np.where(possible, np.exp(exponent), 0.0)


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> Floats:
    return np.array([math.lgamma(i + 1) for i in range(n + 1)])

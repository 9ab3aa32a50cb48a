"""Intervals and tests that several rooms need; standard library only.

Every function takes counts or plain floats and returns plain floats. ``confidence`` is a
probability in (0, 1), two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, in [0, 1].

    Source: E. B. Wilson, JASA 22 (1927).

    Raises:
        ValueError: ``n`` < 1 or ``successes`` outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"want 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    gained: int, lost: int, n: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a difference of two proportions on the same ``n`` items.

    ``gained`` items are right only under the second model, ``lost`` only under the first; the
    difference is (gained - lost) / n. Adjusted Wald interval of Bonett and Price (2012).

    Raises:
        ValueError: The counts do not fit ``n``.
    """
    if n < 1 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"gained {gained} and lost {lost} do not fit n {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact McNemar p-value from the discordant counts."""
    n, k = gained + lost, min(gained, lost)
    return 1.0 if n == 0 else min(1.0, 2 * binomial_cdf(k, n, 0.5))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X binomial(n, p), 0 < p < 1, by summing logs (exact to about 1e-12)."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    log_n = math.lgamma(n + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(
                log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q
            )
            for i in range(k + 1)
        ),
    )


def percentile(samples: Sequence[float], quantile: float) -> float:
    """Nearest-rank percentile: a value that was really observed.

    Raises:
        ValueError: No samples.
    """
    if not samples:
        raise ValueError("percentile of no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def percentile_interval(
    samples: Sequence[float], quantile: float, *, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Distribution-free interval of a percentile from order statistics.

    Returns None when the sample is too small for any interval at that confidence.
    """
    ordered = sorted(samples)
    n, tail = len(ordered), (1 - confidence) / 2
    below = 0.0
    low, high = None, None
    log_p, log_q = math.log(quantile), math.log1p(-quantile)
    log_n = math.lgamma(n + 1)
    for k in range(n):  # P(X <= k), X = number of samples below the true percentile
        below += math.exp(
            log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q
        )
        if below <= tail:
            low = k
        if high is None and below >= 1 - tail:
            high = k
    if low is None or high is None:
        return None
    return ordered[low], ordered[high]


def student_t_interval(
    values: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean of a few independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    half = student_t_quantile(0.5 + confidence / 2, len(values) - 1) * (
        stdev(values) / math.sqrt(len(values))
    )
    return fmean(values) - half, fmean(values) + half


def resampled_t_interval(
    values: Sequence[float], test_to_train: float, *, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Interval of the mean of figures from overlapping training sets, as in repeated K-fold.

    The variance is corrected by the ratio of test to training images, as the folds share most
    of their training images. Source: Nadeau and Bengio, Machine Learning 52 (2003), section 3.

    Args:
        values: One figure per fold and repeat.
        test_to_train: Test images per training image of one fold, > 0.

    Returns:
        None for fewer than two values.
    """
    if len(values) < 2:
        return None
    half = student_t_quantile(0.5 + confidence / 2, len(values) - 1) * (
        stdev(values) * math.sqrt(1 / len(values) + test_to_train)
    )
    return fmean(values) - half, fmean(values) + half


def student_t_quantile(probability: float, degrees: int) -> float:
    """Inverse of Student's t distribution, by bisection on :func:`student_t_cdf`.

    Raises:
        ValueError: ``probability`` outside (0, 1) or ``degrees`` < 1.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"no t quantile for probability {probability}, {degrees} degrees")
    low, high = -1e6, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if student_t_cdf(middle, degrees) < probability else (low, middle)
        )
    return (low + high) / 2


def student_t_cdf(t: float, degrees: int) -> float:
    """P(T <= t), by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(degrees))
    cos, sin = math.cos(theta), math.sin(theta)
    term, total = 1.0, 0.0
    if degrees % 2:
        term = cos
        for j in range(3, degrees + 1, 2):
            total += term
            term *= cos * cos * (j - 1) / j
        inside = 2 / math.pi * (theta + sin * total)
    else:
        for j in range(2, degrees + 1, 2):
            total += term
            term *= cos * cos * (j - 1) / j
        inside = sin * total
    return 0.5 + inside / 2

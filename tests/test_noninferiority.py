"""Bounds of a paired drop against enumerations that share no code with them, and scipy."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from edgessl.core.noninferiority import drop_lower, drop_upper, images_needed, score

SPENT = 1 / 500  # of the error, for the bound of the lost rate


def outcomes(n):
    """Return all (lost, gained) of n images, (M, 2)."""
    return np.array([(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)])


def trinomial(table, n, lost_rates, gained_rates):
    """Return the chance of each outcome (M, 2) under each pair of rates (R,): (R, M)."""
    rest = n - table.sum(axis=1)
    rates = [lost_rates, gained_rates, np.maximum(1 - lost_rates - gained_rates, 0)]
    with np.errstate(divide="ignore"):
        logs = [np.maximum(np.log(rate), -1e300)[:, None] for rate in rates]
    ways = math.lgamma(n + 1) - np.sum(
        [[math.lgamma(k + 1) for k in ks] for ks in (*table.T, rest)], axis=0
    )
    return np.exp(ways + logs[0] * table[:, 0] + logs[1] * table[:, 1] + logs[2] * rest)


def likeliest_gained_rate(gained, lost, n, drop):
    """Where the trinomial likelihood with that drop is highest: the root of its derivative."""
    low, high = max(0.0, -drop) + 1e-14, (1 - drop) / 2 - 1e-14

    def slope(rate):
        return (
            lost / (rate + drop) + gained / rate
            - 2 * (n - lost - gained) / (1 - 2 * rate - drop)
        )  # fmt: skip

    if slope(low) <= 0:
        return low
    return high if slope(high) >= 0 else optimize.brentq(slope, low, high, xtol=1e-15)


def statistic(gained, lost, n, drop):
    variance = 2 * likeliest_gained_rate(gained, lost, n, drop) + drop - drop**2
    return (lost - gained - n * drop) / math.sqrt(n * variance)


def score_limit(gained, lost, n, confidence):
    z = stats.norm.ppf(confidence)
    low, high = (lost - gained) / n + 1e-9, 1 - 1e-9
    return 1.0 if lost == n else optimize.brentq(
        lambda drop: statistic(gained, lost, n, drop) + z, low, high, xtol=1e-13
    )  # fmt: skip


def enumerated_upper(gained, lost, n, confidence, table, limits, points=2001):
    """The bound by its definition: every outcome, and a fine grid of rates at every drop."""
    spent = SPENT * (1 - confidence)
    highest = stats.beta.ppf(1 - spent, lost + 1, n - lost) if lost < n else 1.0
    seen = np.flatnonzero((table == (lost, gained)).all(axis=1))[0]
    earlier = table[limits <= limits[seen] + 1e-8]

    def likely(drop):
        top = min((1 - abs(drop)) / 2, highest - max(drop, 0))
        if top < 0:
            return False
        smaller = np.linspace(0, top, points)
        chances = trinomial(earlier, n, smaller + max(drop, 0), smaller + max(-drop, 0))
        return chances.sum(axis=1).max() > 1 - confidence - spent

    low, high = -1.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if likely(middle) else (low, middle)
    return high


@pytest.mark.parametrize("n", [5, 40, 3000])
def test_the_score_statistic_has_the_variance_of_the_likeliest_trinomial(n):
    rng = np.random.default_rng(n)
    for _ in range(60):
        lost, gained, _ = rng.multinomial(n, rng.dirichlet([0.4, 0.4, 1]))
        drop = rng.uniform(-0.9, 0.9)
        want = statistic(gained, lost, n, drop)
        assert score(gained, lost, n, drop) == pytest.approx(want, rel=1e-5, abs=1e-6)
    # no flips: no gained rate is likeliest, so the statistic is -nd / sqrt(n d (1 - d))
    assert score(0, 0, n, 0.2) == pytest.approx(-math.sqrt(n * 0.2 / 0.8))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "confidence"), [(1, 0.95), (5, 0.9), (8, 0.975)])
def test_every_bound_is_that_of_its_definition(n, confidence):
    table = outcomes(n)
    limits = np.array([score_limit(gained, lost, n, confidence) for lost, gained in table])
    for lost, gained in table:
        want = enumerated_upper(gained, lost, n, confidence, table, limits)
        got = drop_upper(int(gained), int(lost), n, confidence)
        assert got == pytest.approx(want, abs=2e-6), (lost, gained)


def admitted(n, max_drop, confidence=0.95):
    """Return all outcomes whose bound is at most ``max_drop``, walking up the staircase."""
    found, lost = [], 0
    for gained in range(n + 1):
        while lost + gained <= n and drop_upper(gained, lost, n, confidence) <= max_drop:
            lost += 1
        found += [(k, gained) for k in range(min(lost, n + 1 - gained))]
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "max_drop", "used"), [(35, 0.01, 0.8), (35, 0.1, 0.9), (60, 0.01, 0.8)]
)
def test_a_file_at_the_limit_passes_in_at_most_a_twentieth_whatever_flips(n, max_drop, used):
    passing = admitted(n, max_drop)
    smaller = np.concatenate([np.geomspace(1e-7, 1e-3, 200), np.linspace(0, 0.5, 2001)])
    smaller = np.sort(smaller[smaller <= (1 - max_drop) / 2])
    for true_drop in (max_drop, 1.2 * max_drop, max_drop + 0.1):
        rates = smaller[smaller <= (1 - true_drop) / 2]
        size = trinomial(passing, n, rates + true_drop, rates).sum(axis=1)
        assert size.max() <= 0.05
        if true_drop == max_drop:  # and the error is not left unused
            assert size.max() > 0.05 * used


@pytest.mark.parametrize("n", [35, 299, 2000, 10_000])
def test_without_gains_it_is_near_clopper_and_pearson(n):
    for lost in (0, 1, 3, 12, 30):
        exact = stats.binomtest(lost, n, alternative="less").proportion_ci(0.95, "exact").high
        assert exact <= drop_upper(0, lost, n) <= exact * 1.005
    assert drop_upper(0, 0, n) == pytest.approx(1 - (0.05 * (1 - SPENT)) ** (1 / n), abs=1e-9)
    assert drop_upper(0, n, n) == 1.0


def test_more_lost_or_fewer_gained_never_lowers_the_bound():
    n = 5
    for lost, gained in outcomes(n):
        bound = drop_upper(int(gained), int(lost), n)
        if lost + gained < n:
            assert drop_upper(int(gained), int(lost) + 1, n) >= bound - 1e-9
        if gained:
            assert drop_upper(int(gained) - 1, int(lost), n) >= bound - 1e-9
            assert drop_upper(int(gained) - 1, int(lost) + 1, n) >= bound - 1e-9
    for n, gained, lost in ((35, 3, 5), (400, 0, 4), (2000, 31, 40), (10_000, 400, 420)):
        row = [drop_upper(gained, k, n) for k in range(lost, lost + 4)]
        assert row == sorted(row)
        column = [drop_upper(k, lost, n) for k in range(gained, gained + 4)]
        assert column == sorted(column, reverse=True)


def test_the_lower_bound_mirrors_the_upper_one_around_what_was_seen():
    for gained, lost, n in ((0, 0, 35), (4, 2, 35), (0, 7, 60), (31, 12, 2000)):
        low, high = drop_lower(gained, lost, n), drop_upper(gained, lost, n)
        assert low < (lost - gained) / n < high
        assert low == -drop_upper(lost, gained, n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(0, 5, 2000), (31, 40, 2000), (60, 20, 2000), (200, 260, 10_000)]
)
def test_no_rate_was_missed_at_many_images(gained, lost, n):
    # the set of outcomes by its definition, then scipy's binomials on rates much closer together
    bound = drop_upper(gained, lost, n)
    limit = score_limit(gained, lost, n, 0.95)
    gains = np.arange(min(n, 12 * (lost + gained + 30)) + 1)
    most_lost = np.array([
        np.searchsorted(
            score(int(g), np.arange(n + 1 - g), n, limit), -stats.norm.ppf(0.95) + 1e-7, "right"
        ) - 1
        for g in gains
    ])  # fmt: skip

    def chance(smaller, drop):
        a, b = smaller + max(drop, 0), smaller + max(-drop, 0)
        inside = np.abs(gains - n * b) <= 40 + 9 * math.sqrt(n * b)
        g = gains[inside]
        return stats.binom.pmf(g, n, b) @ stats.binom.cdf(most_lost[inside], n - g, a / (1 - b))

    alpha = 0.05 * (1 - SPENT)
    highest = stats.beta.ppf(1 - 0.05 * SPENT, lost + 1, n - lost) - max(bound, 0)
    smaller = np.sin(np.linspace(0, math.asin(math.sqrt(highest)), 1500)) ** 2
    above = [chance(s, bound + 1e-9) for s in smaller]
    assert max(above) <= alpha * (1 + 1e-6)
    assert chance(smaller[int(np.argmax(above))], bound - 1e-5) > alpha


def test_how_many_images_would_be_needed():
    assert images_needed(0, 0, 35, 0.01) == 299
    assert drop_upper(0, 0, 299) <= 0.01 < drop_upper(0, 0, 298)
    assert images_needed(0, 0, 35, 0.0) is None  # no number of images shows that nothing is lost
    assert images_needed(0, 1, 100, 0.01) is None  # the drop seen is the very limit
    assert images_needed(9, 0, 1000, 0.01) >= 299  # never fewer than with no flips at all
    # as many flips in proportion, at a tenth more and a tenth fewer images
    needed = images_needed(50, 60, 2000, 0.01)
    for share, passes in ((1.1, True), (0.9, False)):
        n = round(share * needed)
        assert (drop_upper(round(50 * n / 2000), round(60 * n / 2000), n) <= 0.01) is passes
    needed = images_needed(5, 40, 2000, 0.01, 0.975)
    for share, fails in ((1.1, True), (0.9, False)):
        n = round(share * needed)
        assert (drop_lower(round(5 * n / 2000), round(40 * n / 2000), n, 0.975) > 0.01) is fails


@pytest.mark.parametrize(
    "case", [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0), (0, 0, 5, 1.0), (0, 0, 5, 0.5)]
)
def test_impossible_counts_are_refused(case):
    with pytest.raises(ValueError, match=r".+"):
        drop_upper(*case)

"""Intervals and tests against scipy, exact binomial sums and cases worked by hand."""

import pytest
from scipy import stats

from edgessl.core import statistics as ours


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 201])
def test_student_t_against_scipy(degrees):
    for t in (-6.0, -1.3, 0.0, 0.4, 2.7):
        assert ours.student_t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), abs=1e-12)
    for probability in (0.005, 0.3, 0.5, 0.975, 0.9995):
        want = stats.t.ppf(probability, degrees)
        got = ours.student_t_quantile(probability, degrees)
        assert got == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_student_t_interval_of_three_seeds():
    values = [0.91, 0.93, 0.95]  # mean 0.93, standard error 0.02 / sqrt(3), t(0.975, 2) = 4.3027
    low, high = ours.student_t_interval(values)
    assert (low, high) == pytest.approx((0.93 - 0.0496828, 0.93 + 0.0496828), abs=1e-6)
    assert ours.student_t_interval([0.93]) is None


def test_the_interval_of_folds_is_wider_than_that_of_independent_draws():
    # 10 folds of 5-fold twice: s = 0.02 / sqrt(0.9), t(0.975, 9) = 2.262157, test/train = 1/4
    values = [0.9, 0.94] * 5
    half = 2.262157 * (0.02 * (10 / 9) ** 0.5) * (1 / 10 + 1 / 4) ** 0.5
    low, high = ours.resampled_t_interval(values, 1 / 4)
    assert (low, high) == pytest.approx((0.92 - half, 0.92 + half), abs=1e-6)
    assert ours.resampled_t_interval(values, 1e-12) == pytest.approx(
        ours.student_t_interval(values), abs=1e-9
    )
    assert ours.resampled_t_interval([0.9], 1 / 4) is None


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (10, 0.01), (130, 0.95), (1000, 0.5)])
def test_binomial_cdf_against_scipy(n, p):
    for k in {-1, 0, 1, n // 3, n // 2, n - 1, n}:
        assert ours.binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-11)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 20), (7, 10), (359, 360), (500, 500)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_against_scipy(successes, n, confidence):
    want = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    got = ours.wilson(successes, n, confidence=confidence)
    assert got == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (3, 11), (8, 8), (40, 61)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(gained, lost):
    want = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert ours.mcnemar_exact(gained, lost) == pytest.approx(want, abs=1e-12)
    assert ours.mcnemar_exact(lost, gained) == ours.mcnemar_exact(gained, lost)


def test_paired_difference_by_hand():
    # Bonett and Price: p12 = 16/102, p21 = 6/102, their difference 10/102 = 0.098039,
    # variance (22/102 - (10/102)^2) / 102 = 0.00202034, so 0.098039 -+ 1.959964 * 0.0449482
    got = ours.paired_difference(15, 5, 100)
    assert got == pytest.approx((0.0099426, 0.1861358), abs=1e-6)
    low, high = got
    assert ours.paired_difference(5, 15, 100) == pytest.approx((-high, -low), abs=1e-15)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ours.wilson(1, 0),
        lambda: ours.wilson(4, 3),
        lambda: ours.paired_difference(3, 3, 5),
        lambda: ours.percentile([], 0.5),
        lambda: ours.student_t_quantile(1.0, 3),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError, match=r".+"):
        call()


def test_percentile_is_an_observed_value_by_nearest_rank():
    samples = [15, 20, 35, 40, 50]
    assert [ours.percentile(samples, q) for q in (0.05, 0.3, 0.4, 0.5, 1.0)] == [15, 20, 20, 35, 50]


def test_median_interval_of_eleven_is_the_second_and_the_tenth():
    # P(X <= 1) = 12/2048 and P(X <= 2) = 67/2048 > 0.025 for X binomial(11, 1/2)
    assert ours.percentile_interval(list(range(1, 12)), 0.5) == (2, 10)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [6, 11, 64, 300, 700])
def test_percentile_interval_covers_and_cannot_be_narrower(n, quantile):
    bounds = ours.percentile_interval(list(range(1, n + 1)), quantile)  # values are their ranks
    below = stats.binom(n, quantile)
    if bounds is None:  # not even the whole range is wide enough on both sides
        assert below.cdf(0) > 0.025 or below.cdf(n - 1) < 0.975
        return
    low, high = bounds
    assert below.cdf(high - 1) - below.cdf(low - 1) >= 0.95
    assert below.cdf(low) > 0.025  # one rank further in, too much lies outside on the left
    assert below.cdf(high - 2) < 0.975  # and on the right

"""Spectra with known exponents; two views, two nets: worked cases and another implementation."""

import numpy as np
import pytest

from edgessl.evaluation.spectrum import alpha_req
from edgessl.evaluation.two_views import between_views, correlation, view_retrieval


def with_spectrum(eigenvalues, n=256, seed=0):
    """n rows whose covariance has exactly these eigenvalues, about a mean that is not 0."""
    random = np.random.default_rng(seed)
    d = len(eigenvalues)
    white = random.normal(size=(n, d))
    orthonormal, _ = np.linalg.qr(white - white.mean(0))
    turn, _ = np.linalg.qr(random.normal(size=(d, d)))
    return (np.sqrt(n * eigenvalues) * orthonormal @ turn + 3).astype(np.float32)


def power_law(alpha, d=128):
    return np.arange(1, d + 1.0) ** -alpha


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 2, 3])
def test_the_exponent_of_a_power_law_is_found(alpha):
    z = with_spectrum(power_law(alpha))
    assert alpha_req(z) == pytest.approx(alpha, abs=1e-4)
    assert alpha_req(7 * z) == pytest.approx(alpha, abs=1e-4)
    # wider than high: the other Gram matrix
    wide = np.concatenate([z[:129], np.zeros((129, 400), np.float32)], 1)
    assert alpha_req(wide) == pytest.approx(alpha_req(z[:129]), abs=1e-6)


def test_first_and_last_eigenvalues_do_not_count():
    spectrum = power_law(1.0)
    spectrum[:2] *= 50
    spectrum[32:] = 1e-9
    assert alpha_req(with_spectrum(spectrum)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "d", "found"),
    [
        (256, 256, (0.23, 0.43, 0.94, 1.48, 2.00)),
        (1024, 256, (0.13, 0.46, 0.98, 1.49, 2.00)),
    ],
)
def test_samples_give_what_the_docstring_says(n, d, found):
    for alpha, expected in zip((0, 0.5, 1, 1.5, 2), found, strict=True):
        several = []
        for seed in range(4):
            white = np.random.default_rng(seed).normal(size=(n, d))
            several.append(alpha_req((white * power_law(alpha / 2, d)).astype(np.float32)))
        assert np.mean(several) == pytest.approx(expected, abs=0.02)


def test_a_spectrum_that_breaks_off_is_very_steep_and_one_without_rest_has_no_exponent():
    def left(rank):
        spectrum = np.zeros(128)
        spectrum[:rank] = 1
        return alpha_req(with_spectrum(spectrum))

    assert min(left(rank) for rank in (16, 8, 4, 3)) > 5
    assert left(2) is None
    assert left(1) is None
    assert alpha_req(np.ones((256, 128), np.float32)) is None
    # too few images, too few features
    noise = np.random.default_rng(0).normal(size=(256, 128)).astype(np.float32)
    assert alpha_req(noise[:32]) is None
    assert alpha_req(noise[:, :31]) is None
    assert alpha_req(noise[:33]) is not None


def test_a_view_is_found_by_what_sets_its_image_apart():
    random = np.random.default_rng(0)
    a = random.normal(size=(200, 32)).astype(np.float32)
    assert view_retrieval(a, a) == 1
    assert view_retrieval(a, np.roll(a, 1, 0)) == 0
    # what one kind of view does to all embeddings alike says nothing about an image
    assert view_retrieval(a, 0.1 * a + 50 * random.normal(size=32).astype(np.float32)) == 1
    # the first 60 images in order, the others moved on by one
    partly = np.concatenate([a[:60], np.roll(a[60:], 1, 0)])
    assert view_retrieval(a, partly) == pytest.approx(0.3)


def test_without_a_common_cause_a_view_is_found_by_chance():
    random = np.random.default_rng(0)
    hits = [view_retrieval(*random.normal(size=(2, 50, 8)).astype(np.float32)) for _ in range(400)]
    # 20,000 trials of probability 1/50: standard deviation 0.001
    assert np.mean(hits) == pytest.approx(1 / 50, abs=0.004)
    same = np.ones((50, 8), np.float32)
    assert view_retrieval(same, same) == 1 / 50


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40), (5, 2)])
def test_correlations_are_those_of_numpy(n, d):
    random = np.random.default_rng(1)
    a = random.normal(size=(n, d)).astype(np.float32)
    b = (a @ random.normal(size=(d, d)) + random.normal(size=(n, d)) + 4).astype(np.float32)
    whole = np.corrcoef(a.astype(np.float64), b.astype(np.float64), rowvar=False)[:d, d:]
    found = correlation(a, b)
    assert found.diagonal == pytest.approx(np.diag(whole).mean(), rel=1e-9)
    others = whole[~np.eye(d, dtype=bool)]
    assert found.off_diagonal == pytest.approx(np.sqrt(np.square(others).mean()), rel=1e-9)


def test_correlations_of_columns_made_by_hand():
    walsh = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    assert correlation(walsh, 3 * walsh + 1).diagonal == pytest.approx(1)
    assert correlation(walsh, walsh).off_diagonal == pytest.approx(0)
    swapped = correlation(walsh, -walsh[:, ::-1])
    assert (swapped.diagonal, swapped.off_diagonal) == pytest.approx((0, 1))
    # a column that is the same for all images counts as 0, whatever its level
    dead = np.stack([walsh[:, 0], np.full(4, 0.1, np.float32)], 1)
    assert correlation(dead, dead).diagonal == pytest.approx(0.5)
    assert correlation(dead, dead).off_diagonal == 0
    assert correlation(walsh[:, :1], walsh[:, :1]).off_diagonal is None


def test_independent_columns_correlate_as_much_as_the_number_of_images_lets_them():
    a, b = np.random.default_rng(2).normal(size=(2, 256, 64)).astype(np.float32)
    found = correlation(a, b)
    assert found.diagonal == pytest.approx(0, abs=0.03)
    assert found.off_diagonal == pytest.approx(1 / 16, rel=0.03)


def test_every_slim_net_is_compared_with_itself_and_the_host():
    random = np.random.default_rng(3)
    host, slim = random.normal(size=(2, 2, 60, 8)).astype(np.float32)
    slim[0] = 2 * host[0]  # the same on view A, strangers on view B
    found = between_views({"host": tuple(host), "1x": tuple(slim)}, "host")
    assert set(found.retrieval) == set(found.crossed) == {"host", "1x", "host-1x"}
    assert found.crossed["host-1x"] == correlation(host[0], slim[1])
    assert found.retrieval["host-1x"] == view_retrieval(host[0], slim[1])
    expected = (1 + correlation(host[1], slim[1]).diagonal) / 2
    assert found.same_view == {"1x": pytest.approx(expected)}

    # features of other widths cannot be compared, and a dense net has no host
    narrow = between_views({"host": tuple(host), "1x": tuple(slim[:, :, :4])}, "host")
    assert (set(narrow.retrieval), narrow.same_view) == ({"host", "1x"}, {})
    assert set(between_views({"1x": tuple(slim)}, "host").crossed) == {"1x"}

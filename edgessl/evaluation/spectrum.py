"""How the variance of features is spread over their dimensions.

Pure functions on arrays. Shapes: N images, D dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPS = 1e-7  # of RankMe, as in the paper
# see alpha_req
FIRST, SHARE, FEWEST = 3, 4, 8
ROUNDING = 1e-10


def rankme(z_ND: NDArray[np.float32]) -> float:
    """Effective rank: exp of the entropy of the normalised singular values (arXiv:2210.02885).

    From 1 (all rows point the same way) to min(N, D). It grows with N: compare equal N only.
    """
    singular = np.sqrt(_eigenvalues(z_ND.astype(np.float64)))
    if not singular.any():
        return 1.0
    p = singular / singular.sum() + EPS
    return float(np.exp(-(p * np.log(p)).sum()))


def alpha_req(z_ND: NDArray[np.float32]) -> float | None:
    """Exponent alpha of a power law, lambda_j ~ j^-alpha, of the covariance's eigenvalues.

    Source: Agrawal et al., "alpha-ReQ", NeurIPS 2022. 0 is white (all directions alike); the
    larger, the fewer directions hold the variance.

    A straight line is fitted to log lambda_j against log j for j from 3 to a quarter of
    min(N - 1, D), which is how many eigenvalues can differ from 0. The first two are left out
    because they hold what all images share (brightness, say) and seldom lie on the line; the
    last three quarters because N samples cannot tell them: they fall to 0 at j = N - 1 whatever
    the features do. Every j weighs 1 / j, so that each octave of the range counts the same.

    For Gaussian samples with N = D = 256 it returns 0.23, 0.43, 0.94, 1.48, 2.00 where alpha is
    0, 0.5, 1, 1.5, 2 (standard deviation up to 0.03); with N = 4 D 0.13, 0.46, 0.98, 1.49, 2.00.
    So low exponents depend on N: compare equal N only.

    Returns:
        alpha; None where min(N - 1, D) < 32, and where fewer than three directions are left
        (their eigenvalues above 1e-10 of the largest, which is what rounding makes of 0; later
        ones are held at that bound, so that a spectrum that breaks off counts as very steep).
    """
    wide = z_ND.astype(np.float64)
    last = min(len(wide) - 1, wide.shape[1]) // SHARE
    if last < FEWEST:
        return None
    descending = _eigenvalues(wide - wide.mean(0))[::-1]
    if descending[FIRST - 1] <= ROUNDING * descending[0]:
        return None
    j = np.arange(FIRST, last + 1)
    fitted = np.maximum(descending[FIRST - 1 : last], ROUNDING * descending[0])
    x, y, weight = np.log(j), np.log(fitted), 1 / j
    x -= np.average(x, weights=weight)
    return float(-(weight * x * y).sum() / (weight * x * x).sum())


def _eigenvalues(z_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of Z^T Z or Z Z^T, whichever is smaller, ascending; those that are not 0 are the same."""
    gram = z_ND @ z_ND.T if len(z_ND) <= z_ND.shape[1] else z_ND.T @ z_ND
    return np.maximum(np.linalg.eigvalsh(gram), 0)

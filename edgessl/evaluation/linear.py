"""Linear probe: logistic regression on frozen features, or on raw pixels.

The strength of the L2 penalty is chosen on validation images, over the same grid for every
kind of feature, as in SimCLR's appendix B.8 (arXiv:2002.05709) with a coarser grid.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
MANY = 20_000
PENALTIES = tuple(float(10**e) for e in range(-5, 3))


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe: logits are ``(x - mean) / std @ weight.T + bias``."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    validation_accuracy: float

    def logits(self, x_NF: Matrix) -> NDArray[np.float32]:
        """Return float32 (N, C)."""
        return (((x_NF - self.mean) / self.std) @ self.weight.T + self.bias).astype(np.float32)


def fit_probe(
    train: tuple[Matrix, NDArray[np.int64]],
    validation: tuple[Matrix, NDArray[np.int64]],
    *,
    penalties: tuple[float, ...] = PENALTIES,
    max_iterations: int = 500,
) -> Probe:
    """Fit by L-BFGS for every penalty and keep the best on validation (the stronger on ties).

    Each penalty starts from the solution of the stronger one. From :data:`MANY` training images
    on, all is in float32, with a tenth of the iterations.

    Args:
        train: Features (N, F) and classes (N,); every class 0..C-1 must occur.
        validation: The same for choosing the penalty.
        penalties: L2 strengths per image: C of scikit-learn is 1 / (penalty * N).
        max_iterations: Of L-BFGS; stopping there is fine.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    many = len(train[0]) >= MANY
    x, y = train[0].astype(np.float64), train[1]
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-8, std, 1.0)
    x = (x - mean) / std
    if many:
        x, max_iterations = x.astype(np.float32), max(1, max_iterations // 10)
    # The best weights are a combination of the images, so with more features than images the
    # same problem is solved in the coordinates of their span.
    span = None
    if x.shape[1] > len(x):
        left, singular, span = np.linalg.svd(x, full_matrices=False)
        x = left * singular
    model = LogisticRegression(max_iter=max_iterations, warm_start=True)
    best: Probe | None = None
    for penalty in sorted(penalties, reverse=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=1 / (penalty * len(x))).fit(x, y)
        weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
        if span is not None:
            weight = weight @ span
        if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
        probe = Probe(mean, std, weight, bias, penalty, 0.0)
        right = float((probe.logits(validation[0]).argmax(1) == validation[1]).mean())
        if best is None or right > best.validation_accuracy:
            best = Probe(mean, std, weight, bias, penalty, right)
    assert best is not None
    return best


def pixels(images_NHWC: NDArray[np.uint8]) -> Matrix:
    """Flatten prepared images into features in [0, 1]; equal channels are kept once."""
    x = images_NHWC
    if (x[..., 0] == x[..., 1]).all() and (x[..., 0] == x[..., 2]).all():
        x = x[..., :1]
    return x.reshape(len(x), -1).astype(np.float32) / np.float32(255)

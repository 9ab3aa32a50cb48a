"""Whether two views of an image, or two nets on one view, say the same.

Pure functions on arrays. Shapes: N images, D dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.evaluation.knn import unit

Array = NDArray[np.float32]

# a deviation below this share of the mean is rounding: the dimension is the same for all images
ROUNDING = 1e-6


def view_retrieval(a_ND: Array, b_ND: Array) -> float:
    """Share of rows of ``a`` whose nearest row of ``b`` is the one of the same image.

    Nearest by cosine after both were centred: one kind of view, or one net, may shift all of its
    embeddings, and that shift says nothing about an image. Chance is 1 / N.

    Args:
        a_ND: Embeddings of a view of each image.
        b_ND: Of another view of the same images.
    """
    a, b = (unit(z - z.mean(0)) for z in (a_ND.astype(np.float64), b_ND.astype(np.float64)))
    return float(((a @ b.T).argmax(1) == np.arange(len(a))).mean())


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of the cross-correlation matrix C of two embeddings.

    Attributes:
        diagonal: Mean of C_ii, in [-1, 1]: 1 where each dimension says the same twice.
        off_diagonal: Root mean square of the others, in [0, 1]: 0 where dimensions share
            nothing. Independent ones give about 1 / sqrt(N). None for D = 1.
    """

    diagonal: float
    off_diagonal: float | None


def correlation(a_ND: Array, b_ND: Array) -> Correlation:
    """Correlate every dimension of one embedding with every one of the other, over N images.

    Source: C of Barlow Twins (arXiv:2103.03230, equation 2). A dimension that is the same for
    all images correlates with nothing: 0.

    Args:
        a_ND: Embeddings.
        b_ND: Of the same images: another view, or another net.
    """
    a, b = _standard(a_ND), _standard(b_ND)
    n, d = a.shape
    diagonal = (a * b).mean(0)
    if d == 1:
        return Correlation(float(diagonal.mean()), None)
    # sum of C_ij^2: from N x N matrices where those are smaller, see edgessl.losses.barlow
    squares = ((a @ a.T) * (b @ b.T)).sum() if n < d else np.square(a.T @ b).sum()
    others = max(0.0, squares / n**2 - np.square(diagonal).sum())
    return Correlation(float(diagonal.mean()), float(np.sqrt(others / (d * (d - 1)))))


@dataclass(frozen=True, slots=True)
class BetweenViews:
    """What the embeddings of two views of N images show.

    Attributes:
        retrieval: :func:`view_retrieval` from A to B by pair of nets: ``1x`` with itself,
            ``host-1x`` from the host's A to the slim net's B.
        crossed: :func:`correlation` of A with B, by the same pairs.
        same_view: By slim net: mean diagonal of the correlation between host and slim net on
            the same view, which is what cross distillation pulls to 1; the mean of both views.
    """

    retrieval: dict[str, float]
    crossed: dict[str, Correlation]
    same_view: dict[str, float]


def between_views(seen: Mapping[str, tuple[Array, Array]], host: str) -> BetweenViews:
    """Compare two views within each net, and between the host and each slim net.

    Args:
        seen: Embeddings of view A and of view B, by net.
        host: Name of the host; where it is not among the nets, or has another D (which happens
            without a projector), nets are compared with themselves only.
    """
    pairs = dict(seen)
    same_view = {}
    for name, (a, b) in seen.items():
        if name != host and host in seen and seen[host][0].shape == a.shape:
            pairs[f"{host}-{name}"] = (seen[host][0], b)
            both = zip(seen[host], (a, b), strict=True)
            same_view[name] = float(np.mean([correlation(h, s).diagonal for h, s in both]))
    return BetweenViews(
        {name: view_retrieval(*pair) for name, pair in pairs.items()},
        {name: correlation(*pair) for name, pair in pairs.items()},
        same_view,
    )


def _standard(z_ND: Array) -> NDArray[np.float64]:
    wide = z_ND.astype(np.float64)
    mean, std = wide.mean(0), wide.std(0)
    alive = std > ROUNDING * np.abs(mean)
    return np.where(alive, (wide - mean) / np.where(alive, std, 1), 0)

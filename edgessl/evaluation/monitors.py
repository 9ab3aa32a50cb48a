"""What can be seen of a pretraining without labels, and when it has collapsed.

Pure functions on arrays. Shapes: N images, D features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.evaluation.knn import unit, votes
from edgessl.evaluation.spectrum import alpha_req, rankme

NEIGHBOURS = 20
LEAST_STD = 0.25  # see collapse_alarm
# below: a batch of few images says nothing about neighbours
FEWEST_LABELLED = 32


def embedding_std(z_ND: NDArray[np.float32]) -> float:
    """Mean over dimensions of the std of L2-normalised embeddings, times sqrt(D).

    In [0, 1]: 1 when the directions fill the space evenly, 0 when all are the same. It does not
    see a collapse onto a few dimensions; :func:`edgessl.evaluation.spectrum.rankme` does.
    """
    return float(unit(z_ND).std(0).mean() * math.sqrt(z_ND.shape[1]))


def neighbour_top1(z_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float | None:
    """Leave-one-out accuracy of weighted kNN among labelled images (see ``evaluation.knn``).

    Args:
        z_ND: Features.
        labels_N: Classes from 0; -1 where there is none: left out.

    Returns:
        A share in [0, 1]; None with fewer than 32 labelled images or one class.
    """
    known = labels_N >= 0
    labels = labels_N[known]
    if len(labels) < FEWEST_LABELLED or len(np.unique(labels)) < 2:
        return None
    scores = votes(
        _similarity(z_ND[known]), labels, classes=int(labels.max()) + 1, k=NEIGHBOURS,
    )  # fmt: skip
    return float((scores.argmax(1) == labels).mean())


def agreement(a_ND: NDArray[np.float32], b_ND: NDArray[np.float32]) -> float:
    """Share of images whose nearest neighbour is the same under both features.

    Args:
        a_ND: Features of one net.
        b_ND: Of the other, for the same images; D may differ.
    """
    return float((_similarity(a_ND).argmax(1) == _similarity(b_ND).argmax(1)).mean())


def _similarity(z_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    normal = unit(z_ND)
    similarity = normal @ normal.T
    np.fill_diagonal(similarity, -np.inf)  # no image is its own neighbour
    return similarity


@dataclass(frozen=True, slots=True)
class Figures:
    """What one width of a net shows on N images.

    Attributes:
        rankme: Effective rank of the embeddings.
        rankme_features: Of the features.
        alpha_req: How steeply the spectrum of the features falls; see
            :func:`edgessl.evaluation.spectrum.alpha_req`.
        std: Spread of the embeddings; see :func:`embedding_std`.
        knn: Leave-one-out accuracy of the features; None without labels.
        most: Largest possible effective rank of the embeddings: min(N, D).
    """

    rankme: float
    rankme_features: float
    alpha_req: float | None
    std: float
    knn: float | None
    most: int


def figures_of(
    features_NF: NDArray[np.float32],
    embeddings_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
) -> Figures:
    """Measure one width; labels are -1 where unknown."""
    return Figures(
        rankme(embeddings_ND), rankme(features_NF), alpha_req(features_NF),
        embedding_std(embeddings_ND), neighbour_top1(features_NF, labels_N),
        min(embeddings_ND.shape),
    )  # fmt: skip


def collapse_alarm(figures: Mapping[str, Figures], least_std: float = LEAST_STD) -> str | None:
    """Return what has collapsed, or None; meant for after the warm-up.

    An alarm means that some width has std below ``least_std`` (all images get nearly the same
    direction), or an effective rank of the embedding below 2 (nearly one dimension is left; less
    for D < 10).

    Args:
        figures: Of every width.
        least_std: A method says its own, see ``methods.base.Method.least_std``.

    Calibrated on digits (16 px, mobilenet_v1_short 0.5x-0.25x, 256 images watched, both widths):

    - Healthy: sacl-xd and barlow with AdamW 2e-3 for 8 and 40 epochs, D from 16 to 2048, SGD
      0.05, the paper's LARS 0.3: std 0.80 to 0.97, rank 2.8 to 109. The least is that of LARS
      in epoch 8, whose kNN figure still rises for 30 epochs: bounds relative to D (5 % of it,
      say) would stop good runs.
    - Collapsed: cosine similarity alone: std 0.14 after one epoch, 0.07 after eight. All
      dimensions drawn to their mean: rank 1.6 after four epochs, 1.4 at the end. Copies of one
      image: std 0, rank 1.0. LARS 30: rank 1.6.
    - Not seen: a rate that is only too high (AdamW 0.5, SGD 5: std 0.40 to 0.76, rank 3.5 to 8)
      harms the features without collapse; with labels the kNN figure shows it.
    """
    for width, f in figures.items():
        fewest = 1 + min(1.0, 0.1 * f.most)
        if f.std < least_std:
            return (
                f"the embedding of the {width} net has collapsed: all images get nearly the same "
                f"one (std {f.std:.3f}, below {least_std:g}; 1 is healthy)"
            )
        if f.rankme < fewest:
            return (
                f"the embedding of the {width} net has collapsed to one dimension (effective rank "
                f"{f.rankme:.2f} of {f.most}, below {fewest:g})"
            )
    return None

"""Weighted k-nearest-neighbour classification of frozen features.

Protocol: L2-normalised features, cosine similarity, votes weighted by exp(similarity / T),
k = 20 and T = 0.07 as in DINO (arXiv:2104.14294); ties go to the lower class index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def knn_predict(
    bank_NF: NDArray[np.float32],
    bank_labels_N: NDArray[np.int64],
    queries_MF: NDArray[np.float32],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> NDArray[np.int64]:
    """Predict a class for every query.

    Args:
        bank_NF: Features with known labels.
        bank_labels_N: Their classes, 0..classes-1.
        queries_MF: Features to classify.
        classes: Number of classes.
        k: Neighbours that vote; at most N.
        temperature: Of the votes.
        chunk: Queries per matrix product.

    Returns:
        int64 (M,).

    Raises:
        ValueError: ``k`` is larger than the bank.
    """
    if k > len(bank_NF):
        raise ValueError(f"k = {k} neighbours from a bank of {len(bank_NF)}")
    bank, predicted = unit(bank_NF).astype(np.float32), []
    for start in range(0, len(queries_MF), chunk):
        similarity = unit(queries_MF[start : start + chunk]).astype(np.float32) @ bank.T
        scores = votes(similarity, bank_labels_N, classes=classes, k=k, temperature=temperature)
        predicted.append(scores.argmax(1))
    return np.concatenate(predicted).astype(np.int64)


def votes(
    similarity_MN: NDArray[np.floating[Any]],
    labels_N: NDArray[np.int64],
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float64]:
    """Return the votes for every class, float64 (M, classes), of the k most similar of N."""
    nearest = np.argpartition(-similarity_MN, k - 1, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(similarity_MN, nearest, 1) / temperature)
    scores = np.zeros((len(similarity_MN), classes))
    np.add.at(scores, (np.arange(len(similarity_MN))[:, None], labels_N[nearest]), weights)
    return scores


def unit(x_NF: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale every row to length 1; rows of zeros stay."""
    wide = x_NF.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)

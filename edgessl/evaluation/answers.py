"""What the outputs of a network say.

Shapes: N images, C classes, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Answers:
    """Predicted classes with their softmax score and its margin to the runner-up."""

    predicted: NDArray[np.int64]
    score: NDArray[np.float64]
    margin: NDArray[np.float64]

    @classmethod
    def of(cls, logits_NC: NDArray[np.float32]) -> Answers:
        """Derive the answers from logits (N, C), C >= 2."""
        z = logits_NC.astype(np.float64)
        z -= z.max(1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(1, keepdims=True)
        top = np.sort(p, axis=1)[:, ::-1]
        return cls(logits_NC.argmax(1).astype(np.int64), top[:, 0], top[:, 0] - top[:, 1])


def balanced_accuracy(correct_N: NDArray[np.bool_], labels_N: NDArray[np.int64]) -> float:
    """Mean over the classes that occur of the share of their images answered right (recall)."""
    recalls = [correct_N[labels_N == label].mean() for label in np.unique(labels_N)]
    return float(np.mean(recalls))


def top_k_accuracy(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64], k: int) -> float:
    """Share of images whose label is among the ``k`` largest logits."""
    order = np.argsort(-logits_NC, axis=1, kind="stable")[:, :k]
    return float((order == labels_N[:, None]).any(1).mean())

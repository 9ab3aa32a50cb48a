"""Outputs of a network on prepared images, and what they say.

Shapes: N images, C classes, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input


@torch.no_grad()
def outputs(
    network: nn.Module, images_NHWC: NDArray[np.uint8], spec: InputSpec, *, batch: int = 256
) -> NDArray[np.float32]:
    """Run a network in eval mode over prepared images.

    Args:
        network: Images (B, 3, H, W), normalised, to (B, F) or (B, C).
        images_NHWC: uint8, resized and cropped as in ``spec``.
        spec: Input contract; the layout is taken as NCHW.
        batch: Images per pass.

    Returns:
        float32 (N, F) or (N, C).
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(images_NHWC), batch):
        x = to_model_input(images_NHWC[start : start + batch], spec.with_layout("NCHW"))
        parts.append(network(torch.from_numpy(x).to(device)).float().cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts)


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


def top_k_accuracy(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64], k: int) -> float:
    """Share of images whose label is among the ``k`` largest logits."""
    order = np.argsort(-logits_NC, axis=1, kind="stable")[:, :k]
    return float((order == labels_N[:, None]).any(1).mean())

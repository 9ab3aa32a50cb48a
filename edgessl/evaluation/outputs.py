"""Outputs of a network on prepared images.

Shapes: N images, C classes, F features.
"""

from __future__ import annotations

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

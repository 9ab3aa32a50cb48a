"""Multiply-accumulates of the real module, counted by running it on shapes alone.

MACs are those of convolutions and Linear layers (a multiply and an add count once); BatchNorm,
activations and pooling are left out, as in torchvision's published figures. Some published
tables add operations per BatchNorm output, so these outputs are counted too.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def count_macs(network: nn.Module, height: int, width: int) -> int:
    """Return the multiply-accumulates of one image; see :func:`count_operations`."""
    return count_operations(network, height, width)[0]


@torch.no_grad()
def count_operations(network: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Count what one forward pass at batch 1 does.

    Args:
        network: Images (B, 3, H, W) to anything; it is left as it was.
        height: H in pixels.
        width: W in pixels.

    Returns:
        Multiply-accumulates, and output elements of BatchNorms.
    """
    trial, macs, normed = copy.deepcopy(network).to("meta").eval(), 0, 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, normed
        if isinstance(layer, nn.Conv2d):
            kernel_height, kernel_width = layer.kernel_size
            per_output = layer.in_channels // layer.groups * kernel_height * kernel_width
            macs += output.numel() * per_output
        elif isinstance(layer, nn.Linear):
            macs += inputs[0].numel() * layer.out_features
        else:
            normed += output.numel()

    for layer in trial.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            layer.register_forward_hook(add)
    trial(torch.empty(1, 3, height, width, device="meta"))
    return macs, normed

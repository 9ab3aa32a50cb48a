"""Multiply-accumulates of the real module, counted by running it on shapes alone.

MACs are those of convolutions and Linear layers (a multiply and an add count once); BatchNorm,
activations and pooling are left out, as in torchvision's published figures. Some published
tables add four operations per BatchNorm output, as the tool ``thop`` does; ``batchnorm_ops``
gives those figures.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def count_macs(network: nn.Module, height: int, width: int, *, batchnorm_ops: int = 0) -> int:
    """Count the MACs of one image.

    Args:
        network: Images (B, 3, H, W) to anything; it is left as it was.
        height: H in pixels.
        width: W in pixels.
        batchnorm_ops: Operations counted per output element of a BatchNorm; see above.

    Returns:
        Multiply-accumulates of one forward pass at batch 1.
    """
    trial, total = copy.deepcopy(network).to("meta").eval(), 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kernel_height, kernel_width = layer.kernel_size
            per_output = layer.in_channels // layer.groups * kernel_height * kernel_width
            total += output.numel() * per_output
        elif isinstance(layer, nn.Linear):
            total += inputs[0].numel() * layer.out_features
        else:
            total += batchnorm_ops * output.numel()

    for layer in trial.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            layer.register_forward_hook(add)
    trial(torch.empty(1, 3, height, width, device="meta"))
    return total

"""What an architecture must say about itself, and how a network of it is built.

A *network* is the stock module. With classes its forward gives logits (B, classes); without,
its last Linear is an identity and it gives pooled features (B, F). Parameter names are the
stock names in both cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from edgessl.encoders.edits import Edit, apply_edits

Stem = Literal["stock", "small"]
# the channel group on each axis of a tensor; None where the axis is never sliced
Axes = dict[str, tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A stock architecture at any width.

    Attributes:
        name: Its name in the table of encoders.
        build: (width multiplier, number of classes) to the stock module, randomly initialised.
        head: Name of the last Linear, the classifier.
        channel_axes: Module (with or without head) to the channel groups of its tensors.
        connections: Module to its residual connections, one entry per block.
        small_stem: The edits that keep resolution for images up to 64 px.
        stock_class: Expression that builds the same module without edgessl: ``{classes}`` and,
            where it takes one, ``{width}`` are to be filled in; None where no other package
            has it.
        weights: Full name of torchvision's ImageNet weights, or ``timm:`` and a name in timm;
            None where there are none.
    """

    name: str
    build: Callable[[float, int], nn.Module]
    head: str
    channel_axes: Callable[[nn.Module], Axes]
    connections: Callable[[nn.Module], tuple[bool, ...]]
    small_stem: tuple[Edit, ...]
    stock_class: str | None = None
    weights: str | None = None

    def network(
        self, width: float, *, classes: int | None, stem: Stem = "stock", seed: int = 0
    ) -> nn.Module:
        """Build a network with freshly initialised weights, reproducible by ``seed``.

        Args:
            width: Width multiplier of the stock architecture, > 0.
            classes: Outputs of the head; None leaves the head out (features come out).
            stem: ``small`` applies the edits of :attr:`small_stem`.
            seed: Seeds the initialisation only; the global generator is left untouched.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.build(width, classes or 1)
            _scale_depthwise_init(module)
        if classes is None:
            parent, _, leaf = self.head.rpartition(".")
            setattr(module.get_submodule(parent), leaf, nn.Identity())
        apply_edits(module, self.edits(stem))
        return module

    def edits(self, stem: Stem) -> tuple[Edit, ...]:
        """Return what a stem changes in the stock architecture; nothing for ``stock``."""
        return self.small_stem if stem == "small" else ()

    def stock_code(self, width: float, classes: int) -> str | None:
        """Return the expression that builds the stock module without edgessl, if there is one."""
        if self.stock_class is None or ("{width}" not in self.stock_class and width != 1):
            return None
        return self.stock_class.format(width=f"{width:g}", classes=classes)

    def feature_group(self, module: nn.Module) -> str:
        """Return the channel group of the pooled features."""
        group = self.channel_axes(module)[f"{self.head}.weight"][1]
        assert group is not None
        return group

    def feature_size(self, width: float) -> int:
        """Return F, the number of pooled features at ``width``."""
        with torch.device("meta"):
            head = self.build(width, 1).get_submodule(self.head)
        return int(head.in_features)  # type: ignore[arg-type]


def scaled(channels: int, width: float) -> int:
    """Channels at ``width``: a multiple of 8, at least 8, never more than 10 % below."""
    target = channels * width
    rounded = max(8, int(target + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * target else rounded


@dataclass(slots=True)
class AxesBuilder:
    """Collects the channel groups of a module's tensors, layer by layer."""

    axes: Axes = field(default_factory=dict)

    def conv(self, name: str, layer: nn.Module, inputs: str | None, outputs: str) -> None:
        """Add a convolution; a depthwise one has a single channel axis."""
        assert isinstance(layer, nn.Conv2d)
        depthwise = layer.groups == layer.in_channels and layer.groups > 1
        self.axes[f"{name}.weight"] = (outputs, None if depthwise else inputs, None, None)
        if layer.bias is not None:
            self.axes[f"{name}.bias"] = (outputs,)

    def norm(self, name: str, channels: str) -> None:
        """Add a BatchNorm with affine and running statistics."""
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            self.axes[f"{name}.{tensor}"] = (channels,)
        self.axes[f"{name}.num_batches_tracked"] = ()

    def conv_norm(self, name: str, part: nn.Module, inputs: str | None, outputs: str) -> None:
        """Add torchvision's block of a convolution and a BatchNorm."""
        assert isinstance(part, Conv2dNormActivation)
        self.conv(f"{name}.0", part.get_submodule("0"), inputs, outputs)
        self.norm(f"{name}.1", outputs)

    def linear(self, name: str, inputs: str | None, outputs: str | None) -> None:
        """Add a Linear with bias."""
        self.axes[f"{name}.weight"] = (outputs, inputs)
        self.axes[f"{name}.bias"] = (outputs,)


def _scale_depthwise_init(module: nn.Module) -> None:
    # Kaiming fan-out as PyTorch computes it ignores groups, so depthwise outputs start with a
    # tiny variance and BatchNorm's running variance (from 1) needs very many updates.
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            height, width = layer.kernel_size
            fan_out = height * width * layer.out_channels / layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))

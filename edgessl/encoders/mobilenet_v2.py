"""MobileNetV2 (arXiv:1801.04381): torchvision's class at any width."""

from __future__ import annotations

from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import InvertedResidual

from edgessl.encoders.base import Architecture, Axes, AxesBuilder
from edgessl.encoders.edits import Edit


def build(width: float, classes: int) -> nn.Module:
    """Torchvision's MobileNetV2; dropout off, as live and frozen passes must agree."""
    return mobilenet_v2(weights=None, width_mult=width, num_classes=classes, dropout=0.0)


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per residual chain, expansion per block, features."""
    axes = AxesBuilder()
    layers = list(module.get_submodule("features").children())
    trunk = "trunk0"
    axes.conv_norm("features.0", layers[0], None, trunk)
    for index, layer in enumerate(layers[1:-1], start=1):
        assert isinstance(layer, InvertedResidual)
        inputs, expansion = trunk, trunk
        if not layer.use_res_connect:
            trunk = f"trunk{index}"
        *wrapped, project, _ = layer.conv.children()
        for position, part in enumerate(wrapped):
            if part.get_submodule("0").groups == 1:  # the first block does not expand
                expansion = f"expansion{index}"
            source = expansion if part.get_submodule("0").groups != 1 else inputs
            axes.conv_norm(f"features.{index}.conv.{position}", part, source, expansion)
        after = len(wrapped)
        axes.conv(f"features.{index}.conv.{after}", project, expansion, trunk)
        axes.norm(f"features.{index}.conv.{after + 1}", trunk)
    axes.conv_norm(f"features.{len(layers) - 1}", layers[-1], trunk, "last_conv")
    axes.linear("classifier.1", "last_conv", None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input is added to its output."""
    return tuple(
        layer.use_res_connect for layer in module.modules() if isinstance(layer, InvertedResidual)
    )


MOBILENET_V2 = Architecture(
    name="mobilenet_v2",
    build=build,
    head="classifier.1",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)), Edit("features.2.conv.1.0", stride=(1, 1))),
    stock_class="torchvision.models.mobilenet_v2(width_mult={width}, num_classes={classes})",
    weights="MobileNet_V2_Weights.IMAGENET1K_V1",
)

"""MobileNetV3 (arXiv:1905.02244): torchvision's class at any width.

Features are taken after the last hidden layer (1280 at 1x for large, 1024 for small), the
point that the published light encoders of SEED, DisCo and SSL-Small expose. The nets called
``pooled`` leave that layer out: their features are the pooled outputs of the last convolution
(960 and 576), and the classifier is one Linear.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.ops import SqueezeExcitation

from edgessl.encoders.base import Architecture, Axes, AxesBuilder
from edgessl.encoders.edits import Edit


def build_large(width: float, classes: int) -> nn.Module:
    """Torchvision's MobileNetV3-large; dropout off, as live and frozen passes must agree."""
    return mobilenet_v3_large(weights=None, width_mult=width, num_classes=classes, dropout=0.0)


def build_small(width: float, classes: int) -> nn.Module:
    """Torchvision's MobileNetV3-small; dropout off, as live and frozen passes must agree."""
    return mobilenet_v3_small(weights=None, width_mult=width, num_classes=classes, dropout=0.0)


def build_large_pooled(width: float, classes: int) -> nn.Module:
    """MobileNetV3-large with one Linear in place of torchvision's classifier of two."""
    return _pooled(build_large(width, classes), classes)


def build_small_pooled(width: float, classes: int) -> nn.Module:
    """MobileNetV3-small with one Linear in place of torchvision's classifier of two."""
    return _pooled(build_small(width, classes), classes)


def _pooled(net: nn.Module, classes: int) -> nn.Module:
    channels = net.get_submodule("classifier.0").in_features
    net.classifier = nn.Linear(int(channels), classes)  # type: ignore[arg-type]
    nn.init.normal_(net.classifier.weight, 0.0, 0.01)  # as torchvision starts the two
    nn.init.zeros_(net.classifier.bias)
    return net


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per residual chain, expansion and squeeze per block, heads.

    A squeeze-and-excitation layer shares the expansion group of its block at both ends.
    """
    axes = AxesBuilder()
    layers = list(module.get_submodule("features").children())
    trunk = "trunk0"
    axes.conv_norm("features.0", layers[0], None, trunk)
    for index, layer in enumerate(layers[1:-1], start=1):
        assert isinstance(layer, InvertedResidual)
        inputs, expansion = trunk, trunk
        if not layer.use_res_connect:
            trunk = f"trunk{index}"
        for position, part in enumerate(layer.block.children()):
            name = f"features.{index}.block.{position}"
            if isinstance(part, SqueezeExcitation):
                squeeze = f"squeeze{index}"
                axes.conv(f"{name}.fc1", part.fc1, expansion, squeeze)
                axes.conv(f"{name}.fc2", part.fc2, squeeze, expansion)
            elif part.get_submodule("0").groups != 1:  # depthwise
                axes.conv_norm(name, part, expansion, expansion)
            elif position == 0:
                expansion = f"expansion{index}"
                axes.conv_norm(name, part, inputs, expansion)
            else:
                axes.conv_norm(name, part, expansion, trunk)
    axes.conv_norm(f"features.{len(layers) - 1}", layers[-1], trunk, "last_conv")
    if isinstance(module.get_submodule("classifier"), nn.Sequential):
        axes.linear("classifier.0", "last_conv", "head")
        axes.linear("classifier.3", "head", None)
    else:
        axes.linear("classifier", "last_conv", None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input is added to its output."""
    return tuple(
        layer.use_res_connect
        for layer in module.get_submodule("features").children()
        if isinstance(layer, InvertedResidual)
    )


MOBILENET_V3_LARGE = Architecture(
    name="mobilenet_v3_large",
    build=build_large,
    head="classifier.3",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)), Edit("features.2.block.1.0", stride=(1, 1))),
    stock_class="torchvision.models.mobilenet_v3_large(width_mult={width}, num_classes={classes})",
    weights="MobileNet_V3_Large_Weights.IMAGENET1K_V1",
)
MOBILENET_V3_LARGE_POOLED = replace(
    MOBILENET_V3_LARGE, name="mobilenet_v3_large_pooled", build=build_large_pooled,
    head="classifier", stock_class=None,
)  # fmt: skip
MOBILENET_V3_SMALL = Architecture(
    name="mobilenet_v3_small",
    build=build_small,
    head="classifier.3",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)), Edit("features.1.block.0.0", stride=(1, 1))),
    stock_class="torchvision.models.mobilenet_v3_small(width_mult={width}, num_classes={classes})",
    weights="MobileNet_V3_Small_Weights.IMAGENET1K_V1",
)
MOBILENET_V3_SMALL_POOLED = replace(
    MOBILENET_V3_SMALL, name="mobilenet_v3_small_pooled", build=build_small_pooled,
    head="classifier", stock_class=None,
)  # fmt: skip

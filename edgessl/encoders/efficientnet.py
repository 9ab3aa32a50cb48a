"""EfficientNet-B0 (arXiv:1905.11946): torchvision's class at any width.

Dropout and stochastic depth are off, as live and frozen passes of a training step must be the
same function.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConv, MBConvConfig
from torchvision.ops import SqueezeExcitation

from edgessl.encoders.base import Architecture, Axes, AxesBuilder
from edgessl.encoders.edits import Edit

# (expansion, kernel, stride, input channels, output channels, layers) of every stage at 1x
STAGES = (
    (1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1),
)  # fmt: skip


def build(width: float, classes: int) -> nn.Module:
    """Torchvision's EfficientNet with the stages of B0; its own function has one width."""
    stages = [MBConvConfig(*stage, width_mult=width, depth_mult=1.0) for stage in STAGES]
    return EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0, num_classes=classes)


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per residual chain, expansion and squeeze per block, features.

    A squeeze-and-excitation layer shares the expansion group of its block at both ends.
    """
    axes = AxesBuilder()
    layers = list(module.get_submodule("features").children())
    trunk = "trunk0"
    axes.conv_norm("features.0", layers[0], None, trunk)
    for stage, blocks in enumerate(layers[1:-1], start=1):
        for index, block in enumerate(blocks.children()):
            assert isinstance(block, MBConv)
            inputs, expansion, place = trunk, trunk, f"{stage}.{index}"
            if not block.use_res_connect:
                trunk = f"trunk{place}"
            for position, part in enumerate(block.block.children()):
                name = f"features.{place}.block.{position}"
                if isinstance(part, SqueezeExcitation):
                    axes.conv(f"{name}.fc1", part.fc1, expansion, f"squeeze{place}")
                    axes.conv(f"{name}.fc2", part.fc2, f"squeeze{place}", expansion)
                elif part.get_submodule("0").groups != 1:  # depthwise
                    axes.conv_norm(name, part, expansion, expansion)
                elif position == 0:
                    expansion = f"expansion{place}"
                    axes.conv_norm(name, part, inputs, expansion)
                else:
                    axes.conv_norm(name, part, expansion, trunk)
    axes.conv_norm(f"features.{len(layers) - 1}", layers[-1], trunk, "last_conv")
    axes.linear("classifier.1", "last_conv", None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input is added to its output."""
    return tuple(layer.use_res_connect for layer in module.modules() if isinstance(layer, MBConv))


EFFICIENTNET_B0 = Architecture(
    name="efficientnet_b0",
    build=build,
    head="classifier.1",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)), Edit("features.2.0.block.1.0", stride=(1, 1))),
    stock_class="torchvision.models.efficientnet_b0(num_classes={classes})",
    weights="EfficientNet_B0_Weights.IMAGENET1K_V1",
)

"""MobileNetV1 (arXiv:1704.04861, table 1) and a short variant for small images.

The short variant keeps the separable blocks and drops depth and stride: the 27-layer net
reduces a 28 px image to a single pixel and learns poorly there.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from edgessl.encoders.base import Architecture, Axes, AxesBuilder, scaled
from edgessl.encoders.edits import Edit

STEM = 32
# (output channels, stride) of every separable block
BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
SHORT_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 1))


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class MobileNetV1(nn.Module):
    """Stem, depthwise separable blocks, global average pooling, one Linear.

    Args:
        width: Width multiplier.
        num_classes: Outputs of ``classifier``.
        blocks: (channels, stride) of the separable blocks at 1x.
    """

    def __init__(
        self, width: float, num_classes: int, blocks: tuple[tuple[int, int], ...] = BLOCKS
    ) -> None:
        super().__init__()
        inputs = scaled(STEM, width)
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, inputs, 3, 2, 1))]
        for channels, stride in blocks:
            outputs = scaled(channels, width)
            depthwise = _conv(inputs, inputs, 3, stride, inputs)
            layers.append(nn.Sequential(*depthwise, *_conv(inputs, outputs, 1, 1, 1)))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes), or features (B, F) when the classifier is an identity."""
        return self.classifier(torch.flatten(self.features(images_BCHW).mean((2, 3)), 1))


def channel_axes(module: nn.Module) -> Axes:
    """Return one group per stage output: pointwise out, depthwise, next pointwise in."""
    axes, features = AxesBuilder(), module.get_submodule("features")
    group = "stem"
    for index, block in enumerate(features.children()):
        name = f"features.{index}"
        if index == 0:
            axes.conv(f"{name}.0", block.get_submodule("0"), None, group)
            axes.norm(f"{name}.1", group)
            continue
        axes.conv(f"{name}.0", block.get_submodule("0"), group, group)
        axes.norm(f"{name}.1", group)
        outputs = f"block{index}"
        axes.conv(f"{name}.3", block.get_submodule("3"), group, outputs)
        axes.norm(f"{name}.4", outputs)
        group = outputs
    axes.linear("classifier", group, None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """MobileNetV1 has no residual connections."""
    return (False,) * (len(list(module.get_submodule("features").children())) - 1)


MOBILENET_V1 = Architecture(
    name="mobilenet_v1",
    build=MobileNetV1,
    head="classifier",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)), Edit("features.2.0", stride=(1, 1))),
)
MOBILENET_V1_SHORT = Architecture(
    name="mobilenet_v1_short",
    build=partial(MobileNetV1, blocks=SHORT_BLOCKS),
    head="classifier",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("features.0.0", stride=(1, 1)),),  # it has little stride to give away
)

"""MobileNetV4-conv-small (arXiv:2404.10518, table 11) at any width.

Tensors are named as in timm's class, which at 1x takes them strictly; timm itself is not needed.
Other than there, stem and head are scaled with the rest, so that a slim net is a slice throughout.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.encoders.base import Architecture, Axes, AxesBuilder, scaled
from edgessl.encoders.edits import Edit

STEM, HEAD = 32, 1280


@dataclass(frozen=True, slots=True)
class Conv:
    """A full convolution with BatchNorm and ReLU; channels at 1x."""

    kernel: int
    stride: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A universal inverted bottleneck; kernel 0 leaves a depthwise convolution out.

    The stride is that of the depthwise convolution in the middle. Channels at 1x.
    """

    start_kernel: int
    middle_kernel: int
    stride: int
    expansion: int
    outputs: int


STAGES: tuple[tuple[Conv | Bottleneck, ...], ...] = (
    (Conv(3, 2, 32), Conv(1, 1, 32)),
    (Conv(3, 2, 96), Conv(1, 1, 64)),
    (
        Bottleneck(5, 5, 2, 192, 96),
        *(Bottleneck(0, 3, 1, 192, 96) for _ in range(4)),
        Bottleneck(3, 0, 1, 384, 96),
    ),
    (
        Bottleneck(3, 3, 2, 576, 128),
        Bottleneck(5, 5, 1, 512, 128),
        Bottleneck(0, 5, 1, 512, 128),
        Bottleneck(0, 5, 1, 384, 128),
        Bottleneck(0, 3, 1, 512, 128),
        Bottleneck(0, 3, 1, 512, 128),
    ),
    (Conv(1, 1, 960),),
)


class InvertedBottleneck(nn.Sequential):
    """Depthwise, expand, depthwise, project; its input is added where the size stays."""

    def __init__(self, inputs: int, plan: Bottleneck, width: float) -> None:
        expansion, outputs = scaled(plan.expansion, width), scaled(plan.outputs, width)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if plan.start_kernel:
            parts["dw_start"] = _depthwise(inputs, plan.start_kernel, 1, act=False)
        parts["pw_exp"] = _conv(inputs, expansion, Conv(1, 1, 0))
        if plan.middle_kernel:
            parts["dw_mid"] = _depthwise(expansion, plan.middle_kernel, plan.stride, act=True)
        parts["pw_proj"] = _conv(expansion, outputs, Conv(1, 1, 0), act=False)
        super().__init__(parts)
        self.connected = plan.stride == 1

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102  (its name in Sequential)
        out = super().forward(input)
        return input + out if self.connected else out


class MobileNetV4(nn.Module):
    """Stem, stages, global average pooling, a hidden 1x1 convolution, one Linear.

    Args:
        width: Width multiplier.
        num_classes: Outputs of ``classifier``.
    """

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        inputs = scaled(STEM, width)
        self.conv_stem = nn.Conv2d(3, inputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        stages = []
        for stage in STAGES:
            blocks: list[nn.Module] = []
            for plan in stage:
                outputs = scaled(plan.outputs, width)
                if isinstance(plan, Conv):
                    blocks.append(_conv(inputs, outputs, plan, norm="bn1"))
                else:
                    blocks.append(InvertedBottleneck(inputs, plan, width))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        head = scaled(HEAD, width)
        self.conv_head = nn.Conv2d(inputs, head, 1, bias=False)
        self.norm_head = nn.BatchNorm2d(head)
        self.classifier = nn.Linear(head, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes), or features (B, F) when the classifier is an identity."""
        maps = self.blocks(torch.relu(self.bn1(self.conv_stem(images_BCHW))))
        hidden = self.norm_head(self.conv_head(maps.mean((2, 3), keepdim=True)))
        return self.classifier(torch.flatten(torch.relu(hidden), 1))


def _conv(
    inputs: int, outputs: int, plan: Conv, *, norm: str = "bn", act: bool = True, groups: int = 1
) -> nn.Sequential:
    padding = plan.kernel // 2
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv2d(
        inputs, outputs, plan.kernel, plan.stride, padding, groups=groups, bias=False
    )
    parts[norm] = nn.BatchNorm2d(outputs)
    if act:
        parts["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


def _depthwise(channels: int, kernel: int, stride: int, *, act: bool) -> nn.Sequential:
    return _conv(channels, channels, Conv(kernel, stride, channels), act=act, groups=channels)


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per residual chain, expansion per block, head."""
    axes, trunk = AxesBuilder(), "stem"
    axes.conv("conv_stem", module.get_submodule("conv_stem"), None, trunk)
    axes.norm("bn1", trunk)
    for stage, blocks in module.get_submodule("blocks").named_children():
        for index, block in blocks.named_children():
            name, inputs = f"blocks.{stage}.{index}", trunk
            if not isinstance(block, InvertedBottleneck):
                trunk = f"trunk{stage}.{index}"
                axes.conv(f"{name}.conv", block.get_submodule("conv"), inputs, trunk)
                axes.norm(f"{name}.bn1", trunk)
                continue
            trunk = inputs if block.connected else f"trunk{stage}.{index}"
            expansion = f"expansion{stage}.{index}"
            ends = {
                "dw_start": (inputs, inputs), "pw_exp": (inputs, expansion),
                "dw_mid": (expansion, expansion), "pw_proj": (expansion, trunk),
            }  # fmt: skip
            for part, layers in block.named_children():
                axes.conv(f"{name}.{part}.conv", layers.get_submodule("conv"), *ends[part])
                axes.norm(f"{name}.{part}.bn", ends[part][1])
    axes.conv("conv_head", module.get_submodule("conv_head"), trunk, "head")
    axes.norm("norm_head", "head")
    axes.linear("classifier", "head", None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input is added to its output."""
    return tuple(m.connected for m in module.modules() if isinstance(m, InvertedBottleneck))


MOBILENET_V4_CONV_SMALL = Architecture(
    name="mobilenetv4_conv_small",
    build=MobileNetV4,
    head="classifier",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("conv_stem", stride=(1, 1)), Edit("blocks.0.0.conv", stride=(1, 1))),
    stock_class="timm.create_model('mobilenetv4_conv_small', num_classes={classes})",
    weights="timm:mobilenetv4_conv_small",
)

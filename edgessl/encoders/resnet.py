"""ResNets (arXiv:1512.03385) at any width: torchvision's for photographs, ResNet-20 for 32 px.

Torchvision's own ``width_per_group`` scales the inner channels of bottlenecks only; here every
stage is scaled, so that a slim net is a slice of its host.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, conv1x1

from edgessl.encoders.base import Architecture, Axes, AxesBuilder, scaled
from edgessl.encoders.edits import Edit

Block = type[BasicBlock] | type[Bottleneck]

CHANNELS = (64, 128, 256, 512)  # of the stages at 1x; the stem has those of the first
CIFAR_CHANNELS = (16, 32, 64)
BLOCKS_34 = (3, 4, 6, 3)  # of ResNet-50 too


class CifarResNet(nn.Module):
    """The paper's net for 32 px: 3x3 stem of stride 1, no max-pool, three stages of basic blocks.

    Where a stage changes the channels its shortcut is a 1x1 convolution (the paper's option B).

    Args:
        width: Width multiplier.
        num_classes: Outputs of ``fc``.
        blocks: Per stage; (3, 3, 3) has 20 layers.
    """

    def __init__(self, width: float, num_classes: int, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        channels = [scaled(each, width) for each in CIFAR_CHANNELS]
        self.conv1 = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.layer1, self.layer2, self.layer3 = _stages(BasicBlock, channels, blocks)
        self.fc = nn.Linear(channels[-1], num_classes)
        _initialise(self)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes), or features (B, F) when ``fc`` is an identity."""
        stem = torch.relu(self.bn1(self.conv1(images_BCHW)))
        return self.fc(self.layer3(self.layer2(self.layer1(stem))).mean((2, 3)))


def build(width: float, classes: int, *, block: Block, blocks: Sequence[int]) -> nn.Module:
    """Torchvision's ResNet with scaled stages; at 1x it is the stock net."""
    if width == 1:
        return ResNet(block, list(blocks), num_classes=classes)
    with torch.device("meta"):  # every layer with weights is replaced
        net = ResNet(block, list(blocks), num_classes=classes)
    channels = [scaled(each, width) for each in CHANNELS]
    net.conv1 = nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(channels[0])
    net.layer1, net.layer2, net.layer3, net.layer4 = _stages(block, channels, blocks)
    net.fc = nn.Linear(channels[-1] * block.expansion, classes)
    _initialise(net)
    return net


def _stages(block: Block, channels: Sequence[int], blocks: Sequence[int]) -> list[nn.Sequential]:
    """Build the stages behind a stem that has the channels of the first; all others halve."""
    stages, inputs = [], channels[0]
    for number, (inner, count) in enumerate(zip(channels, blocks, strict=True)):
        stride, outputs, shortcut = 1 if number == 0 else 2, inner * block.expansion, None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
        rest = [block(outputs, inner) for _ in range(count - 1)]
        stages.append(nn.Sequential(block(inputs, inner, stride, shortcut), *rest))
        inputs = outputs
    return stages


def _initialise(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per stage with its 1x1 shortcut, inner groups per block.

    The stem belongs to the first trunk where the first stage adds it to its outputs.
    """
    axes = AxesBuilder()
    trunk = "trunk1" if connections(module)[0] else "stem"
    axes.conv("conv1", module.get_submodule("conv1"), None, trunk)
    axes.norm("bn1", trunk)
    stages = [part for name, part in module.named_children() if name.startswith("layer")]
    for number, stage in enumerate(stages, start=1):
        for index, block in enumerate(stage.children()):
            assert isinstance(block, BasicBlock | Bottleneck)
            name, inputs, outputs = f"layer{number}.{index}", trunk, f"trunk{number}"
            convs = [part for part, _ in block.named_children() if part.startswith("conv")]
            group = inputs
            for position, conv in enumerate(convs, start=1):
                before = group
                group = f"inner{number}.{index}" + (f".{position}" if position > 1 else "")
                group = outputs if conv == convs[-1] else group
                axes.conv(f"{name}.{conv}", block.get_submodule(conv), before, group)
                axes.norm(f"{name}.bn{position}", group)
            if block.downsample is not None:
                shortcut = block.downsample.get_submodule("0")
                axes.conv(f"{name}.downsample.0", shortcut, inputs, outputs)
                axes.norm(f"{name}.downsample.1", outputs)
            trunk = outputs
    axes.linear("fc", trunk, None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input itself is added to its output."""
    return tuple(
        layer.downsample is None
        for layer in module.modules()
        if isinstance(layer, BasicBlock | Bottleneck)
    )


def _torchvision(name: str, block: Block, blocks: Sequence[int], weights: str) -> Architecture:
    return Architecture(
        name=name,
        build=partial(build, block=block, blocks=blocks),
        head="fc",
        channel_axes=channel_axes,
        connections=connections,
        small_stem=(Edit("conv1", stride=(1, 1), kernel=(3, 3)), Edit("maxpool", remove=True)),
        stock_class=f"torchvision.models.{name}(num_classes={{classes}})",
        weights=f"{weights}.IMAGENET1K_V1",
    )


RESNET18 = _torchvision("resnet18", BasicBlock, (2, 2, 2, 2), "ResNet18_Weights")
RESNET34 = _torchvision("resnet34", BasicBlock, BLOCKS_34, "ResNet34_Weights")
RESNET50 = _torchvision("resnet50", Bottleneck, BLOCKS_34, "ResNet50_Weights")
RESNET101 = _torchvision("resnet101", Bottleneck, (3, 4, 23, 3), "ResNet101_Weights")
RESNET20 = Architecture(
    name="resnet20",
    build=partial(CifarResNet, blocks=(3, 3, 3)),
    head="fc",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(),  # it is made for small images
)

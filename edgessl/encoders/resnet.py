"""ResNet-18 (arXiv:1512.03385): torchvision's class at any width.

Torchvision scales only bottleneck blocks, so the stages are built here from its blocks.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet, conv1x1

from edgessl.encoders.base import Architecture, Axes, AxesBuilder, scaled
from edgessl.encoders.edits import Edit

CHANNELS = (64, 128, 256, 512)  # of the stages at 1x; the stem has those of the first


def build(width: float, classes: int) -> nn.Module:
    """Torchvision's ResNet-18 with scaled stages; at 1x it is the stock net."""
    net = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    if width == 1:
        return net
    inputs = scaled(CHANNELS[0], width)
    net.conv1 = nn.Conv2d(3, inputs, 7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(inputs)
    for number, channels in enumerate(CHANNELS, start=1):
        outputs = scaled(channels, width)
        setattr(net, f"layer{number}", _stage(inputs, outputs, stride=1 if number == 1 else 2))
        inputs = outputs
    net.fc = nn.Linear(inputs, classes)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net


def _stage(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs)
    )


def channel_axes(module: nn.Module) -> Axes:
    """Return the groups: trunk per stage with its 1x1 shortcut, inner group per block.

    The stem belongs to the first trunk: that stage adds it to its outputs.
    """
    axes = AxesBuilder()
    trunk = "trunk1"
    axes.conv("conv1", module.get_submodule("conv1"), None, trunk)
    axes.norm("bn1", trunk)
    for number in range(1, len(CHANNELS) + 1):
        for index, block in enumerate(module.get_submodule(f"layer{number}").children()):
            assert isinstance(block, BasicBlock)
            name, inputs, inner = f"layer{number}.{index}", trunk, f"inner{number}.{index}"
            trunk = f"trunk{number}"
            axes.conv(f"{name}.conv1", block.conv1, inputs, inner)
            axes.norm(f"{name}.bn1", inner)
            axes.conv(f"{name}.conv2", block.conv2, inner, trunk)
            axes.norm(f"{name}.bn2", trunk)
            if block.downsample is not None:
                shortcut = block.downsample.get_submodule("0")
                axes.conv(f"{name}.downsample.0", shortcut, inputs, trunk)
                axes.norm(f"{name}.downsample.1", trunk)
    axes.linear("fc", trunk, None)
    return axes.axes


def connections(module: nn.Module) -> tuple[bool, ...]:
    """Return, block by block, whether its input itself is added to its output."""
    return tuple(
        layer.downsample is None for layer in module.modules() if isinstance(layer, BasicBlock)
    )


RESNET18 = Architecture(
    name="resnet18",
    build=build,
    head="fc",
    channel_axes=channel_axes,
    connections=connections,
    small_stem=(Edit("conv1", stride=(1, 1), kernel=(3, 3)), Edit("maxpool", remove=True)),
    stock_class="torchvision.models.resnet18(num_classes={classes})",
    weights="ResNet18_Weights.IMAGENET1K_V1",
)

"""A net that int8 breaks: the same function with channels of very different size.

Between a BatchNorm and the layers that read it, channel c is multiplied by a power of two and
the layers' weights for it are divided by it. In float nothing changes, to the bit; one scale for
the whole tensor leaves nothing of the small channels.

A place can be trapped when what lies between is positively homogeneous: nothing, ReLU, pooling,
sums of residual connections. That is, by the classes of torchvision:

- MobileNetV1, ResNet: BatchNorm-ReLU-convolution, everywhere;
- MobileNetV3-large and -small: BatchNorm-ReLU-depthwise in the early blocks (not Hardswish);
- MobileNetV2, EfficientNet-B0: the linear ends of blocks only (not ReLU6, not SiLU), which are
  read by 1x1 convolutions, so that int8 weights per output channel break as well.

Squeeze-and-excitation multiplies two tensors and is left out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import fx, nn

HOMOGENEOUS = (nn.ReLU, nn.Identity, nn.Dropout, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.MaxPool2d)
FUNCTIONS = {"add", "iadd", "relu", "flatten", "mean", "adaptive_avg_pool2d", "stochastic_depth"}


@dataclass(frozen=True)
class Place:
    """Channels that can be rescaled: the BatchNorms that write them, the layers that read them."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    depthwise: bool  # whether all readers are: then their int8 weights stay as good as they were


def places(network: nn.Module) -> list[Place]:
    """Return where a net can be trapped, in the order of execution."""
    graph = fx.Tracer().trace(network)
    modules = dict(network.named_modules())
    kind = {n: type(modules[n.target]) if n.op == "call_module" else None for n in graph.nodes}
    groups: dict[fx.Node, list[fx.Node]] = {}  # nodes whose channels must be scaled together
    for node in graph.nodes:
        groups[node] = [node]
        if passes_scale(node, kind[node]):
            for before in node.all_input_nodes:
                if groups[before] is not groups[node]:
                    groups[node].extend(groups[before])
                    groups.update(dict.fromkeys(groups[before], groups[node]))
    found = []
    for nodes in {id(members): members for members in groups.values()}.values():
        writers = [n for n in nodes if not passes_scale(n, kind[n])]
        readers = [n for n in graph.nodes if n not in nodes and {*nodes} & {*n.all_input_nodes}]
        if {kind[n] for n in writers} != {nn.BatchNorm2d} or not readers:
            continue
        if {kind[n] for n in readers} <= {nn.Conv2d, nn.Linear}:
            channels = modules[writers[0].target].num_features
            split = {getattr(modules[n.target], "groups", 1) for n in readers}
            if split in ({1}, {channels}):
                names = ([str(n.target) for n in some] for some in (writers, readers))
                found.append(Place(*map(tuple, names), channels, split != {1}))
    return found


def passes_scale(node: fx.Node, kind: type | None) -> bool:
    """Return whether a node gives s * y for s * x, channel by channel, for s > 0."""
    if node.op == "call_module":
        return kind in HOMOGENEOUS
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op.startswith("call_") and name in FUNCTIONS


def trap(network: nn.Module, *, octaves: int = 4, at: int | None = None) -> nn.Module:
    """Return a copy that computes the same in float and breaks in int8.

    Args:
        network: A stock net; left as it was.
        octaves: Three channels of four become 2**octaves times smaller, one as much larger.
        at: Which of :func:`places`; None for the widest depthwise one, or where there is none,
            for the widest of all (the first of equals).
    """
    trapped, known = copy.deepcopy(network).eval(), places(network)
    assert known, "nowhere to trap this net"
    place = known[at] if at is not None else max(known, key=lambda p: (p.depthwise, p.channels))
    exponents = torch.full((place.channels,), -octaves)
    exponents[::4] = octaves
    scale = torch.exp2(exponents.float())
    with torch.no_grad():
        for name in place.writers:
            norm = trapped.get_submodule(name)
            norm.weight *= scale
            norm.bias *= scale
        for name in place.readers:
            weight = trapped.get_submodule(name).weight
            axis = 0 if place.depthwise else 1
            weight /= scale.view([-1 if a == axis else 1 for a in range(weight.ndim)])
    return trapped

"""What stands behind an encoder while it is pretrained: projectors and predictors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from edgessl.encoders.base import Axes
from edgessl.methods.base import Parts
from edgessl.slimming.plan import ChannelPlan
from edgessl.slimming.sliced import Sliced

FEATURES = "features"  # group of a projector's inputs


def projector(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear-BatchNorm-ReLU blocks and a last Linear, all without biases.

    Args:
        inputs: Features of the encoder.
        widths: Outputs of every Linear.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1], bias=False))


def mlp(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear-ReLU blocks and a last Linear, with biases and without BatchNorm, as in MoCo-v2.

    Args:
        inputs: Features of the encoder.
        widths: Outputs of every Linear.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1]))


def sliced_projector(parts: Parts, widths: Sequence[int]) -> Sliced:
    """One :func:`projector` for the host and its slim nets, which read the features they keep.

    Args:
        parts: Slim nets, how BatchNorms are shared, and the pooled feature channels.
        widths: Outputs of every Linear.
    """
    slims = {}
    for label, channels in parts.features.items():
        slim = projector(len(channels.keep), widths)
        axes: Axes = {name: (None,) * tensor.ndim for name, tensor in slim.state_dict().items()}
        axes["0.weight"] = (None, FEATURES)
        slims[label] = (slim, ChannelPlan({FEATURES: channels}, axes))
    return Sliced(projector(parts.feature_size, widths), slims, bn=parts.encoder.bn)

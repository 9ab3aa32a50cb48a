"""A network's layers made again at another width, and its stem kept from shrinking small images."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgessl.encoders.base import Axes, scaled
from edgessl.encoders.edits import Edit, apply_edits
from edgessl.encoders.groups import Reduction

SMALL = 64  # px: images that a stem for small images is for


def rescale(net: nn.Module, axes: Axes, width: float) -> None:
    """Give every channel group its size at ``width``, in place; new tensors are initialised.

    Convolutions start from a normal distribution by fan-out, Linear layers as PyTorch's own,
    everything of one axis (BatchNorm, biases, scales) at the mean of what it was.

    Args:
        net: At 1x; its convolutions have one group, or one per channel.
        axes: The channel groups of its tensors.
        width: Width multiplier, not 1.
    """
    for path, module in net.named_modules():
        prefix = f"{path}." if path else ""
        held = {**module._parameters, **module._buffers}
        made = False
        for part, tensor in held.items():
            if tensor is None:
                continue
            shape = _shape(tensor, axes[f"{prefix}{part}"], width)
            if shape != tuple(tensor.shape):
                setattr(module, part, _new(tensor, shape))
                made = True
        if made:
            _restate(module)


def _shape(tensor: Tensor, groups: Sequence[str | None], width: float) -> tuple[int, ...]:
    return tuple(
        size if group is None else _channels(size, width)
        for size, group in zip(tensor.shape, groups, strict=True)
    )


def _channels(stock: int, width: float) -> int:
    """Channels of a group at ``width``: never more than stock below 1x, nor less above."""
    rounded = scaled(stock, width)
    return min(stock, rounded) if width < 1 else max(stock, rounded)


def _new(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    made = torch.empty(shape, dtype=tensor.dtype)
    if len(shape) == 1:
        made.fill_(float(tensor.detach().mean()))
    elif len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3]
        made.normal_(0.0, math.sqrt(2.0 / fan_out))
    else:
        made.normal_(0.0, float(tensor.detach().std()))
    return nn.Parameter(made) if isinstance(tensor, nn.Parameter) else made


def _restate(module: nn.Module) -> None:
    """Bring the numbers that a layer keeps beside its tensors in line with them."""
    if isinstance(module, nn.Conv2d):
        module.out_channels = module.weight.shape[0]
        if module.groups > 1:
            module.groups = module.in_channels = module.out_channels
        else:
            module.in_channels = module.weight.shape[1]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
        module.reset_parameters()
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        assert module.running_mean is not None
        module.num_features = len(module.running_mean)


def stem_edits(net: nn.Module, reductions: Sequence[Reduction], side: int) -> tuple[Edit, ...]:
    """Return what makes the first two halvings of the resolution go, or the first alone.

    Args:
        net: On the meta device; it is left as it was.
        reductions: Its layers that lower the resolution.
        side: Side of the image that they were seen on, px.

    Returns:
        The edits; empty where a halving is not done by a layer of its own, or the net does not
        run without it.
    """
    levels = [_undone(net, reductions, depth) for depth in (1, 2)]
    for edits in ((*levels[0], *levels[1]), levels[0]):
        if levels[0] and _runs(net, edits, min(side, SMALL)):
            return edits
    return ()


def _undone(net: nn.Module, reductions: Sequence[Reduction], depth: int) -> tuple[Edit, ...]:
    edits = {}
    for reduction in (r for r in reductions if r.depth == depth and r.factor == 2):
        layer = net.get_submodule(reduction.module)
        if isinstance(layer, nn.Conv2d):
            large = depth == 1 and max(layer.kernel_size) > 3
            edit = Edit(reduction.module, stride=(1, 1), kernel=(3, 3) if large else None)
        elif "Pool" in type(layer).__name__:
            edit = Edit(reduction.module, remove=True)
        else:
            return ()
        edits[reduction.module] = edit
    return tuple(edits.values())


def _runs(net: nn.Module, edits: tuple[Edit, ...], side: int) -> bool:
    trial = copy.deepcopy(net).eval()
    apply_edits(trial, edits)
    try:
        with torch.no_grad():
            trial(torch.empty(2, 3, side, side, device="meta"))
    except Exception:  # noqa: BLE001  (any, from code of others)
        return False
    return True

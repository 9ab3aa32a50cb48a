"""Choosing the channels of a slim net by the size of their filters, and moving to another choice.

The criterion is that of magnitude pruning, made consistent over groups: a channel is as strong as
the mean |w| of its filter, summed over all layers that produce its group. What the slim net owns
of a channel (BatchNorm affine and statistics, and what an optimiser remembers of them) belongs to
the channel, not to its place in the slim net.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgessl.slimming.plan import ChannelPlan, Group
from edgessl.slimming.sliced import Sliced


@torch.no_grad()
def channel_scores(host: nn.Module, plan: ChannelPlan) -> dict[str, Tensor]:
    """Return the strength of every host channel, by group: (host channels,).

    A layer produces a group when the group is on the output axis of its weight; depthwise
    convolutions and squeeze-and-excitation outputs count too.
    """
    scores: dict[str, Tensor] = {}
    for name, axes in plan.axes.items():
        if len(axes) < 2 or axes[0] is None:
            continue
        strength = host.get_parameter(name).abs().flatten(1).mean(1)
        scores[axes[0]] = scores[axes[0]] + strength if axes[0] in scores else strength
    return scores


def strongest(scores_C: Tensor, k: int) -> tuple[int, ...]:
    """Return the indices of the k largest scores, ascending; of equal ones the first.

    Exactly k, where a threshold would keep more on ties.
    """
    order = scores_C.argsort(descending=True, stable=True)
    return tuple(sorted(order[:k].tolist()))


def strongest_groups(sliced: Sliced, label: str) -> dict[str, Group]:
    """Return every group of a slim net with its strongest channels, as many as it keeps now.

    The choices of several slim nets of one host lie within each other.
    """
    plan = sliced.slims[label].plan
    scores = channel_scores(sliced.host, plan)
    return {
        name: Group(group.host, strongest(scores[name], len(group.keep)))
        for name, group in plan.groups.items()
    }


def overlap(before: Mapping[str, Group], after: Mapping[str, Group]) -> float:
    """Jaccard overlap of two choices, over the channels of all groups that leave some out.

    Returns:
        In [0, 1]; 1 where nothing is left out.
    """
    both = either = 0
    for name, group in before.items():
        if len(group.keep) == group.host:
            continue
        kept, other = set(group.keep), set(after[name].keep)
        both, either = both + len(kept & other), either + len(kept | other)
    return both / either if either else 1.0


@torch.no_grad()
def keep_channels(
    sliced: Sliced, label: str, groups: Mapping[str, Group], optimizer: Optimizer | None = None
) -> None:
    """Let a slim net keep other channels, in place.

    What it owns of a channel stays with the channel. A channel that is new to it begins as it is
    in the host: affine, running statistics and what the optimiser remembers of them. The host
    does not change.

    Args:
        sliced: Host and slim nets.
        label: Which slim net.
        groups: The groups that change; as many channels in each as before.
        optimizer: Of the parameters of ``sliced``, if there is one.
    """
    slim = sliced.slims[label]
    before = slim.plan
    after = ChannelPlan({**before.groups, **groups}, before.axes)
    for stock, own, host in _norms(sliced, label):
        for part, tensor in own.state_dict().items():
            moved = _Move(before, after, f"{stock}.{part}")
            theirs = host.state_dict()[part]
            moved(tensor, theirs)
            if optimizer is not None and part in dict(own.named_parameters()):
                ours = optimizer.state.get(own.get_parameter(part), {})
                known = optimizer.state.get(host.get_parameter(part), {})
                for name, value in ours.items():
                    if isinstance(value, Tensor) and value.shape == tensor.shape:
                        moved(value, known.get(name, torch.zeros_like(theirs)))
    slim.plan = after


@torch.no_grad()
def begin_as_host(sliced: Sliced, label: str) -> None:
    """Give the BatchNorms of a slim net the affine and statistics that the host has, in place."""
    plan = sliced.slims[label].plan
    for stock, own, host in _norms(sliced, label):
        for part, tensor in own.state_dict().items():
            tensor.copy_(plan.take(f"{stock}.{part}", host.state_dict()[part]))


class _Move:
    """From the places that a tensor's channels have in one plan to those in another."""

    def __init__(self, before: ChannelPlan, after: ChannelPlan, name: str) -> None:
        self.before, self.after, self.name = before, after, name

    def __call__(self, slim: Tensor, host: Tensor) -> None:
        wide = host.clone()
        self.before.put(self.name, wide, slim)
        slim.copy_(self.after.take(self.name, wide))


def _norms(sliced: Sliced, label: str) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return the BatchNorms of a slim net: stock path, its own, the host's."""
    norms = sliced.slims[label].norms.items()
    return [
        (stock, own, sliced.host.get_submodule(stock))
        for stock, own in ((key.replace("/", "."), own) for key, own in norms)
    ]

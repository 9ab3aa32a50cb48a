"""When the slim nets choose their channels anew, and what must not get lost on the way.

Source of the criterion and of the intervals: the first author's public prototype of SACL+XD, which
ranks each layer alone and never stops; ours ranks groups (``slimming.choice``) and freezes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgessl.methods import base
from edgessl.methods.projectors import FEATURES
from edgessl.slimming.choice import keep_channels, overlap, strongest_groups
from edgessl.slimming.plan import ChannelPlan, Group
from edgessl.slimming.sliced import Sliced

NEVER = -1


class Selection(nn.Module):
    """Lets every slim net keep the strongest channels of its host; part of a checkpoint.

    The first choice is made before the first step; from the second epoch on there is a new one
    every ``interval`` steps, until ``freeze_at``.

    Args:
        nets: Encoder and projector, and copies of both that must keep the same channels; the
            first encoder is the one whose filters are measured.
        feature_group: Group of the pooled features, which the projector reads.
        interval: Steps between choices; None: one epoch.
        freeze_at: Share of the training after which the choice stands.
    """

    chosen_at: Tensor

    def __init__(
        self,
        nets: Sequence[tuple[Sliced, Sliced]],
        feature_group: str,
        *,
        interval: int | None,
        freeze_at: float,
    ) -> None:
        super().__init__()
        self._nets = tuple(nets)  # in a tuple: they are modules of the method, not of this one
        self.feature_group, self.interval, self.freeze_at = feature_group, interval, freeze_at
        self.schedule = base.Schedule(1, 1)
        self.register_buffer("chosen_at", torch.tensor(NEVER))
        for label, plan in self._plans().items():
            self.register_buffer(_buffer(label), _flat(plan.groups))

    def begin(self, schedule: base.Schedule) -> None:
        """Choose before the first step, or keep what a loaded state has chosen."""
        self.schedule = schedule
        if int(self.chosen_at) == NEVER:
            self._choose(schedule.done)
            return
        for label, plan in self._plans().items():
            groups = _unflat(getattr(self, _buffer(label)), plan.groups)
            for encoder, projector in self._nets:  # what belongs to the channels was loaded too
                _replace(encoder, label, groups)
                _replace(projector, label, {FEATURES: groups[self.feature_group]})

    def after_step(self, step: int) -> dict[str, float] | None:
        """Choose anew if it is time to; return the overlap with the choice before, by slim net."""
        every = self.interval or self.schedule.steps_per_epoch
        early = step < self.schedule.steps_per_epoch
        if early or step % every or step > self.freeze_at * self.schedule.steps:
            return None
        return self._choose(step)

    def _choose(self, step: int) -> dict[str, float]:
        overlaps = {}
        for label, plan in self._plans().items():
            groups = strongest_groups(self._nets[0][0], label)
            overlaps[label] = round(overlap(plan.groups, groups), 4)
            features = {FEATURES: groups[self.feature_group]}
            for encoder, projector in self._nets:
                keep_channels(encoder, label, groups, self.schedule.optimizer)
                keep_channels(projector, label, features, self.schedule.optimizer)
            getattr(self, _buffer(label)).copy_(_flat(groups))
        self.chosen_at.fill_(step)
        return overlaps

    def _plans(self) -> dict[str, ChannelPlan]:
        return {label: slim.plan for label, slim in self._nets[0][0].slims.items()}


def _buffer(label: str) -> str:
    return f"keep/{label}".replace(".", "/")  # names in a state dict take no dots


def _flat(groups: Mapping[str, Group]) -> Tensor:
    return torch.tensor([channel for group in groups.values() for channel in group.keep])


def _unflat(kept: Tensor, groups: Mapping[str, Group]) -> dict[str, Group]:
    parts = kept.split([len(group.keep) for group in groups.values()])
    return {
        name: Group(group.host, tuple(part.tolist()))
        for (name, group), part in zip(groups.items(), parts, strict=True)
    }


def _replace(sliced: Sliced, label: str, groups: Mapping[str, Group]) -> None:
    plan = sliced.slims[label].plan
    sliced.slims[label].plan = ChannelPlan({**plan.groups, **groups}, plan.axes)

"""How long and how fast a training goes: fixed before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.training import optimizers


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast; fixed before the first step and kept when resuming.

    Attributes:
        items: Images in the training set.
        batch: Images per step.
        epochs: Passes over the items.
        learning_rate: At the peak, after linear warm-up; cosine to zero follows.
        warmup: Share of all steps spent warming up, in [0, 1).
        drop_last: Leave out the last, smaller batch of an epoch; otherwise an epoch is split
            into batches of nearly equal size.
        seed: Order of the items.
        lars: Settings of the optimiser ``lars``.
    """

    items: int
    batch: int
    epochs: int
    learning_rate: float
    optimizer: optimizers.Name = "adamw"
    weight_decay: float = 1e-4
    warmup: float = 0.05
    drop_last: bool = True
    seed: int = 0
    lars: optimizers.LarsSettings | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that ``dataclasses.asdict`` made ``values`` of."""
        lars = values.get("lars")
        return cls(**{**values, "lars": optimizers.LarsSettings(**lars) if lars else None})

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        if self.drop_last:
            return self.items // self.batch
        # BatchNorm cannot train on a single image: no part may be that small
        return max(1, min(math.ceil(self.items / self.batch), self.items // 2))

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.steps_per_epoch * self.epochs

    def lr(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        warm = max(1, round(self.warmup * self.steps)) if self.warmup else 0
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def batch_indices(self, step: int) -> NDArray[np.int64]:
        """Items of step ``step``, in a fresh order every epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.items)
        if self.drop_last:
            return order[position * self.batch : (position + 1) * self.batch]
        return np.array_split(order, self.steps_per_epoch)[position]


def check_plan(plan: Plan) -> None:
    """Refuse a plan without a single step.

    Raises:
        DataInvalid: Fewer items than a batch (with ``drop_last``), or no items.
    """
    if plan.steps_per_epoch < 1 or plan.items < 2:
        raise DataInvalid(
            f"{plan.items} training images are fewer than one batch of {plan.batch}",
            hint="give more images or a smaller batch",
        )

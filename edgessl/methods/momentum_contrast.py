"""What MoCo-v2 and its descendants share: their options, and queries that look for their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from edgessl.cost.training import Passes
from edgessl.losses.contrastive import unit
from edgessl.methods import base
from edgessl.methods.keys import Keys
from edgessl.methods.momentum import rising_momentum
from edgessl.slimming.sliced import HOST, Sliced

# queries (B, D), their keys (B, D) and the queue (K, D), all of unit norm, to a scalar
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Options(base.Options):
    """Base of the options of MoCo-v2 and what is built on it."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.2, gt=0, description="divides the cosines")
    queue: int = Field(
        default=4096,
        gt=0,
        description="keys of other images, 65536 on ImageNet; unless given, at most a quarter of "
        "the images",
    )
    momentum: float = Field(
        default=0.999,
        ge=0,
        le=1,
        description="of the key encoder; 0.99 learns faster on many images and collapses on few",
    )
    momentum_end: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="what the momentum rises to, along a cosine; null: it stays (solo-learn's "
        "MoCo-v2+: from 0.99 to 0.999)",
    )
    symmetric: bool = Field(default=False, description="each view is query once; twice the cost")
    shuffle_bn: int = Field(
        default=2, ge=1, description="shuffled groups of keys with own batch statistics; 1: none"
    )

    def passes(self, usual: Passes) -> Passes:
        """Twice as many when symmetric."""
        return Passes(None, None, 8) if self.symmetric else usual

    def momentum_after(self, step: int, schedule: base.Schedule) -> float:
        """Return how much of itself the key encoder keeps after a step, counted from 1."""
        if self.momentum_end is None:
            return self.momentum
        return rising_momentum(self.momentum, (step - 1) / schedule.steps, self.momentum_end)


class Contrasts(Protocol):
    """What :func:`contrast` needs of a method."""

    encoder: Sliced
    keys: Keys
    step: int

    @property
    def projector(self) -> nn.Module:
        """What makes queries of the features."""
        ...


def make_keys(parts: base.Parts, projector: nn.Module, options: Options) -> Keys:
    """Return the key side of a method: momentum copies of its nets, and the queue."""
    return Keys(
        parts.encoder, projector, size=options.queue, dim=options.projector[-1],
        groups=options.shuffle_bn, seed=parts.seed,
    )  # fmt: skip


def contrast(
    method: Contrasts, views: Sequence[Tensor], loss: Loss, *, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss of the queries of a step, and its new keys.

    Args:
        method: Its query side, with gradient, and its keys.
        views: Two views (B, 3, H, W): queries of the first, keys of the second.
        loss: Of queries, their keys and the queue.
        symmetric: Also the other way round; the loss is then the mean of both.
    """
    xa, xb = views
    losses, keys = [], []
    for query, key in [(xa, xb), (xb, xa)] if symmetric else [(xa, xb)]:
        q = unit(method.projector(method.encoder(query, width=HOST)))
        k = method.keys(key, method.step)
        losses.append(loss(q, k, method.keys.latest_KD))
        keys.append(k)
    return torch.stack(losses).mean(), torch.cat(keys)

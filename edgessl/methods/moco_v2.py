"""MoCo-v2 (arXiv:1911.05722, arXiv:2003.04297): find the own key among those of a queue.

    q = g(f(X^A)), with gradient    k = g_m(f_m(X^B)), f_m and g_m a momentum copy
    L = InfoNCE(q, k, Q; tau)       Q: the latest K keys, of other images

After each step the copy moves, m theta_m + (1 - m) theta, and the new keys replace the oldest.
Only the query side gets gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from edgessl.cost.training import Passes
from edgessl.losses.contrastive import info_nce, unit
from edgessl.methods import base
from edgessl.methods.keys import Keys
from edgessl.methods.projectors import mlp
from edgessl.slimming.sliced import HOST


class Options(base.Options):
    """Options of ``moco-v2``."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.2, gt=0, description="divides the cosines")
    queue: int = Field(default=4096, gt=0, description="keys of other images; 65536 on ImageNet")
    momentum: float = Field(
        default=0.99, ge=0, le=1, description="of the key encoder; 0.999 in long trainings"
    )
    symmetric: bool = Field(default=False, description="each view is query once; twice the cost")
    shuffle_bn: int = Field(
        default=2, ge=1, description="shuffled groups of keys with own batch statistics; 1: none"
    )

    def passes(self, usual: Passes) -> Passes:
        """Twice as many when symmetric."""
        return Passes(None, None, 8) if self.symmetric else usual


class MoCoV2(base.Method):
    """Contrast queries with a queue of a momentum encoder's keys. Cost 4 S."""

    Options = Options

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "moco-v2")
        self.encoder, self.options = parts.encoder, options
        self.projector = mlp(parts.feature_size, options.projector)
        self.keys = Keys(
            self.encoder, self.projector, size=options.queue, dim=options.projector[-1],
            groups=options.shuffle_bn, seed=parts.seed,
        )  # fmt: skip
        self.step, self.new_keys = 0, self.keys.latest_KD[:0]

    def begin(self, schedule: base.Schedule) -> None:
        """Go on shuffling where the training stopped."""
        self.step = schedule.done

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        xa, xb = views
        pairs = [(xa, xb), (xb, xa)] if self.options.symmetric else [(xa, xb)]
        losses, keys = [], []
        for query, key in pairs:
            q = unit(self.projector(self.encoder(query, width=HOST)))
            k = self.keys(key, self.step)
            losses.append(info_nce(q, k, self.keys.latest_KD, self.options.temperature))
            keys.append(k)
        self.new_keys = torch.cat(keys)
        return {"total": torch.stack(losses).mean()}

    def after_step(self, step: int) -> None:
        """Move the key encoder and enqueue the new keys."""
        self.keys.advance(self.encoder, self.projector, self.options.momentum, self.new_keys)
        self.step = step

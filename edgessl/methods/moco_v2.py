"""MoCo-v2 (arXiv:1911.05722, arXiv:2003.04297): find the own key among those of a queue.

    q = g(f(X^A)), with gradient    k = g_m(f_m(X^B)), f_m and g_m a momentum copy
    L = InfoNCE(q, k, Q; tau)       Q: the latest K keys, of other images

After each step the copy moves, m theta_m + (1 - m) theta, and the new keys replace the oldest.
Only the query side gets gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgessl.losses.contrastive import info_nce
from edgessl.methods import base
from edgessl.methods.momentum_contrast import Options, contrast, make_keys
from edgessl.methods.projectors import mlp


class MoCoV2(base.Method):
    """Contrast queries with a queue of a momentum encoder's keys. Cost 4 S."""

    Options = Options
    least_std = base.LEAST_STD_MLP

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "moco-v2")
        self.encoder, self.options = parts.encoder, options
        self.projector = mlp(parts.feature_size, options.projector)
        self.keys = make_keys(parts, self.projector, options)
        self.schedule = base.ENDLESS
        self.step, self.new_keys = 0, self.keys.latest_KD

    def begin(self, schedule: base.Schedule) -> None:
        """Go on shuffling where the training stopped."""
        self.schedule, self.step = schedule, schedule.done

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        tau, symmetric = self.options.temperature, self.options.symmetric
        total, self.new_keys = contrast(
            self, views, lambda q, k, queue: info_nce(q, k, queue, tau), symmetric=symmetric
        )
        return {"total": total}

    def after_step(self, step: int) -> None:
        """Move the key encoder and enqueue the new keys."""
        m = self.options.momentum_after(step, self.schedule)
        self.keys.advance(self.encoder, self.projector, m, self.new_keys)
        self.step = step

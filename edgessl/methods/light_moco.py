"""light-MoCo (Lin et al., arXiv:2212.07158): MoCo-v2 with settings and a loss for small nets.

    q = g(f(X^A)), with gradient    k = g_m(f_m(X^B)), f_m and g_m a momentum copy
    L = SoftNCE(q, k, Q; tau)       Q: the latest K keys, of other images

SoftNCE leaves a share e of the target to the keys of the queue that are most like the query, as
some of them show the same thing. At e = 0 it is InfoNCE, and this method MoCo-v2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field, model_validator
from torch import Tensor

from edgessl.losses.contrastive import soft_nce
from edgessl.methods import base, momentum_contrast
from edgessl.methods.momentum_contrast import contrast, make_keys
from edgessl.methods.projectors import mlp


class Options(momentum_contrast.Options):
    """Options of ``light-moco``."""

    temperature: float = Field(default=0.1, gt=0, description="divides the cosines")
    smoothing: float = Field(
        default=0.2, ge=0, lt=1, description="share of the target that goes to the hardest keys"
    )
    hardest: int = Field(
        default=20, gt=0, description="keys of the queue, the most similar ones, that share it"
    )
    plain_epochs: int = Field(
        default=0, ge=0, description="epochs of InfoNCE before smoothing begins"
    )
    ramp: bool = Field(
        default=False,
        description="smoothing rises along a cosine from the first step (also behind "
        "plain_epochs) to its value at the end",
    )

    @model_validator(mode="after")
    def _has_enough_keys(self) -> Options:
        if self.hardest > self.queue:
            raise ValueError(f"hardest ({self.hardest}) exceeds queue ({self.queue})")
        return self

    def smoothing_at(self, step: int, schedule: base.Schedule) -> float:
        """Return the share e after some steps of a training."""
        if step < self.plain_epochs * schedule.steps_per_epoch:
            return 0.0
        if not self.ramp:
            return self.smoothing
        return self.smoothing * (1 - math.cos(math.pi * step / schedule.steps)) / 2


class LightMoCo(base.Method):
    """Contrast queries with a queue of keys, with a softened target. Cost 4 S."""

    Options = Options
    least_std = base.LEAST_STD_MLP

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "light-moco")
        self.encoder, self.options = parts.encoder, options
        self.projector = mlp(parts.feature_size, options.projector)
        self.keys = make_keys(parts, self.projector, options)
        self.schedule = base.ENDLESS
        self.step, self.new_keys = 0, self.keys.latest_KD

    def begin(self, schedule: base.Schedule) -> None:
        """Go on shuffling and softening where the training stopped."""
        self.schedule, self.step = schedule, schedule.done

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        use, e = self.options, self.options.smoothing_at(self.step, self.schedule)

        def loss(q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
            return soft_nce(q, k, queue, use.temperature, smoothing=e, hardest=use.hardest)

        total, self.new_keys = contrast(self, views, loss, symmetric=use.symmetric)
        return {"total": total}

    def after_step(self, step: int) -> None:
        """Move the key encoder and enqueue the new keys."""
        m = self.options.momentum_after(step, self.schedule)
        self.keys.advance(self.encoder, self.projector, m, self.new_keys)
        self.step = step

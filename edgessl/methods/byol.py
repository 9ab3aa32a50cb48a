"""BYOL (arXiv:2006.07733): predict what a momentum copy makes of the other view.

    p^v = q(g(f(X^v))), with gradient    z^v = g_m(f_m(X^v)), f_m and g_m a momentum copy
    L   = |p^A - z^B|^2 + |p^B - z^A|^2  of unit vectors, which is 2 - 2 cos each

Nothing pushes images apart. That not all embeddings become equal is owed to the predictor q,
which the copy lacks, and to the copy that trails: its momentum rises from tau_0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from edgessl.losses.distillation import embedding_distance
from edgessl.methods import base
from edgessl.methods.momentum import follow, momentum_copy, rising_momentum
from edgessl.methods.projectors import projector
from edgessl.slimming.sliced import HOST


class Options(base.Options):
    """Options of ``byol``."""

    projector: base.Projector = (4096, 256)
    predictor: int = Field(
        default=4096, gt=0, le=65536, description="hidden width of the predictor"
    )
    momentum: float = Field(
        default=0.99, ge=0, le=1, description="of the target at the start; rises to 1"
    )


class Byol(base.Method):
    """Predict the other view's projection by a trailing copy. Cost 8 S."""

    Options = Options

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "byol")
        self.encoder, self.options = parts.encoder, options
        self.projector = projector(parts.feature_size, options.projector)
        dim = options.projector[-1]
        self.predictor = projector(dim, (options.predictor, dim))
        self.target_encoder = momentum_copy(self.encoder)
        self.target_projector = momentum_copy(self.projector)
        self.steps: float = math.inf  # until the plan is known: the momentum does not rise

    def begin(self, schedule: base.Schedule) -> None:
        """Hear how many steps the momentum has to rise."""
        self.steps = schedule.steps

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        pa, pb = (self.predictor(self.projector(self.encoder(x, width=HOST))) for x in views)
        with torch.no_grad():  # batch statistics, as the online net
            za, zb = (self.target_projector(self.target_encoder(x, width=HOST)) for x in views)
        a, b = (embedding_distance(p, z, "batchmean") for p, z in ((pa, zb), (pb, za)))
        return {"total": a + b}

    def after_step(self, step: int) -> None:
        """Move the target: with tau_0 after the first step, with nearly 1 after the last."""
        momentum = rising_momentum(self.options.momentum, (step - 1) / self.steps)
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_projector, self.projector, momentum)

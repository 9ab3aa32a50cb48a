"""SimCLR (arXiv:2002.05709): each view finds the other one among all views of the batch.

    z^A = P(f(X^A))    z^B = P(f(X^B))    one network, with gradient
    L   = mean over the 2 B views of -log softmax of cos(z, z') / tau at the other view

All other images of the batch are negatives, so the batch size is part of the method.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from edgessl.losses.contrastive import nt_xent
from edgessl.methods import base
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Options(base.Options):
    """Options of ``simclr``."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.5, gt=0, description="divides the cosines")


class SimClr(base.Method):
    """Contrast the two views of a batch. Cost 6 S."""

    Options = Options

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "simclr")
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        za, zb = (base.embed(self, x, HOST) for x in views)
        return {"total": nt_xent(za, zb, temperature=self.options.temperature)}

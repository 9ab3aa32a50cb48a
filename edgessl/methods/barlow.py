"""Barlow Twins (arXiv:2103.03230): two views, one network, decorrelated embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edgessl.methods import base
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Barlow(base.Method):
    """BT(P f(X^A), P f(X^B)); the gradient flows through both branches. Cost 6 S."""

    Options = base.BarlowOptions

    def __init__(self, parts: base.Parts, options: base.BarlowOptions) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "barlow")
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        za, zb = (base.codes(self, x, HOST) for x in views)
        return {"total": self.options.distance(za, zb)}

"""Barlow Twins (arXiv:2103.03230): two views, one network, decorrelated embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from edgessl.methods import base
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import HOST, Sliced


class Barlow(nn.Module):
    """BT(P f(X^A), P f(X^B)); the gradient flows through both branches. Cost 6 S."""

    Options = base.BarlowOptions
    views = 2

    def __init__(self, encoder: Sliced, projector: Sliced, options: base.BarlowOptions) -> None:
        super().__init__()
        self.encoder, self.projector, self.options = encoder, projector, options

    @classmethod
    def from_options(
        cls, encoder: Sliced, features: Mapping[str, Group], options: base.BarlowOptions
    ) -> Self:
        """Build the method.

        Raises:
            RecipeInvalid: Host and slim width differ: nothing would train the slim net.
        """
        base.require_one_width(encoder, "barlow")
        return cls(encoder, base.sliced_projector(encoder, features, options.projector), options)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        za, zb = (base.codes(self, x, HOST) for x in views)
        return {"total": self.options.distance(za, zb)}

    def after_step(self, step: int) -> None:
        """Nothing follows the optimiser."""

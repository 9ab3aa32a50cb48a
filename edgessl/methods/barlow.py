"""Barlow Twins (arXiv:2103.03230): two views, one network, decorrelated embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from edgessl.core.errors import RecipeInvalid
from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.methods import base
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import Sliced


class Options(base.Options):
    """Options of ``barlow``."""


class Barlow(nn.Module):
    """BT(P f(X^A), P f(X^B)); the gradient flows through both branches. Cost 6 S."""

    Options = Options
    views = 2

    def __init__(self, encoder: Sliced, projector: nn.Module, options: Options) -> None:
        super().__init__()
        self.encoder, self.projector, self.options = encoder, projector, options

    @classmethod
    def from_options(cls, encoder: Sliced, features: Mapping[str, Group], options: Options) -> Self:
        """Build the method; the encoder must be dense.

        Raises:
            RecipeInvalid: Host and slim width differ: nothing would train the slim net.
        """
        if not encoder.is_dense:
            raise RecipeInvalid(
                "method 'barlow' trains one width, but the width names a host and a slim net",
                hint="use --width 1x, or --method sacl-xd for two widths",
            )
        (channels,) = features.values()
        return cls(encoder, base.projector(channels.host, options.projector), options)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        za, zb = (Codes(self.projector(self.encoder(x, width="host"))) for x in views)
        lam, scale = self.options.lam, self.options.scale_loss
        return {"total": barlow_loss(za, zb, lam=lam, scale_loss=scale)}

    def after_step(self, step: int) -> None:
        """Nothing follows the optimiser."""

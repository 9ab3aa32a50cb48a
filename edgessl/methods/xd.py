"""XD: cross distillation on a dense net, which is SACL+XD at 1x.

Source: Meng et al., "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for
Lightweight Model Training", NeurIPS 2023 (talk and abstract; no reference code exists).

    z^A = P(f(X^A))    z^B = P(f(X^B))    one network, with gradient
    L_CD = 1/2 [BT(z^A, sg z^A) + BT(z^B, sg z^B)]
    L    = alpha BT(z^A, z^B) + (1 - alpha) L_CD

There is no slim net to cross over to: the frozen codes are the live ones, z_hat = z. The
diagonal of each auto-correlation is one and drops out, so L_CD only decorrelates the features
of each view; the first term is Barlow Twins, SACL with f_s = f.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field
from torch import Tensor, nn

from edgessl.methods import base
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import HOST, Sliced


class Options(base.BarlowOptions):
    """Options of ``xd``."""

    alpha: float = Field(default=0.95, ge=0, le=1, description="weight of the contrast against XD")


class Xd(nn.Module):
    """Contrast two views and decorrelate each. Cost 6 S."""

    Options = Options
    views = 2

    def __init__(self, encoder: Sliced, projector: Sliced, options: Options) -> None:
        super().__init__()
        self.encoder, self.projector, self.options = encoder, projector, options

    @classmethod
    def from_options(cls, encoder: Sliced, features: Mapping[str, Group], options: Options) -> Self:
        """Build the method.

        Raises:
            RecipeInvalid: Host and slim width differ: nothing would train the slim net.
        """
        base.require_one_width(encoder, "xd")
        return cls(encoder, base.sliced_projector(encoder, features, options.projector), options)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``sacl``, ``xd`` and ``total`` for two views (B, 3, H, W)."""
        za, zb = (base.codes(self, x, HOST) for x in views)
        distance, alpha = self.options.distance, self.options.alpha
        sacl = distance(za, zb)
        xd = (distance(za, za.detach()) + distance(zb, zb.detach())) / 2
        return {"sacl": sacl, "xd": xd, "total": alpha * sacl + (1 - alpha) * xd}

    def after_step(self, step: int) -> None:
        """Nothing follows the optimiser."""

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

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from edgessl.methods import base
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Options(base.BarlowOptions):
    """Options of ``xd``."""

    alpha: float = Field(default=0.95, ge=0, le=1, description="weight of the contrast against XD")


class Xd(base.Method):
    """Contrast two views and decorrelate each. Cost 6 S."""

    Options = Options

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "xd")
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``sacl``, ``xd`` and ``total`` for two views (B, 3, H, W)."""
        za, zb = (base.codes(self, x, HOST) for x in views)
        distance, alpha = self.options.distance, self.options.alpha
        sacl = distance(za, zb)
        xd = (distance(za, za.detach()) + distance(zb, zb.detach())) / 2
        return {"sacl": sacl, "xd": xd, "total": alpha * sacl + (1 - alpha) * xd}

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

from torch import Tensor

from edgessl.methods import base
from edgessl.methods.cross import CrossOptions, Frozen
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Xd(base.Method):
    """Contrast two views and decorrelate each. Cost 6 S."""

    Options = CrossOptions

    def __init__(self, parts: base.Parts, options: CrossOptions) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "xd")
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)
        self.frozen = Frozen(self.encoder, self.projector, options)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``sacl``, ``xd`` and ``total`` for two views (B, 3, H, W)."""
        xa, xb = views
        za, zb = base.codes(self, xa, HOST), base.codes(self, xb, HOST)
        za_hat, zb_hat = self.frozen.crossed(self, xa, xb, za, {HOST: zb})
        sacl = self.options.distance(za, zb)
        xd = (self.options.distil(za, za_hat[HOST]) + self.options.distil(zb, zb_hat)) / 2
        return {"sacl": sacl, "xd": xd, "total": self.options.mixed(sacl, xd)}

    def after_step(self, step: int) -> None:  # noqa: ARG002
        """Move the frozen copy, if there is one."""
        self.frozen.follow(self)

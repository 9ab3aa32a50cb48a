"""SACL+XD: slimmed asymmetrical contrastive learning with cross distillation.

Source: Meng et al., "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for
Lightweight Model Training", NeurIPS 2023 (talk and abstract; no reference code exists).

    z^A = P(f(X^A))        z^B = P(f_s(X^B))                  host and slim, with gradient
    z_hat^A = P(f_s(X^A))  z_hat^B = P(f(X^B))                the same weights, frozen
    L_SACL = BT(z^A, z^B)
    L_CD   = 1/2 [BT(z^A, sg z_hat^A) + BT(z^B, sg z_hat^B)]
    L      = alpha L_SACL + (1 - alpha) L_CD

"Frozen" means: current weights, no gradient, BatchNorm on batch statistics, running
statistics untouched. At 1x (f_s = f) z_hat equals z, so the frozen passes are not run. With
several slim nets both losses are means over them; the host passes are shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from edgessl.methods import base
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Options(base.BarlowOptions):
    """Options of ``sacl-xd``."""

    alpha: float = Field(default=0.95, ge=0, le=1, description="weight of SACL against XD")


class SaclXd(base.Method):
    """Contrast a host with its own slices, distil each into the other. Cost 4 H + 4 S."""

    Options = Options

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``sacl``, ``xd`` and ``total`` for two views (B, 3, H, W)."""
        xa, xb = views
        slims = self.encoder.labels
        za = base.codes(self, xa, HOST)
        zb = {s: base.codes(self, xb, s) for s in slims}
        if self.encoder.is_dense:
            za_hat = {s: za.detach() for s in slims}
            zb_hat = zb[slims[0]].detach()
        else:
            with torch.no_grad():
                za_hat = {s: base.codes(self, xa, s, frozen=True) for s in slims}
                zb_hat = base.codes(self, xb, HOST, frozen=True)
        distance, alpha = self.options.distance, self.options.alpha
        sacl = torch.stack([distance(za, zb[s]) for s in slims]).mean()
        xd = torch.stack([distance(za, za_hat[s]) + distance(zb[s], zb_hat) for s in slims]).mean()
        xd = xd / 2
        return {"sacl": sacl, "xd": xd, "total": alpha * sacl + (1 - alpha) * xd}

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

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from edgessl.methods import base
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import HOST, Sliced


class Options(base.BarlowOptions):
    """Options of ``sacl-xd``."""

    alpha: float = Field(default=0.95, ge=0, le=1, description="weight of SACL against XD")


class SaclXd(nn.Module):
    """Contrast a host with its own slices, distil each into the other. Cost 4 H + 4 S."""

    Options = Options
    views = 2

    def __init__(self, encoder: Sliced, projector: Sliced, options: Options) -> None:
        super().__init__()
        self.encoder, self.projector, self.options = encoder, projector, options

    @classmethod
    def from_options(cls, encoder: Sliced, features: Mapping[str, Group], options: Options) -> Self:
        """Build the method; the projector is shared and reads the kept features."""
        return cls(encoder, base.sliced_projector(encoder, features, options.projector), options)

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

    def after_step(self, step: int) -> None:
        """Nothing follows the optimiser."""

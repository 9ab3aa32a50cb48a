"""SACL: slimmed asymmetrical contrastive learning, without cross distillation.

Source: Meng et al., "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for
Lightweight Model Training", NeurIPS 2023 (talk and abstract; no reference code exists).

    z^A = P(f(X^A))    z^B = P(f_s(X^B))    host and slim, with gradient
    L   = BT(z^A, z^B)

Gradient flows through both passes into the shared weights: what the slim net keeps receives the
sum of both, the rest the host's. With several slim nets the loss is the mean over them and the
host pass is shared; at 1x (f_s = f) it is Barlow Twins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgessl.methods import base
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Sacl(base.Method):
    """Contrast a host with its own slices. Cost 3 H + 3 S."""

    Options = base.BarlowOptions

    def __init__(self, parts: base.Parts, options: base.BarlowOptions) -> None:
        super().__init__()
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        xa, xb = views
        za = base.codes(self, xa, HOST)
        zb = [base.codes(self, xb, slim) for slim in self.encoder.labels]
        return {"total": torch.stack([self.options.distance(za, z) for z in zb]).mean()}

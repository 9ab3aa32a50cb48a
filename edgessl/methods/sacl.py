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

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from edgessl.methods import base
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import HOST, Sliced


class Sacl(nn.Module):
    """Contrast a host with its own slices. Cost 3 H + 3 S."""

    Options = base.BarlowOptions
    views = 2

    def __init__(self, encoder: Sliced, projector: Sliced, options: base.BarlowOptions) -> None:
        super().__init__()
        self.encoder, self.projector, self.options = encoder, projector, options

    @classmethod
    def from_options(
        cls, encoder: Sliced, features: Mapping[str, Group], options: base.BarlowOptions
    ) -> Self:
        """Build the method; the projector is shared and reads the kept features."""
        return cls(encoder, base.sliced_projector(encoder, features, options.projector), options)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W)."""
        xa, xb = views
        za = base.codes(self, xa, HOST)
        zb = [base.codes(self, xb, slim) for slim in self.encoder.labels]
        return {"total": torch.stack([self.options.distance(za, z) for z in zb]).mean()}

    def after_step(self, step: int) -> None:
        """Nothing follows the optimiser."""

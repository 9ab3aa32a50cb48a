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
from typing import Any

from torch import Tensor

from edgessl.methods import base
from edgessl.methods.course import Course, SlimOptions
from edgessl.methods.local_crops import local_term
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Sacl(base.Method):
    """Contrast a host with its own slices. Cost 3 H + 3 S."""

    Options = SlimOptions
    takes_local = True

    def __init__(self, parts: base.Parts, options: SlimOptions) -> None:
        super().__init__()
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)
        self.course = Course(parts, options, [(self.encoder, self.projector)])

    def begin(self, schedule: base.Schedule) -> None:
        """Go on where the training stopped."""
        self.course.begin(schedule)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W).

        Local crops may follow them; then there are ``sacl`` and ``local`` too.
        """
        mean, slims = self.course.mean, self.course.slims
        xa, xb, crops = self.course.routed(views)
        za = base.codes(self, xa, HOST)
        zb = {s: base.codes(self, xb, s) for s in slims}
        sacl = mean({s: self.options.distance(za, zb[s]) for s in slims})
        if not crops:
            return {"total": sacl}
        local = mean({s: local_term(self, crops, s, (za,)) for s in slims})
        total = sacl + self.options.local_weight * local
        return {"sacl": sacl, "local": local, "total": total}

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Move what changes in the course of a training."""
        return self.course.after_step(step)

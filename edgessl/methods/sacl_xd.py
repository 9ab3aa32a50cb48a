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
from typing import Any

from torch import Tensor

from edgessl.methods import base
from edgessl.methods.course import Course, SlimOptions
from edgessl.methods.cross import CrossOptions, Frozen
from edgessl.methods.local_crops import local_term
from edgessl.methods.projectors import sliced_projector
from edgessl.slimming.sliced import HOST


class Options(SlimOptions, CrossOptions):
    """Options of ``sacl-xd``."""


class SaclXd(base.Method):
    """Contrast a host with its own slices, distil each into the other. Cost 4 H + 4 S."""

    Options = Options
    takes_local = True

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        self.encoder, self.options = parts.encoder, options
        self.projector = sliced_projector(parts, options.projector)
        self.frozen = Frozen(self.encoder, self.projector, options)
        self.course = Course(parts, options, [(self.encoder, self.projector), *self.frozen.copies])

    def begin(self, schedule: base.Schedule) -> None:
        """Go on where the training stopped."""
        self.course.begin(schedule)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``sacl``, ``xd`` and ``total`` for two views (B, 3, H, W).

        Local crops may follow them; they add ``local``.
        """
        options, mean = self.options, self.course.mean
        xa, xb, crops = self.course.routed(views)
        slims = self.course.slims
        za = base.codes(self, xa, HOST)
        zb = {s: base.codes(self, xb, s) for s in slims}
        za_hat, zb_hat = self.frozen.crossed(self, xa, xb, za, zb)
        sacl = mean({s: options.distance(za, zb[s]) for s in slims})
        xd_a = {s: options.distil(za, za_hat[s]) for s in slims}
        xd_b = {s: options.distil(zb[s], zb_hat) for s in slims}
        xd = mean({s: (xd_a[s] + xd_b[s]) / 2 for s in slims})
        terms = {"sacl": sacl, "xd": xd, "total": options.mixed(sacl, xd)}
        if crops:
            local = mean({s: local_term(self, crops, s, (za, zb_hat)) for s in slims})
            terms |= {"local": local, "total": terms["total"] + options.local_weight * local}
        return terms

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Move the frozen copy and what changes in the course of a training."""
        self.frozen.follow(self)
        return self.course.after_step(step)

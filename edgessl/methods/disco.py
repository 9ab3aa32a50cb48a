"""DisCo (arXiv:2104.09124): MoCo-v2 on a student whose embedding also has to be its teacher's.

    s^v = g(f(X^v)), with gradient    t^v = g_T(f_T(X^v)), frozen    v = A, B
    k   = g_m(f_m(X^B)), f_m and g_m a momentum copy of the student ("mean student")
    L   = w_0 InfoNCE(s^A, k, Q; tau) + w_A |s^A - t^A|^2 + w_B |s^B - t^B|^2

All codes have unit norm. Only f and g get gradient, from both views. What follows a step is that
of MoCo-v2: the copy moves, and the new keys replace the oldest of Q.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from edgessl.losses.contrastive import info_nce, unit
from edgessl.losses.distillation import Reduce, embedding_distance
from edgessl.methods import base
from edgessl.methods.frozen_teacher import FrozenTeacher, Statistics
from edgessl.methods.keys import Keys
from edgessl.methods.projectors import mlp
from edgessl.slimming.sliced import HOST

Weight = Annotated[float, Field(ge=0)]


class Options(base.Options):
    """Options of ``disco``; the last width of ``projector`` gives way to the teacher's."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.2, gt=0, description="divides the cosines")
    queue: int = Field(
        default=4096,
        gt=0,
        description="keys of other images, 65536 on ImageNet; unless given, at most a quarter of "
        "the images",
    )
    momentum: float = Field(default=0.999, ge=0, le=1, description="of the mean student")
    shuffle_bn: int = Field(
        default=2, ge=1, description="shuffled groups of keys with own batch statistics; 1: none"
    )
    mse_reduce: Reduce = Field(
        default="batchmean", description="of the distillation over the batch; the authors' is sum"
    )
    teacher_bn: Statistics = Field(
        default="running", description="statistics of the teacher's BatchNorms; theirs are batch"
    )
    weights: tuple[Weight, Weight, Weight] = Field(
        default=(1.0, 1.0, 1.0), description="of the contrast, and of the distillation of each view"
    )


class DisCo(base.Method):
    """Contrast with a mean student's keys, and match a frozen teacher. Cost 7 S + 2 T."""

    Options = Options
    least_std = base.LEAST_STD_MLP
    teacher_kind = "frozen"

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "disco")
        self.encoder, self.options = parts.encoder, options
        self.teacher = FrozenTeacher(parts, "disco", bn=options.teacher_bn)
        dim = self.teacher.dimensions
        self.projector = mlp(parts.feature_size, (*options.projector[:-1], dim))
        self.keys = Keys(
            self.encoder, self.projector, size=options.queue, dim=dim,
            groups=options.shuffle_bn, seed=parts.seed,
        )  # fmt: skip
        self.step, self.new_keys = 0, self.keys.latest_KD

    def begin(self, schedule: base.Schedule) -> None:
        """Go on shuffling where the training stopped."""
        self.step = schedule.done

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``contrast``, ``distillation`` and ``total`` for two views (B, 3, H, W)."""
        options, (xa, xb) = self.options, views
        sa, sb = (self.projector(self.encoder(x, width=HOST)) for x in (xa, xb))
        self.new_keys = key = self.keys(xb, self.step)
        contrast = info_nce(unit(sa), key, self.keys.latest_KD, options.temperature)
        far_a, far_b = (
            embedding_distance(s, self.teacher(x), options.mse_reduce)
            for s, x in ((sa, xa), (sb, xb))
        )
        own, weight_a, weight_b = options.weights
        distillation = weight_a * far_a + weight_b * far_b
        total = own * contrast + distillation
        return {"contrast": contrast, "distillation": distillation, "total": total}

    def after_step(self, step: int) -> None:
        """Move the mean student and enqueue the new keys."""
        self.keys.advance(self.encoder, self.projector, self.options.momentum, self.new_keys)
        self.step = step

"""SEED (arXiv:2101.04731): see images as alike as a trained teacher does.

    s = g(f(X)), with gradient    t = g_T(f_T(X)), frozen; one view, both of unit norm
    p^T = softmax([t . t ; t . Q] / tau_T)    p^S = softmax([s . t ; s . Q] / tau_S)
    L   = - mean over the batch of sum_j p^T_j log p^S_j

Q holds the latest K codes of the teacher, of other images; after each step t replaces the oldest.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from edgessl.losses.contrastive import unit
from edgessl.losses.distillation import similarity_distillation
from edgessl.methods import base
from edgessl.methods.frozen_teacher import FrozenTeacher
from edgessl.methods.projectors import mlp
from edgessl.methods.queue import Queue
from edgessl.slimming.sliced import HOST


class Options(base.Options):
    """Options of ``seed``; the last width of ``projector`` gives way to the teacher's."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.2, gt=0, description="of the student, divides cosines")
    teacher_temperature: float = Field(
        default=0.01, gt=0, description="of the teacher; 0.0001 in the authors' code"
    )
    queue: int = Field(
        default=4096,
        gt=0,
        description="codes of other images, 65536 on ImageNet; unless given, at most a quarter of "
        "the images",
    )


class Seed(base.Method):
    """Imitate the similarities that a frozen teacher sees. Cost 3 S + 1 T."""

    Options = Options
    least_std = base.LEAST_STD_MLP
    views = 1
    teacher_kind = "frozen"

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "seed")
        self.encoder, self.options = parts.encoder, options
        self.teacher = FrozenTeacher(parts, "seed")
        dim = self.teacher.dimensions
        self.projector = mlp(parts.feature_size, (*options.projector[:-1], dim))
        self.queue = Queue(options.queue, dim, seed=parts.seed)
        self.new_codes = self.queue.latest_KD

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for one view (B, 3, H, W)."""
        (x,) = views
        s = unit(self.projector(self.encoder(x, width=HOST)))
        self.new_codes = t = self.teacher(x)
        loss = similarity_distillation(
            s, t, self.queue.latest_KD, student_temperature=self.options.temperature,
            teacher_temperature=self.options.teacher_temperature,
        )  # fmt: skip
        return {"total": loss}

    def after_step(self, step: int) -> None:
        """Enqueue the teacher's codes."""
        del step
        self.queue.push(self.new_codes)

"""SSL-Small (Shi et al., arXiv:2107.14762): MoCo-v2 with a recipe for small nets.

    q = g(f(X^A)), with gradient    k = g_m(f_m(X^B)), f_m and g_m a momentum copy
    L = InfoNCE(q, k, Q; tau)       sharper tau, wider g, stronger views (preset ``ssl_small``)

f may begin with a few epochs of SEED, which need a trained teacher. The projector of SEED is then
left behind, f_m becomes f again, the optimiser forgets, and training goes on without the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from edgessl.core.errors import RecipeInvalid
from edgessl.cost.training import Passes
from edgessl.losses.contrastive import info_nce, unit
from edgessl.losses.distillation import similarity_distillation
from edgessl.methods import base, momentum_contrast
from edgessl.methods.frozen_teacher import FrozenTeacher
from edgessl.methods.momentum import follow
from edgessl.methods.momentum_contrast import contrast, make_keys
from edgessl.methods.projectors import mlp
from edgessl.methods.queue import Queue
from edgessl.slimming.sliced import HOST


class Options(momentum_contrast.Options):
    """Options of ``ssl-small``."""

    projector: base.Projector = (2560, 128)
    temperature: float = Field(default=0.1, gt=0, description="divides the cosines")
    init: Literal["random", "seed"] = Field(
        default="random", description="seed: begin with SEED, taught by pretrain.teacher"
    )
    warm_epochs: int = Field(
        default=5, gt=0, description="epochs of SEED; the authors' number is not known"
    )
    student_temperature: float = Field(
        default=0.2, gt=0, description="SEED: of the student, divides the cosines"
    )
    teacher_temperature: float = Field(default=0.01, gt=0, description="SEED: of the teacher")

    def early(self, usual: Passes) -> tuple[int, Passes]:  # noqa: ARG002 - its own phase
        """Count the warm start: SEED's one view."""
        return (self.warm_epochs if self.init == "seed" else 0), Passes(None, None, 3, teacher=1)


class SslSmall(base.Method):
    """Contrast queries with a queue of keys, maybe after SEED. Cost 4 S."""

    Options = Options
    least_std = base.LEAST_STD_MLP
    teacher_kind = "optional"

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "ssl-small")
        if parts.teacher is not None and options.init == "random":
            raise RecipeInvalid(
                "ssl-small asks a teacher only where it begins with SEED, and "
                "pretrain.options.init is random",
                hint="add --set pretrain.options.init=seed, or leave the teacher out",
            )
        self.encoder, self.options = parts.encoder, options
        self.head = mlp(parts.feature_size, options.projector)
        self.keys = make_keys(parts, self.head, options)
        self.warm = WarmStart(parts, options) if options.init == "seed" else None
        self.schedule, self.warm_steps = base.Schedule(1, 1), 0  # until the plan is known
        self.step, self.new_keys = 0, self.keys.latest_KD

    @property
    def projector(self) -> nn.Sequential:
        """What the loss of this step sees of the features."""
        return self.head if self.warming is None else self.warming.projector

    @property
    def warming(self) -> WarmStart | None:
        """What this step trains by, if it is not yet the contrast."""
        return self.warm if self.step < self.warm_steps else None

    def begin(self, schedule: base.Schedule) -> None:
        """Go on where the training stopped.

        Raises:
            RecipeInvalid: Nothing is left after the warm start.
        """
        self.schedule, self.step = schedule, schedule.done
        if self.warm is not None:
            self.warm_steps = self.options.warm_epochs * schedule.steps_per_epoch
        if self.warm_steps >= schedule.steps:
            raise RecipeInvalid(
                f"pretrain.options.warm_epochs is {self.options.warm_epochs}, but the training "
                f"has {schedule.steps // schedule.steps_per_epoch} epochs: SEED would be all of it",
                hint="fewer warm epochs, or more of all (pretrain.epochs, pretrain.max_seconds)",
            )

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``total`` for two views (B, 3, H, W), and ``seed``, the same, of a warm start."""
        if self.warming is not None:
            features = self.encoder(views[0], width=HOST)
            seed = self.warming(features, views[0])
            return {"seed": seed, "total": seed}
        tau, symmetric = self.options.temperature, self.options.symmetric
        total, self.new_keys = contrast(
            self, views, lambda q, k, queue: info_nce(q, k, queue, tau), symmetric=symmetric
        )
        return {"total": total}

    def after_step(self, step: int) -> None:
        """Move the key encoder and enqueue the new keys; or those of the teacher."""
        if self.warming is None:
            m = self.options.momentum_after(step, self.schedule)
            self.keys.advance(self.encoder, self.projector, m, self.new_keys)
        else:
            self.warming.queue.push(self.warming.new_codes)
            if step == self.warm_steps:  # g and its copy have not moved
                follow(self.keys.encoder, self.encoder, 0.0)
                if self.schedule.optimizer is not None:
                    self.schedule.optimizer.state.clear()
        self.step = step


class WarmStart(nn.Module):
    """SEED with a projector and a queue of its own (see :mod:`edgessl.methods.seed`)."""

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        self.options, self.teacher = options, FrozenTeacher(parts, "ssl-small")
        dim = self.teacher.dimensions
        self.projector = mlp(parts.feature_size, (*options.projector[:-1], dim))
        self.queue = Queue(options.queue, dim, seed=parts.seed)
        self.new_codes = self.queue.latest_KD

    def forward(self, features_BF: Tensor, x_BCHW: Tensor) -> Tensor:
        """Return the loss of the features of a view."""
        s, self.new_codes = unit(self.projector(features_BF)), self.teacher(x_BCHW)
        return similarity_distillation(
            s, self.new_codes, self.queue.latest_KD,
            student_temperature=self.options.student_temperature,
            teacher_temperature=self.options.teacher_temperature,
        )  # fmt: skip

"""ReKD style: an online teacher says which images are related, the student pulls them together.

After Zheng et al., "ReKD" (AAAI 2022, arXiv:2112.04174). A reconstruction: no code is public and
the formulas below are ours; only the structure is the paper's.

    teacher   L_T = InfoNCE(q_T, k_T, Q_T; tau), a larger net that trains along
    groups    a(x) = argmax over prototypes of W k_T(x); W follows the keys assigned to it
    student   L_S = InfoNCE(q, k, Q; tau)
    relation  L_R = mean over {own key} and {keys of Q in the same group} of their cross-entropy
    L = L_T + L_S + lambda L_R      L_R after a warm-up, when the groups mean something

No gradient crosses from one net to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from edgessl.core.errors import RecipeInvalid
from edgessl.losses.contrastive import info_nce, unit
from edgessl.losses.relation import related_nce
from edgessl.methods import base
from edgessl.methods.keys import Keys
from edgessl.methods.projectors import mlp


class Options(base.Options):
    """Options of ``rekd-style``."""

    projector: base.Projector = (2048, 128)
    temperature: float = Field(default=0.2, gt=0, description="divides the cosines")
    queue: int = Field(
        default=4096,
        gt=0,
        description="keys of other images, 16384 on ImageNet; unless given, at most a quarter of "
        "the images",
    )
    momentum: float = Field(default=0.999, ge=0, le=1, description="of both key encoders")
    shuffle_bn: int = Field(default=2, ge=1, description="shuffled groups of keys; 1: none")
    prototypes: int = Field(default=256, gt=1, description="groups of images; 3000 on ImageNet")
    prototype_momentum: float = Field(default=0.99, ge=0, le=1, description="of the prototypes")
    relation_weight: float = Field(default=1.0, ge=0, description="lambda, of the relation term")
    relation_from: int = Field(default=10, ge=0, description="epochs without the relation term")


class RekdStyle(base.Method):
    """Momentum contrast of two nets, and the teacher's groups for the student. Cost 4 S + 4 T."""

    Options = Options
    least_std = base.LEAST_STD_MLP
    teacher_kind = "online"
    prototypes_MD: Tensor
    groups_K: Tensor

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "rekd-style")
        larger = base.require_teacher(parts, "rekd-style")
        self.encoder, self.options = parts.encoder, options
        self.projector = mlp(parts.feature_size, options.projector)
        self.teacher = larger.network
        self.teacher_projector = mlp(larger.features, options.projector)
        about = {"size": options.queue, "dim": options.projector[-1], "seed": parts.seed}
        self.keys = Keys(self.encoder, self.projector, groups=options.shuffle_bn, **about)
        self.teacher_keys = Keys(
            self.teacher, self.teacher_projector, groups=options.shuffle_bn, **about
        )
        random = torch.Generator().manual_seed(parts.seed + 1)
        w = torch.randn(options.prototypes, options.projector[-1], generator=random)
        self.register_buffer("prototypes_MD", F.normalize(w, dim=1))
        self.register_buffer("groups_K", torch.full((options.queue,), -1))
        self.step, self.relation_step = 0, 0
        nothing = self.keys.latest_KD
        self.fresh = (nothing, nothing, torch.zeros(0, dtype=torch.int64))

    def begin(self, schedule: base.Schedule) -> None:
        """Turn epochs into steps.

        Raises:
            RecipeInvalid: The relation term would never begin.
        """
        self.step = schedule.done
        self.relation_step = self.options.relation_from * schedule.steps_per_epoch
        if self.relation_step >= schedule.steps:
            raise RecipeInvalid(
                f"pretrain.options.relation_from is {self.options.relation_from}, but the training "
                f"has {schedule.steps // schedule.steps_per_epoch} epochs: the teacher would teach "
                "nothing",
                hint="a lower one, or more epochs (pretrain.epochs, pretrain.max_seconds)",
            )

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``teacher``, ``student``, ``relation`` and ``total`` for two views."""
        xa, xb = views
        tau = self.options.temperature
        q_teacher = unit(self.teacher_projector(self.teacher(xa)))
        k_teacher = self.teacher_keys(xb, self.step)
        q = unit(self.projector(base.host_features(self.encoder, xa)))
        k = self.keys(xb, self.step)
        group = (k_teacher @ self.prototypes_MD.T.to(k_teacher.dtype)).argmax(1)
        terms = {
            "teacher": info_nce(q_teacher, k_teacher, self.teacher_keys.latest_KD, tau),
            "student": info_nce(q, k, self.keys.latest_KD, tau),
        }
        total = terms["teacher"] + terms["student"]
        if self.step >= self.relation_step:
            groups = (group, self.groups_K[: len(self.keys.latest_KD)])
            terms["relation"] = related_nce(q, k, self.keys.latest_KD, groups, tau)
            total = total + self.options.relation_weight * terms["relation"]
        self.fresh = (k, k_teacher, group)
        return {**terms, "total": total}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move both key encoders, enqueue keys with their groups, and move the prototypes."""
        k, k_teacher, group = self.fresh
        m = self.options.momentum
        places = self.keys.advance(self.encoder, self.projector, m, k)
        self.groups_K[places] = group[-len(places) :]
        self.teacher_keys.advance(self.teacher, self.teacher_projector, m, k_teacher)
        self._move_prototypes(k_teacher, group)
        self.step = step

    def _move_prototypes(self, keys_BD: Tensor, group_B: Tensor) -> None:
        """Draw each prototype towards the mean of the keys that were assigned to it."""
        member_MB = F.one_hot(group_B, len(self.prototypes_MD)).T.to(keys_BD.dtype)
        count_M1 = member_MB.sum(1, keepdim=True)
        mean_MD = member_MB @ keys_BD / count_M1.clamp(min=1)
        beta = self.options.prototype_momentum
        moved_MD = F.normalize(beta * self.prototypes_MD + (1 - beta) * mean_MD, dim=1)
        self.prototypes_MD.copy_(torch.where(count_M1 > 0, moved_MD, self.prototypes_MD))

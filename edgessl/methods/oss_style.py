"""OSS style: an online teacher that clusters images, and a student that imitates its clusters.

After Choi et al., "Unsupervised Representation Transfer for Small Networks" (NeurIPS 2021). A
reconstruction from the abstract: no code is public and the formulas below are ours. The views
that the paper's networks generate themselves are left out.

    codes     q^v = Sinkhorn(t^v W^T / 0.05)    p^v = softmax(z^v W^T / 0.1), all of unit norm
    teacher   L_T = CE(q^A, p_T^B) + CE(q^B, p_T^A)
    student   L_S = CE(sg p_T^A, p_S^A) + CE(sg p_T^B, p_S^B)
    domain    L_D = a classifier tells whose embedding it sees; both nets get its reversed gradient
    L = L_T + L_S + 0.1 L_D         the teacher and the prototypes W get no gradient from L_S
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from edgessl.losses.clustering import cross_entropy, reversed_gradient, sinkhorn
from edgessl.losses.contrastive import unit
from edgessl.methods import base
from edgessl.methods.projectors import mlp, projector
from edgessl.methods.queue import Queue


class Options(base.Options):
    """Options of ``oss-style``."""

    negatives_in_queue: ClassVar[bool] = False
    projector: base.Projector = (2048, 128)
    prototypes: int = Field(default=256, gt=1, description="clusters; 3000 on ImageNet")
    sharpness: float = Field(default=0.05, gt=0, description="regularisation of Sinkhorn")
    iterations: int = Field(default=3, gt=0, description="of Sinkhorn")
    temperature: float = Field(default=0.1, gt=0, description="of the predictions")
    domain_weight: float = Field(default=0.1, ge=0, description="of the domain classifier's term")
    queue: int = Field(
        default=3840, ge=0, description="earlier embeddings of each view that help to balance"
    )
    queue_from: int = Field(default=15, ge=0, description="epochs before the queue is used")


class OssStyle(base.Method):
    """Cluster with a teacher and imitate its clusters. Cost 6 S + 6 T."""

    Options = Options
    teacher_kind = "online"

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "oss-style")
        larger = base.require_teacher(parts, "oss-style")
        self.encoder, self.options = parts.encoder, options
        dim = options.projector[-1]
        self.projector = projector(parts.feature_size, options.projector)
        self.teacher = larger.network
        self.teacher_projector = projector(larger.features, options.projector)
        self.prototypes = nn.Linear(dim, options.prototypes, bias=False)
        self.domain = mlp(dim, (dim, 1))
        self.queues = nn.ModuleList(
            Queue(options.queue, dim, seed=parts.seed + v) for v in range(2 if options.queue else 0)
        )
        self.step, self.queue_step = 0, 0
        self.fresh = [torch.zeros(0, dim), torch.zeros(0, dim)]

    def begin(self, schedule: base.Schedule) -> None:
        """Turn epochs into steps."""
        self.step = schedule.done
        self.queue_step = self.options.queue_from * schedule.steps_per_epoch

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``teacher``, ``student``, ``domain`` and ``total`` for two views."""
        t = [unit(self.teacher_projector(self.teacher(x))) for x in views]
        s = [unit(self.projector(base.host_features(self.encoder, x))) for x in views]
        w_MD = F.normalize(self.prototypes.weight, dim=1)
        tau = self.options.temperature
        teacher = [z @ w_MD.T / tau for z in t]
        student = [z @ w_MD.detach().T / tau for z in s]
        codes = [self.codes(z, w_MD, view) for view, z in enumerate(t)]
        terms = {
            "teacher": cross_entropy(codes[0], teacher[1]) + cross_entropy(codes[1], teacher[0]),
            "student": cross_entropy(teacher[0].softmax(1), student[0])
            + cross_entropy(teacher[1].softmax(1), student[1]),
            "domain": self.domain_loss(torch.cat(t), torch.cat(s)),
        }
        self.fresh = [z.detach() for z in t]
        total = terms["teacher"] + terms["student"] + self.options.domain_weight * terms["domain"]
        return {**terms, "total": total}

    @torch.no_grad()
    def codes(self, z_BD: Tensor, prototypes_MD: Tensor, view: int) -> Tensor:
        """Return the balanced assignments (B, M) of a batch, earlier embeddings beside it."""
        rows = z_BD
        if self.queues and self.step >= self.queue_step:
            queue = self.queues[view]
            assert isinstance(queue, Queue)
            rows = torch.cat([z_BD, queue.latest_KD.to(z_BD.dtype)])
        scores = rows @ prototypes_MD.T / self.options.sharpness
        return sinkhorn(scores, iterations=self.options.iterations)[: len(z_BD)]

    def domain_loss(self, teacher_BD: Tensor, student_BD: Tensor) -> Tensor:
        """Binary cross-entropy of telling the two nets apart; its gradient is reversed."""
        logits = self.domain(reversed_gradient(torch.cat([teacher_BD, student_BD])))[:, 0]
        whose = torch.cat([torch.ones(len(teacher_BD)), torch.zeros(len(student_BD))])
        return F.binary_cross_entropy_with_logits(logits, whose.to(logits))

    def after_step(self, step: int) -> None:
        """Keep the teacher's embeddings for later balances."""
        for queue, z_BD in zip(self.queues, self.fresh, strict=False):
            queue.push(z_BD)  # type: ignore[operator]
        self.step = step

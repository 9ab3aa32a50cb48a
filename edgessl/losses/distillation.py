"""A student learns from what a teacher makes of the same views.

Shapes: B batch, D embedding, K codes of other images. The teacher's side gets no gradient. Half
precision is computed in float32.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from edgessl.losses.contrastive import similarities, unit

Reduce = Literal["sum", "batchmean"]


def similarity_distillation(
    student_BD: Tensor,
    teacher_BD: Tensor,
    queue_KD: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Cross-entropy between two distributions over the teacher's code and a queue of others.

    p^T = softmax([t . t ; t . Q] / tau_T) is the target of p^S = softmax([s . t ; s . Q] / tau_S).
    Source: SEED (arXiv:2101.04731). For tau_T -> 0 the target is the own code
    alone, and the loss is InfoNCE with the teacher's codes as keys.

    Args:
        student_BD: Of unit norm.
        teacher_BD: Of the same views, of unit norm.
        queue_KD: Teacher's codes of other images, of unit norm.
        student_temperature: tau_S, above 0.
        teacher_temperature: tau_T, above 0.

    Returns:
        Scalar, the mean over the batch.
    """
    teacher_BD, queue_KD = teacher_BD.detach(), queue_KD.detach()
    wanted = similarities(teacher_BD, teacher_BD, queue_KD, teacher_temperature).softmax(1)
    found = similarities(student_BD, teacher_BD, queue_KD, student_temperature).log_softmax(1)
    return -(wanted * found).sum(1).mean()


def embedding_distance(student_BD: Tensor, teacher_BD: Tensor, reduce: Reduce) -> Tensor:
    """|s - t|^2 of the embeddings at unit length, 2 - 2 cos(s, t): 0 to 4 for an image.

    Source: DisCo (arXiv:2104.09124), whose code sums over the batch.

    Args:
        student_BD: Of any length.
        teacher_BD: Of the same views.
        reduce: ``sum`` over the batch, or its mean, ``batchmean``.

    Returns:
        Scalar.
    """
    squares_B = (unit(student_BD) - unit(teacher_BD.detach())).square().sum(1)
    return squares_B.sum() if reduce == "sum" else squares_B.mean()

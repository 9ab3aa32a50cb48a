"""Clusters as targets: balanced assignments, cross-entropies, and a gradient that is reversed.

Shapes: N images, M prototypes, D embedding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores_NM: Tensor, *, iterations: int) -> Tensor:
    """Assign images to prototypes softly, so that every prototype gets about N / M of them.

    Source: SwAV, arXiv:2006.09882, section 3.1, computed with logarithms. The scores are already
    divided by the regularisation.

    Args:
        scores_NM: Similarities; half precision is computed in float32.
        iterations: Of normalising the columns and then the rows; 3 in SwAV.

    Returns:
        (N, M), rows sum to 1.
    """
    log_q = scores_NM if scores_NM.dtype == torch.float64 else scores_NM.float()
    n, m = log_q.shape
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True) + math.log(n / m)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


def cross_entropy(target_NM: Tensor, logits_NM: Tensor) -> Tensor:
    """-mean_n sum_m target log softmax(logits); never below the entropy of the target.

    Args:
        target_NM: Rows sum to 1; no gradient flows into them.
        logits_NM: Same shape.
    """
    return -(target_NM.detach() * logits_NM.log_softmax(1)).sum(1).mean()


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004  (the signature of autograd)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return -gradients[0]


def reversed_gradient(x: Tensor) -> Tensor:
    """Return ``x``; the gradient that flows back is negated (arXiv:1409.7495)."""
    return _Reversed.apply(x)  # type: ignore[return-value]

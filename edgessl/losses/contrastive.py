"""Instance discrimination: each image is a class of its own.

Shapes: B batch, D embedding, K keys of other images. Half precision is computed in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgessl.losses.precision import full_precision


def unit(z_BD: Tensor) -> Tensor:
    """Scale every row to length 1, in float32 (float64 for float64 embeddings)."""
    return F.normalize(z_BD if z_BD.dtype == torch.float64 else z_BD.float(), dim=1)


def similarities(query_BD: Tensor, key_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """[q . k+ ; q . Q] / temperature: (B, 1 + K), the positive first.

    Args:
        query_BD: Of unit norm.
        key_BD: The key that belongs to each query, of unit norm.
        queue_KD: Keys of other images, of unit norm.
        temperature: Above 0.
    """
    positive_B1 = (query_BD * key_BD).sum(1, keepdim=True)
    with full_precision(query_BD):
        others_BK = query_BD @ queue_KD.T.to(query_BD.dtype)
    return torch.cat([positive_B1, others_BK], 1) / temperature


def info_nce(query_BD: Tensor, key_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the own key among those of a queue (MoCo, arXiv:1911.05722, eq. 1).

    Arguments are those of :func:`similarities`.

    Returns:
        Scalar, the mean over the batch.
    """
    logits = similarities(query_BD, key_BD, queue_KD, temperature)
    return -logits.log_softmax(1)[:, 0].mean()


def soft_nce(
    query_BD: Tensor,
    key_BD: Tensor,
    queue_KD: Tensor,
    temperature: float,
    *,
    smoothing: float,
    hardest: int,
) -> Tensor:
    """Cross-entropy to a target that is shared with the most similar keys of the queue.

    The own key gets 1 - ``smoothing``, each of the ``hardest`` keys that are most similar to the
    query gets ``smoothing / hardest``. Which those are is no part of the gradient.

    Source: SoftNCE of light-MoCo, arXiv:2212.07158. The first four arguments are those of
    :func:`similarities`.

    Args:
        smoothing: In [0, 1); 0 gives :func:`info_nce`.
        hardest: From 1; with fewer keys all of them share.

    Returns:
        Scalar, the mean over the batch.
    """
    log_p = similarities(query_BD, key_BD, queue_KD, temperature).log_softmax(1)
    if not len(queue_KD):
        return -log_p[:, 0].mean()
    hardest_B = log_p[:, 1:].topk(min(hardest, len(queue_KD)), dim=1).values.mean(1)
    return -((1 - smoothing) * log_p[:, 0] + smoothing * hardest_B).mean()


def nt_xent(za_BD: Tensor, zb_BD: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of finding the other view among all views of the batch.

    Source: SimCLR, arXiv:2002.05709, equation 1, averaged over the 2 B views.

    Args:
        za_BD: Embeddings of one view of each image; any length.
        zb_BD: Of the other.
        temperature: Above 0.
    """
    z_2BD = torch.cat([unit(za_BD), unit(zb_BD)])
    with full_precision(z_2BD):
        logits = z_2BD @ z_2BD.T / temperature
    itself = torch.eye(len(logits), dtype=torch.bool, device=z_2BD.device)
    logits = logits.masked_fill(itself, -torch.inf)
    other = torch.arange(len(logits), device=z_2BD.device).roll(len(za_BD))
    return F.cross_entropy(logits, other)

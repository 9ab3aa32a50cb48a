"""Instance discrimination with several positives: all keys that are related to the query.

Shapes: B batch, D embedding, K keys in a queue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgessl.losses.contrastive import similarities


def related_nce(
    query_BD: Tensor,
    key_BD: Tensor,
    queue_KD: Tensor,
    groups: tuple[Tensor, Tensor],
    temperature: float,
) -> Tensor:
    """Mean over images of the mean cross-entropy of the related keys.

    -mean_i 1/|P(i)| sum_{p in P(i)} log softmax([q_i . k_i ; q_i . Q] / tau)_p, where P(i) holds
    the own key and the keys of the queue in the same group.

    Args:
        query_BD: Of unit norm.
        key_BD: The own key of each query, of unit norm.
        queue_KD: Keys of other images, of unit norm.
        groups: Group of each query, int64 (B,), and of each key in the queue, (K,); a key of
            group -1 is related to none.
        temperature: Above 0.

    Returns:
        Scalar. With no related key in the queue it is InfoNCE.
    """
    log_p = similarities(query_BD, key_BD, queue_KD, temperature).log_softmax(1)
    of_query_B, of_key_K = groups
    related_BK = of_query_B[:, None] == of_key_K[None, :]
    own_B1 = torch.ones_like(of_query_B, dtype=torch.bool)[:, None]
    positive = torch.cat([own_B1, related_BK & (of_key_K >= 0)], 1).to(log_p.dtype)
    return -((log_p * positive).sum(1) / positive.sum(1)).mean()

"""A queue of the latest keys, which serve as negatives (MoCo, arXiv:1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Queue(nn.Module):
    """The last K keys of unit norm, oldest first to be replaced; part of a checkpoint.

    Args:
        size: K. A batch need not divide it: the place to write at wraps around.
        dim: D.
        seed: Of the random unit vectors that stand in the places that no key has been put into.
    """

    keys_KD: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        keys = F.normalize(torch.randn(size, dim, generator=generator), dim=1)
        self.register_buffer("keys_KD", keys)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def latest_KD(self) -> Tensor:
        """The keys that were pushed; fewer than K until the queue is full."""
        return self.keys_KD[: int(self.filled)]

    @torch.no_grad()
    def push(self, keys_BD: Tensor) -> Tensor:
        """Replace the oldest keys by new ones, which must have unit norm.

        Of more than K new keys the last K stay.

        Returns:
            Where they went: int64, places among the K.
        """
        size = len(self.keys_KD)
        end = int(self.pointer) + len(keys_BD)
        kept = keys_BD[-size:]
        places = torch.arange(end - len(kept), end, device=kept.device) % size
        self.keys_KD[places] = kept.to(self.keys_KD.dtype)
        self.pointer.fill_(end % size)
        self.filled.fill_(min(size, int(self.filled) + len(keys_BD)))
        return places

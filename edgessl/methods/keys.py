"""The key side of momentum contrast: a momentum encoder and the queue of its latest keys.

Source: MoCo, arXiv:1911.05722. Where a whole batch shares its BatchNorm statistics, those of
queries and keys can tell which belong together. Keys are therefore made in shuffled groups with
statistics of their own, which is what the paper's shuffling across GPUs does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgessl.losses.contrastive import unit
from edgessl.methods.base import host_features
from edgessl.methods.momentum import follow, momentum_copy
from edgessl.methods.queue import Queue


class Keys(nn.Module):
    """Makes keys, and keeps the latest of them.

    Args:
        encoder: What trains, a host or a plain network of features; copied.
        projector: What follows it; copied.
        size: K, the keys in the queue.
        dim: D of the projector.
        groups: Shuffled groups of a batch with own batch statistics; 1 does not shuffle.
        seed: Of the first keys and of the shuffling.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        *,
        size: int,
        dim: int,
        groups: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.projector = momentum_copy(encoder), momentum_copy(projector)
        self.queue = Queue(size, dim, seed=seed)
        self.groups, self.seed = groups, seed

    @property
    def latest_KD(self) -> Tensor:
        """The keys in the queue, of unit norm; none before the first step.

        The random vectors that the published code starts with are left out: while they are the
        only negatives, giving all images one direction pays, and small nets stay there.
        """
        return self.queue.latest_KD

    @torch.no_grad()
    def forward(self, x_BCHW: Tensor, step: int) -> Tensor:
        """Return the keys of images, of unit norm: (B, D).

        Args:
            x_BCHW: Images, normalised.
            step: Steps done before: each shuffles anew.
        """
        groups = min(self.groups, len(x_BCHW) // 2)  # a BatchNorm needs two images
        if groups <= 1:
            return unit(self.projector(host_features(self.encoder, x_BCHW)))
        shuffled = np.random.default_rng([self.seed, step]).permutation(len(x_BCHW))
        order = torch.from_numpy(shuffled).to(x_BCHW.device)
        parts = [host_features(self.encoder, x) for x in x_BCHW[order].tensor_split(groups)]
        codes = [self.projector(features) for features in parts]
        return unit(torch.cat(codes)[order.argsort()])

    def advance(
        self, encoder: nn.Module, projector: nn.Module, momentum: float, new_BD: Tensor
    ) -> Tensor:
        """Move the copies towards what trains, and put new keys in the place of the oldest.

        Args:
            encoder: What was copied, after a step.
            projector: Likewise.
            momentum: Of :func:`edgessl.methods.momentum.follow`.
            new_BD: Keys of this step.

        Returns:
            Their places in the queue, as :meth:`edgessl.methods.queue.Queue.push` says.
        """
        follow(self.encoder, encoder, momentum)
        follow(self.projector, projector, momentum)
        return self.queue.push(new_BD)

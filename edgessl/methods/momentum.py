"""Momentum encoders: a second copy of the weights that trails the first."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def momentum_copy(module: Module) -> Module:
    """Return a copy that no optimiser touches; its BatchNorms keep statistics of their own."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move every parameter of ``target``: momentum * target + (1 - momentum) * source.

    Args:
        target: A :func:`momentum_copy`.
        source: What trains.
        momentum: 1 leaves the target alone, 0 copies the source.
    """
    for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
        theirs.lerp_(ours.detach(), 1 - momentum)


def rising_momentum(start: float, progress: float, end: float = 1.0) -> float:
    """End - (end - start) (cos(pi progress) + 1) / 2 (to 1: BYOL, arXiv:2006.07733).

    Args:
        start: Momentum of the first step.
        progress: Share of the training that is done, 0 to 1.
        end: Momentum at the end.
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2

"""Sums over the processes of a training, with the right gradient.

Every process computes the same loss from the sums, and a data-parallel wrapper averages the
gradients of all processes. With a backward that sums too, that average is the gradient that one
process would get on the whole batch; a plain ``all_reduce`` gives it divided by the processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def processes() -> int:
    """Return how many processes train together; 1 without ``torch.distributed``."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum over all processes; every one of them must call it."""
    summed = _Sum.apply(tensor)
    assert isinstance(summed, Tensor)
    return summed


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:  # type: ignore[override]
        return _reduced(tensor)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _reduced(gradient)


def _reduced(tensor: Tensor) -> Tensor:
    summed = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(summed)
    return summed

"""One update: the optimiser of a plan, the gradients of a loss, and their norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from edgessl.training import optimizers
from edgessl.training.plan import Plan

# (module, item indices, epoch) to named scalar terms; ``total`` is differentiated
LossFunction = Callable[[nn.Module, NDArray[np.int64], int], dict[str, Tensor]]


def make_optimizer(module: nn.Module, plan: Plan, lr: float | None = None) -> Optimizer:
    """Build the optimiser of a plan, at another learning rate if one is given."""
    return optimizers.make_optimizer(
        module, plan.optimizer, lr=plan.learning_rate if lr is None else lr,
        weight_decay=plan.weight_decay, lars=plan.lars,
    )  # fmt: skip


def backward(optimizer: Optimizer, terms: Mapping[str, Tensor]) -> None:
    """Put the gradients of ``total`` in place of those of the step before."""
    optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()


def gradient_norm(optimizer: Optimizer) -> float:
    """Return the Euclidean norm of all gradients."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))

"""How many epochs fit into a time budget: a few steps are taken and timed on a throwaway copy."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from edgessl.methods.base import Schedule
from edgessl.training.plan import Plan
from edgessl.training.update import LossFunction, backward, gradient_norm, make_optimizer

# a long run also saves, logs and warms the machine up: it is slower than its first steps
MARGIN = 1.1
LITTLE = 1e-6  # learning rate: the weights stay what they are
WARM, STEPS = 2, 6


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of a step.

    Attributes:
        usual: In most epochs.
        early: In the first epochs, where a method trains otherwise there.
        early_epochs: How many these are.
    """

    usual: float
    early: float = 0.0
    early_epochs: int = 0

    def of(self, plan: Plan) -> float:
        """Return the seconds of all steps of a plan."""
        first = min(self.early_epochs, plan.epochs)
        return plan.steps_per_epoch * (first * self.early + (plan.epochs - first) * self.usual)


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a module does beside its loss; deep-copied with it, so they have to be its own methods.

    Attributes:
        begin: See :attr:`edgessl.training.loop.Job.begin`.
        after_step: See :attr:`edgessl.training.loop.Job.after_step`.
        early_epochs: First epochs that train, and cost, otherwise.
    """

    begin: Callable[[Schedule], None] | None = None
    after_step: Callable[[int], object] | None = None
    early_epochs: int = 0


NO_HOOKS = Hooks()


def fit_to_budget(
    plan: Plan,
    module: nn.Module,
    loss: LossFunction,
    max_seconds: float | None,
    hooks: Hooks = NO_HOOKS,
) -> tuple[Plan, float]:
    """Cut the epochs so that training fits into a time budget, measured on a throwaway copy.

    Returns:
        The plan, unchanged if it fits, and the expected seconds of the whole plan that was wanted
        (0 without a budget).
    """
    if max_seconds is None:
        return plan, 0.0
    last = plan.steps - plan.steps_per_epoch
    usual = _measured(plan, module, loss, hooks, last)
    early_epochs = min(hooks.early_epochs, plan.epochs)
    early = _measured(plan, module, loss, hooks, 0) if early_epochs else 0.0
    step = StepSeconds(MARGIN * usual, MARGIN * early, early_epochs)
    return cut(plan, step, max_seconds), step.of(plan)


def cut(plan: Plan, step: StepSeconds, max_seconds: float | None) -> Plan:
    """Return the plan with as many epochs as fit into ``max_seconds``, at least one.

    Args:
        plan: Wanted.
        step: Seconds per step.
        max_seconds: Budget; None for no limit.
    """
    if max_seconds is None:
        return plan
    shorter = (replace(plan, epochs=n) for n in range(plan.epochs, 1, -1))
    return next((p for p in shorter if step.of(p) <= max_seconds), replace(plan, epochs=1))


def _measured(plan: Plan, module: nn.Module, loss: LossFunction, hooks: Hooks, done: int) -> float:
    """Return the median seconds of a few steps as they are after ``done`` of them."""
    # a copied method belongs to the copy of its module
    trial, begin, after_step = copy.deepcopy((module, hooks.begin, hooks.after_step))
    optimizer = make_optimizer(trial, plan, lr=LITTLE)
    if begin is not None:
        begin(Schedule(plan.steps, plan.steps_per_epoch, done, optimizer))
    took: list[float] = []
    for step in range(min(WARM + STEPS, plan.steps)):
        start = time.perf_counter()
        backward(optimizer, loss(trial, plan.batch_indices(step), 0))
        gradient_norm(optimizer)
        optimizer.step()
        if after_step is not None:
            after_step(done + step + 1)
        took.append(time.perf_counter() - start)
    return float(np.median(took[WARM:] or took))

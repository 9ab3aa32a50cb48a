"""How long the steps of a training take here: measured, a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.core.recipe import Recipe
from edgessl.data.labelled import Labelled
from edgessl.evaluation.finetune import Lessons, MakeViews, classification_loss
from edgessl.stages.pretrain import make_views
from edgessl.training.loop import MARGIN, backward, gradient_norm, make_optimizer
from edgessl.training.plan import Plan

WARM, STEPS = 2, 8
Made = TypeVar("Made")
LONGEST_S = 30.0  # fewer steps when they are slow


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Medians over measured steps, in seconds.

    Attributes:
        views: Making the random views of a batch; in fine-tuning a part of ``model``.
        model: Forward and backward.
        optimizer: The update, with the check of the gradients.
        steps: How many were measured, after two that warmed up.
        state_bytes: Size of a saved state: weights, buffers, optimiser.
    """

    views: float
    model: float
    optimizer: float
    steps: int
    state_bytes: int

    @property
    def step(self) -> float:
        """Seconds of a step in a long run, which also saves, logs and warms the machine up."""
        return MARGIN * (self.views + self.model + self.optimizer)


def pretraining_times(
    recipe: Recipe, spec: InputSpec, method: nn.Module, images: NDArray[np.uint8], plan: Plan
) -> StepTimes:
    """Take a few steps of pretraining with a method that is thrown away afterwards.

    Args:
        recipe: Gives the views.
        spec: Input contract.
        method: On its device; it is changed.
        images: uint8 (N, S, S, 3), a sample of the stored images.
        plan: Gives batch and optimiser.
    """
    device = next(method.parameters()).device
    stored, views = torch.from_numpy(images), make_views(recipe, spec)

    def make(rows: NDArray[np.int64]) -> Sequence[Tensor]:
        return views(stored[torch.from_numpy(rows)].to(device), rows, 0)

    return _times(method, plan, plan.batch, len(images), make, method)


def finetuning_times(
    network: nn.Module, data: Labelled, views: MakeViews, plan: Plan, *, balanced: bool
) -> StepTimes:
    """Take a few steps of fine-tuning with a network that is thrown away afterwards.

    Args:
        network: With a head, on its device; it is changed.
        data: A sample of the labelled images.
        views: One view per image.
        plan: Gives batch and optimiser.
        balanced: As in the recipe.
    """
    device = next(network.parameters()).device
    loss = classification_loss(Lessons(data, views, balanced), device)

    def step(rows: NDArray[np.int64]) -> dict[str, Tensor]:
        return loss(network, rows, 0)

    size = len(plan.batch_indices(0))
    return _times(network, plan, size, len(data.labels), lambda rows: rows, step)


def _times(
    module: nn.Module,
    plan: Plan,
    size: int,
    available: int,
    make: Callable[[NDArray[np.int64]], Made],
    loss: Callable[[Made], dict[str, Tensor]],
) -> StepTimes:
    module.train()
    optimizer = make_optimizer(module, plan, lr=1e-6)
    took: list[tuple[float, float, float]] = []
    began = time.perf_counter()
    while len(took) < WARM + STEPS and (len(took) <= 1 or time.perf_counter() - began < LONGEST_S):
        rows = (np.arange(size) + len(took) * size) % available
        moments = [_now()]
        made = make(rows)
        moments.append(_now())
        backward(optimizer, loss(made))
        moments.append(_now())
        gradient_norm(optimizer)
        optimizer.step()
        moments.append(_now())
        views, model, update = np.diff(moments)
        took.append((views, model, update))
    counted = took[WARM:] or took[-1:]
    views, model, update = (float(x) for x in np.median(np.array(counted), axis=0))
    kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    state_bytes = module_bytes(module) + sum(map(_bytes, kept))
    return StepTimes(views, model, update, len(counted), state_bytes)


def module_bytes(module: nn.Module) -> int:
    """Return the size of a module's weights and buffers."""
    return sum(map(_bytes, module.state_dict().values()))


def pass_seconds(
    network: Callable[[Tensor], Tensor], images: NDArray[np.uint8], spec: InputSpec
) -> float:
    """Return the seconds per image of one forward pass without gradients, the second of two.

    Args:
        network: Images (B, 3, H, W), normalised, to anything, on the best device.
        images: uint8 (B, H, W, 3), one batch.
        spec: Input contract.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds = 0.0
    for _ in range(2):
        start = _now()
        with torch.no_grad():
            network(torch.from_numpy(to_model_input(images, spec)).to(device))
        seconds = _now() - start
    return seconds / len(images)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

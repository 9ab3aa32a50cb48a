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
from edgessl.methods.base import Method, Schedule
from edgessl.stages.memory import Peak, PeakWatch
from edgessl.stages.pretrain import make_views
from edgessl.training.loop import MARGIN, backward, gradient_norm, make_optimizer
from edgessl.training.plan import Plan

WARM, STEPS = 2, 8
SAMPLE = 512  # images that are decoded for measuring, or a batch if that is more
Made = TypeVar("Made")
LONGEST_S = 30.0  # fewer steps when they are slow


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What measured steps took: medians of their parts, in seconds.

    Attributes:
        views: Making the random views of a batch; in fine-tuning a part of ``model``.
        model: Forward and backward.
        optimizer: The update, with the check of the gradients and what the method does after it.
        whole: Of every measured step, after two that warmed up.
        state_bytes: Size of a saved state: weights, buffers, optimiser.
        peak: Memory in use during all of them.
    """

    views: float
    model: float
    optimizer: float
    whole: tuple[float, ...]
    state_bytes: int
    peak: Peak

    @property
    def steps(self) -> int:
        """How many were measured."""
        return len(self.whole)

    @property
    def step(self) -> float:
        """Seconds of a step in a long run, which also saves, logs and warms the machine up."""
        return MARGIN * (self.views + self.model + self.optimizer)


def sampled_rows(images: int, batch: int) -> NDArray[np.int64]:
    """Return which of so many images are decoded to measure steps of ``batch`` images on."""
    n = min(images, max(SAMPLE, batch))
    return np.random.Generator(np.random.PCG64(0)).permutation(images)[:n]


def pretraining_times(
    recipe: Recipe, spec: InputSpec, method: Method, images: NDArray[np.uint8], plan: Plan
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

    def loss(made: Sequence[Tensor]) -> dict[str, Tensor]:
        if not method.uses_labels:
            return method(made)
        return method(made, torch.zeros(len(made[0]), dtype=torch.int64, device=device))

    method.begin(Schedule(plan.steps, plan.steps_per_epoch, 0))
    return _times(method, plan, plan.batch, len(images), make, loss, method.after_step)


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
    after_step: Callable[[int], None] | None = None,
) -> StepTimes:
    with PeakWatch() as memory:
        took, state_bytes = _take_steps(module, plan, size, available, make, loss, after_step)
    counted = np.array(took[WARM:] or took[-1:])
    views, model, update = (float(x) for x in np.median(counted, axis=0))
    whole = tuple(float(x) for x in counted.sum(axis=1))
    return StepTimes(views, model, update, whole, state_bytes, memory.peak)


def _take_steps(
    module: nn.Module,
    plan: Plan,
    size: int,
    available: int,
    make: Callable[[NDArray[np.int64]], Made],
    loss: Callable[[Made], dict[str, Tensor]],
    after_step: Callable[[int], None] | None,
) -> tuple[list[tuple[float, float, float]], int]:
    """Return the seconds of every step's parts, and the size of a saved state."""
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
        if after_step is not None:
            after_step(len(took) + 1)
        moments.append(_now())
        views, model, update = np.diff(moments)
        took.append((views, model, update))
    kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return took, module_bytes(module) + sum(map(_bytes, kept))


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

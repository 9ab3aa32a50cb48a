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
from torch.optim import Optimizer

from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.core.recipe import Recipe
from edgessl.data.labelled import Labelled
from edgessl.evaluation.finetune import Lessons, MakeViews, classification_loss
from edgessl.methods.base import Method, Schedule
from edgessl.stages.memory import Peak, PeakWatch
from edgessl.stages.pretrain import early_epochs, make_views
from edgessl.training.budget import LITTLE, MARGIN
from edgessl.training.plan import Plan
from edgessl.training.update import backward, gradient_norm, make_optimizer

WARM, STEPS = 2, 8
SAMPLE = 512  # images that are decoded for measuring, or a batch if that is more
Made = TypeVar("Made")
LONGEST_S = 30.0  # fewer steps when they are slow; two at least


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
    recipe: Recipe,
    spec: InputSpec,
    method: Method,
    images: NDArray[np.uint8],
    plan: Plan,
    *,
    longest_s: float = LONGEST_S,
    epoch: int = -1,
) -> StepTimes:
    """Take a few steps of pretraining with a method that is thrown away afterwards.

    Args:
        recipe: Gives the views.
        spec: Input contract.
        method: On its device; it is changed.
        images: uint8 (N, S, S, 3), a sample of the stored images.
        plan: Gives batch and optimiser.
        longest_s: Seconds after which no further step begins.
        epoch: Whose steps they are; those of the last have on what a method starts late.
    """
    device = next(method.parameters()).device
    stored, views = torch.from_numpy(images), make_views(recipe, spec)

    def make(rows: NDArray[np.int64]) -> Sequence[Tensor]:
        return views(stored[torch.from_numpy(rows)].to(device), rows, 0)

    def loss(made: Sequence[Tensor]) -> dict[str, Tensor]:
        if not method.uses_labels:
            return method(made)
        return method(made, torch.zeros(len(made[0]), dtype=torch.int64, device=device))

    optimizer = make_optimizer(method, plan, lr=LITTLE)
    before = (epoch % plan.epochs) * plan.steps_per_epoch
    method.begin(Schedule(plan.steps, plan.steps_per_epoch, before, optimizer))

    def after_step(step: int) -> object:
        return method.after_step(before + step)

    work = _Work(method, optimizer, plan.batch, len(images), after_step, longest_s)
    return _times(work, make, loss)


def early_times(
    recipe: Recipe,
    spec: InputSpec,
    build: Callable[[], Method],
    images: NDArray[np.uint8],
    plan: Plan,
    *,
    longest_s: float = LONGEST_S,
) -> tuple[int, StepTimes | None]:
    """Return how many first epochs train otherwise, and what their steps take.

    Args:
        recipe: Gives the views and the method's options.
        spec: Input contract.
        build: A fresh method on its device, which is changed.
        images: As in :func:`pretraining_times`.
        plan: Gives batch and optimiser.
        longest_s: As in :func:`pretraining_times`.
    """
    epochs = early_epochs(recipe)
    if not epochs:
        return 0, None
    return epochs, pretraining_times(
        recipe, spec, build(), images, plan, longest_s=longest_s, epoch=0
    )


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

    optimizer = make_optimizer(network, plan, lr=LITTLE)
    work = _Work(network, optimizer, len(plan.batch_indices(0)), len(data.labels))
    return _times(work, lambda rows: rows, step)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is trained for a few steps: ``size`` of ``available`` images in each."""

    module: nn.Module
    optimizer: Optimizer
    size: int
    available: int
    after_step: Callable[[int], object] | None = None
    longest_s: float = LONGEST_S


def _times(
    work: _Work,
    make: Callable[[NDArray[np.int64]], Made],
    loss: Callable[[Made], dict[str, Tensor]],
) -> StepTimes:
    with PeakWatch() as memory:
        took = _take_steps(work, make, loss)
    kept = [v for s in work.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    state_bytes = module_bytes(work.module) + sum(map(_bytes, kept))
    counted = np.array(took[WARM:] or took[-1:])
    views, model, update = (float(x) for x in np.median(counted, axis=0))
    whole = tuple(float(x) for x in counted.sum(axis=1))
    return StepTimes(views, model, update, whole, state_bytes, memory.peak)


def _take_steps(
    work: _Work,
    make: Callable[[NDArray[np.int64]], Made],
    loss: Callable[[Made], dict[str, Tensor]],
) -> list[tuple[float, float, float]]:
    """Return the seconds of every step's parts."""
    work.module.train()
    took: list[tuple[float, float, float]] = []
    began = _now()
    while len(took) < WARM + STEPS and (len(took) <= 1 or _now() - began < work.longest_s):
        rows = (np.arange(work.size) + len(took) * work.size) % work.available
        moments = [_now()]
        made = make(rows)
        moments.append(_now())
        backward(work.optimizer, loss(made))
        moments.append(_now())
        gradient_norm(work.optimizer)
        work.optimizer.step()
        if work.after_step is not None:
            work.after_step(len(took) + 1)
        moments.append(_now())
        views, model, update = np.diff(moments)
        took.append((views, model, update))
    return took


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

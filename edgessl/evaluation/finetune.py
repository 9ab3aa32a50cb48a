"""Fine-tuning a plain network on labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgessl.core.console import Reporter
from edgessl.data.labelled import Labelled
from edgessl.training.loop import Job, train
from edgessl.training.plan import Plan
from edgessl.training.update import LossFunction


class MakeViews(Protocol):
    """Turns a uint8 batch into augmented, normalised views (see ``edgessl.data.views``)."""

    def __call__(self, images_BHWC: Tensor, indices: NDArray[np.int64], epoch: int) -> list[Tensor]:
        """Return one tensor (B, 3, H, W) per view."""
        ...


MOMENTUM = 0.1  # of BatchNorm's running averages while training: PyTorch's default


@dataclass(frozen=True, slots=True)
class Lessons:
    """What fine-tuning learns from.

    Attributes:
        data: Images and labels.
        views: Makes one augmented view per image.
        balanced: Let every class occur equally often in an epoch; see :func:`balanced_order`.
    """

    data: Labelled
    views: MakeViews
    balanced: bool = False


def classification_loss(lessons: Lessons, device: torch.device) -> LossFunction:
    """Return cross-entropy over random views of labelled images, as the training loop wants it.

    Args:
        lessons: Images, labels and views.
        device: Where the network is.
    """
    data, views, balanced = lessons.data, lessons.views, lessons.balanced
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)

    def loss(module: nn.Module, indices: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        drawn = balanced_order(data.labels, epoch)[indices] if balanced else indices
        chosen = torch.from_numpy(drawn)
        (x,) = views(images[chosen].to(device), indices, epoch)
        return {"total": F.cross_entropy(module(x), labels[chosen].to(device))}

    return loss


def balanced_order(labels_N: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
    """Return N positions of images among which every class occurs equally often, to within one.

    Classes with few images repeat them, those with many take turns from epoch to epoch.

    Args:
        labels_N: Classes of the images.
        epoch: Another epoch, other images of the large classes.
    """
    classes = np.unique(labels_N)
    random = np.random.Generator(np.random.PCG64([epoch, len(labels_N)]))
    quota = np.full(len(classes), len(labels_N) // len(classes))
    quota[random.permutation(len(classes))[: len(labels_N) % len(classes)]] += 1
    parts = []
    for label, wanted in zip(classes, quota, strict=True):
        members = random.permutation(np.flatnonzero(labels_N == label))
        parts.append(np.resize(members, wanted))
    return np.concatenate(parts)


def finetune(
    network: nn.Module,
    lessons: Lessons,
    plan: Plan,
    *,
    reporter: Reporter,
    label: str,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
) -> nn.Module:
    """Train all weights of a network with a head by cross-entropy, in place.

    Args:
        network: Gives logits (B, C); returned on the CPU in eval mode.
        lessons: Training images, labels and views.
        plan: Epochs, batch, learning rate and schedule.
        reporter: Receives progress.
        label: Shown beside the progress bar.
        folder: For resumable state and ``metrics.jsonl``; None keeps neither.
        identity: What must be equal to resume a saved state.

    Raises:
        Diverged: The loss is no longer finite.
        Interrupted: Stopped; the state is saved.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = classification_loss(lessons, device)
    with _quick_averages(network):
        train(Job(network, loss, plan, label, folder, identity or {}), reporter)
    return network.to("cpu").to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


@contextmanager
def _quick_averages(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm's running averages follow within tens of steps, for as long as it trains.

    Stock MobileNetV3 averages over some hundred steps, as suits trainings of a hundred thousand.
    After a short one its statistics would still be a good part initial values, and the net as it
    is deployed would answer at random.
    """
    slow = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.BatchNorm2d) and (layer.momentum or 1.0) < MOMENTUM
    ]
    before = [layer.momentum for layer in slow]
    for layer in slow:
        layer.momentum = MOMENTUM
    try:
        yield
    finally:
        for layer, momentum in zip(slow, before, strict=True):
            layer.momentum = momentum


def with_head(network: nn.Module, head: str, features: int, classes: int, *, seed: int) -> None:
    """Put a fresh Linear (N(0, 0.01), bias 0) in place of the identity at ``head``."""
    linear = nn.Linear(features, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.init.normal_(linear.weight, 0.0, 0.01)
    nn.init.zeros_(linear.bias)
    parent, _, leaf = head.rpartition(".")
    setattr(network.get_submodule(parent), leaf, linear)


def best_of(scores: Sequence[float]) -> int:
    """Index of the largest score; the first one wins ties."""
    return int(np.argmax(np.asarray(scores)))

"""Short quantisation-aware fine-tuning without labels.

The float net teaches its own quantised simulation: KL between their softmax at temperature 1
(distillation, arXiv:1503.02531) on training images, gradients straight through the rounding
(arXiv:1712.05877), BatchNorm statistics frozen. What comes out is a plain float net whose
weights stand rounding better; it is exported and calibrated like any other.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, Interrupted, out_of_memory
from edgessl.core.images import to_model_input
from edgessl.exporters.base import Calibration
from edgessl.quantization.simulate import input_ranges, simulated
from edgessl.training.stopping import stop_requested
from edgessl.training.update import backward, gradient_norm

LABEL = "quantisation-aware fine-tuning"
EVALUATION_BATCH = 64

EndedBy = Literal["steps", "seconds", "divergence"]


@dataclass(frozen=True, slots=True)
class AwarePlan:
    """How long and how to fine-tune.

    Attributes:
        steps: At most.
        max_seconds: No step is begun after so long. When this ends the training, the result
            depends on the speed of the machine.
        batch: Images per step; fewer if there are fewer.
        learning_rate: Of Adam, falling to zero along a half cosine over ``steps``.
        checks: How often the held-out images are looked at.
        seed: Of the order of images.
        calibration: How activation ranges follow from the calibration images.
        activation_bits: Of the inputs of layers; weights have 8.
        float_layers: Modules that stay in float.
    """

    steps: int = 300
    max_seconds: float = 600.0
    batch: int = 32
    learning_rate: float = 1e-4
    checks: int = 10
    seed: int = 0
    calibration: Calibration = "minmax"
    activation_bits: int = 8
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AwareImages:
    """Prepared images, uint8 (N, H, W, 3) as ``spec`` says; no image in two of them.

    Attributes:
        training: To learn from.
        calibration: To take activation ranges from.
        selection: Held out, to choose the weights on.
        spec: The contract of the net.
    """

    training: NDArray[np.uint8]
    calibration: NDArray[np.uint8]
    selection: NDArray[np.uint8]
    spec: InputSpec


@dataclass(frozen=True, slots=True)
class AwareFacts:
    """What happened.

    Attributes:
        steps: Steps taken.
        kept_step: After which the returned weights were taken; 0 for those of the float net.
        seconds: In all.
        loss_first: Mean KL of the first batch.
        loss_last: Of the last.
        kl_before: KL(float || simulated) on the held-out images, before the first step.
        kl_after: With the returned weights; never larger.
        ended_by: What ended it; ``divergence`` when the loss was no longer finite.
    """

    steps: int
    kept_step: int
    seconds: float
    loss_first: float | None
    loss_last: float | None
    kl_before: float
    kl_after: float
    ended_by: EndedBy


def fine_tuned(
    network: nn.Module, images: AwareImages, plan: AwarePlan, *, reporter: Reporter
) -> tuple[nn.Module, AwareFacts]:
    """Return a net whose quantised answers are nearer to those of ``network``, or a copy of it.

    The same images, plan and machine give the same weights on the CPU unless the time runs out.
    It runs where the net is.

    Args:
        network: Images (B, 3, H, W) to logits (B, C); a plain stock net, left as it was.
        images: To learn from, to calibrate with and to choose on.
        plan: How.
        reporter: Receives progress.

    Returns:
        A plain net in evaluation mode, of the same state dict keys; the facts.

    Raises:
        DataInvalid: One of the three sets of images is empty.
        Interrupted: SIGINT or SIGTERM came; nothing is kept.
        OutOfMemory: The weights are as they were.
    """
    for what in ("training", "calibration", "selection"):
        if len(getattr(images, what)) == 0:
            raise DataInvalid(f"{LABEL} has no {what} images", hint="give more images")
    try:
        return _Training(network, images, plan).run(reporter)
    except (MemoryError, RuntimeError) as error:
        explained = out_of_memory(error)
        if explained is None:
            raise
        raise explained from error


class _Training:
    """One fine-tuning: the teacher, the student, and the best weights seen."""

    def __init__(self, network: nn.Module, images: AwareImages, plan: AwarePlan) -> None:
        self.images, self.plan, self.start = images, plan, time.monotonic()
        self.device = next(network.parameters()).device
        self.calibration = list(self._batches(images.calibration))
        self.student = simulated(
            network, self.calibration, calibration=plan.calibration,
            activation_bits=plan.activation_bits,
        )  # fmt: skip
        self.student.switch(name for name in self.student.ranges if name not in plan.float_layers)
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False)
        self.net = self.student.network.requires_grad_(True)
        self.losses: list[float] = []
        self.kept, self.kept_step, self.kept_kl = _weights(self.net), 0, math.inf

    def run(self, reporter: Reporter) -> tuple[nn.Module, AwareFacts]:
        """Train, keep the best weights, and put them into the net."""
        self._check(0)
        before, ended_by = self.kept_kl, self._train(reporter)
        self.net.load_state_dict(self.kept)
        facts = AwareFacts(
            steps=len(self.losses),
            kept_step=self.kept_step,
            seconds=round(time.monotonic() - self.start, 1),
            loss_first=self.losses[0] if self.losses else None,
            loss_last=self.losses[-1] if self.losses else None,
            kl_before=before,
            kl_after=self.kept_kl,
            ended_by=ended_by,
        )
        return self.net.eval().requires_grad_(False), facts

    def _train(self, reporter: Reporter) -> EndedBy:
        plan, every = self.plan, max(1, self.plan.steps // self.plan.checks)
        optimizer = torch.optim.Adam(self.net.parameters())
        with stop_requested() as stop, reporter.bar(LABEL, plan.steps) as bar:
            for step in range(1, plan.steps + 1):
                if time.monotonic() - self.start > plan.max_seconds:
                    self._check(step - 1)
                    return "seconds"
                if not self._step(optimizer, step):
                    return "divergence"
                bar.update(step, f"loss {self.losses[-1]:.4g}")
                if stop.is_set():
                    raise Interrupted(
                        f"{LABEL} stopped after step {step} of {plan.steps}; nothing of it is kept",
                        hint="call the same command again",
                    )
                if step % every == 0 or step == plan.steps:
                    self._check(step)
        return "steps"

    def _step(self, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """Take a step (from 1) unless something is no longer finite; return whether it was."""
        for group in optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * _half_cosine((step - 1) / self.plan.steps)
        x = self._model_input(self.images.training[self._drawn(step)])
        with torch.no_grad():
            wanted = self.teacher(x)
        loss = _divergence(wanted, self.student(x)).mean()
        if not math.isfinite(float(loss.detach())):
            return False
        backward(optimizer, {"total": loss})
        if not math.isfinite(gradient_norm(optimizer)):
            return False
        self.losses.append(float(loss.detach()))
        optimizer.step()
        return True

    @torch.no_grad()
    def _check(self, step: int) -> None:
        """Keep the weights if they are the best, with ranges as an exporter would take them."""
        try:
            self.student.ranges = input_ranges(self.net, self.calibration, self.plan.calibration)
        except DataInvalid:
            return  # values beyond float32: the next loss will end it
        total = sum(
            float(_divergence(self.teacher(x), self.student(x)).double().sum())
            for x in self._batches(self.images.selection)
        )
        if (kl := total / len(self.images.selection)) < self.kept_kl:
            self.kept, self.kept_step, self.kept_kl = _weights(self.net), step, kl

    def _drawn(self, step: int) -> NDArray[np.int64]:
        """Return the images of a step (from 1): all of them in turn, in a new order every time."""
        n = len(self.images.training)
        places = np.arange((step - 1) * self.plan.batch, step * self.plan.batch)[:n]
        orders = {
            epoch: np.random.Generator(np.random.PCG64([self.plan.seed, epoch])).permutation(n)
            for epoch in np.unique(places // n).tolist()
        }
        return np.array([orders[place // n][place % n] for place in places.tolist()])

    def _batches(self, images_NHWC: NDArray[np.uint8]) -> Iterator[Tensor]:
        for start in range(0, len(images_NHWC), EVALUATION_BATCH):
            yield self._model_input(images_NHWC[start : start + EVALUATION_BATCH])

    def _model_input(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        x = to_model_input(images_NHWC, self.images.spec.with_layout("NCHW"))
        return torch.from_numpy(x).to(self.device)


def _divergence(wanted_NC: Tensor, got_NC: Tensor) -> Tensor:
    """KL(wanted || got) of the softmax of logits, image by image: (N,)."""
    log_p, log_q = F.log_softmax(wanted_NC, dim=1), F.log_softmax(got_NC, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

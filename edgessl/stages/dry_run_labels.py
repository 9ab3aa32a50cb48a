"""What evaluation and fine-tuning would take, for :mod:`edgessl.stages.dry_run`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from edgessl.core.artifact import InputSpec
from edgessl.core.recipe import Recipe
from edgessl.data.decode import Prepared
from edgessl.data.labelled import Labelled
from edgessl.data.view_specs import ViewSpec
from edgessl.data.views import Views
from edgessl.encoders import ENCODERS
from edgessl.evaluation.finetune import with_head
from edgessl.evaluation.linear import fit_probe
from edgessl.stages.image_counts import Counts
from edgessl.stages.networks import net_spec
from edgessl.stages.pretrain import best_device
from edgessl.stages.rounds import trainings_of
from edgessl.stages.step_times import StepTimes, finetuning_times, module_bytes, pass_seconds
from edgessl.training.budget import StepSeconds, cut
from edgessl.training.plan import Plan

PROBED = 2000  # rows that a linear probe is timed on, at most


@dataclass(slots=True)
class LabelledWork:
    """Seconds and counts over all widths.

    Attributes:
        probes: Seconds of evaluation.
        tuning: Seconds of fine-tuning.
        trainings: Of fine-tuning.
        steps: How many steps of fine-tuning were measured, per width.
        slim_bytes: Size of the slim nets.
        warnings: For the user.
    """

    probes: float = 0.0
    tuning: float = 0.0
    trainings: int = 0
    steps: int = 0
    slim_bytes: int = 0
    warnings: list[str] = field(default_factory=list)


def work_with_labels(
    recipe: Recipe, spec: InputSpec, counts: Counts, labelled: Prepared, *, tuned: bool
) -> LabelledWork:
    """Measure a few steps of fine-tuning, a pass and a probe, and count the rest.

    Args:
        recipe: Of the run.
        spec: Input contract.
        counts: Images by role.
        labelled: A sample of the labelled images.
        tuned: Whether fine-tuning runs too.
    """
    net, device, work = net_spec(recipe), best_device(), LabelledWork()
    architecture = ENCODERS.load(net.architecture)
    _, labels = np.unique(np.asarray(labelled.labels), return_inverse=True)
    data = Labelled(labelled.images, labels.astype(np.int64))
    for label in net.labels:
        network = architecture.network(net.width(label), classes=None, stem=net.stem)
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        work.slim_bytes += module_bytes(network)
        features = architecture.feature_size(net.width(label))
        batch = data.images[: recipe.pretrain.batch]
        one_pass = pass_seconds(network.eval(), batch, spec)
        sources = len(recipe.starts) + (recipe.encoder.weights is not None)
        seen = counts.train + counts.validation + counts.test
        work.probes += sources * (seen * one_pass + _probe_seconds(recipe, counts, features))
        if tuned:
            with_head(network, architecture.head, features, counts.classes, seed=0)
            _tuning(recipe, spec, counts, network.to(device), data, one_pass, work)
    return work


def _probe_seconds(recipe: Recipe, counts: Counts, features: int) -> float:
    """Return the seconds of all linear fits of one source of features."""
    if "linear" not in recipe.evaluate.protocols:
        return 0.0
    budgets = list(dict.fromkeys((recipe.labels.per_class, *recipe.labels.curve)))
    rows = sum(counts.labels_used(b) * counts.rounds(recipe, b) for b in budgets)
    n = min(PROBED, max(counts.labels_used(b) for b in budgets))
    x = np.random.Generator(np.random.PCG64(0)).normal(size=(n, features)).astype(np.float32)
    y = np.arange(n) % counts.classes
    start = time.perf_counter()
    fit_probe((x, y), (x, y))
    return (time.perf_counter() - start) * rows / n


def _tuning(
    recipe: Recipe,
    spec: InputSpec,
    counts: Counts,
    network: nn.Module,
    data: Labelled,
    one_pass: float,
    work: LabelledWork,
) -> None:
    """Add the trainings of one width."""
    section, folds = recipe.finetune, counts.folds is not None
    curve = recipe.labels.curve if section.curve and not folds else ()
    budgets = list(dict.fromkeys((recipe.labels.per_class, *curve)))
    variants = section.scratch + (recipe.encoder.weights is not None) + len(recipe.starts)
    searched = [variants * trainings_of(recipe, counts.rounds(recipe, b), folds) for b in budgets]
    available = None
    if section.max_seconds is not None:
        available = section.max_seconds / len(recipe.slim_labels) / sum(searched)
    view = ViewSpec(
        size=spec.height, crop_scale=section.crop_scale, interpolation="bilinear",
        flip=section.flip,
    )  # fmt: skip
    views = Views((view,), spec.mean, spec.std, recipe.seed)
    answered = (counts.validation + counts.test) * one_pass
    times: StepTimes | None = None
    for budget, trainings in zip(budgets, searched, strict=True):
        wanted = Plan(
            items=counts.labels_used(budget), batch=section.batch, epochs=section.epochs,
            learning_rate=section.learning_rates[0], optimizer=section.optimizer,
            drop_last=False,
        )  # fmt: skip
        if times is None:
            times = finetuning_times(network, data, views, wanted, balanced=section.balanced)
            work.steps = times.steps
        plan = cut(wanted, StepSeconds(times.step), available)
        if plan.epochs < wanted.epochs:
            work.warnings.append(
                f"finetune.max_seconds cuts {wanted.epochs} epochs to {plan.epochs} with "
                f"{wanted.items} labelled images"
            )
        count = trainings + folds  # after folds, the shipped net is trained on all labels
        work.trainings += count
        work.tuning += count * (plan.steps * times.step + answered)

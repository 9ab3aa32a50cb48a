"""What a pretraining takes here: a few of its steps are taken and timed, nothing is written."""

from __future__ import annotations

import os
import statistics
from typing import Any

import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.recipe import Recipe
from edgessl.core.runs import machine_facts
from edgessl.data.decode import prepare_storage
from edgessl.data.sources import open_source
from edgessl.methods.base import Method
from edgessl.stages.memory import Peak
from edgessl.stages.pretrain import best_device, build_method, make_plan
from edgessl.stages.step_times import early_times, pretraining_times, sampled_rows
from edgessl.training.budget import StepSeconds
from edgessl.training.plan import check_plan

MB = 1e6
LONGEST_S = 120.0  # no further step begins after so long


def measured_cost(recipe: Recipe, images: int, reporter: Reporter) -> dict[str, Any]:
    """Take a few steps of a recipe's method at its batch and image size.

    Args:
        recipe: Its data, encoder and pretrain sections; its images are sampled.
        images: Images of the whole run, for the number of its steps.
        reporter: Told what is being measured.

    Returns:
        JSON values: seconds of every step, the most memory in use meanwhile, and under
        ``conditions`` what they depend on. ``run_hours`` is the median times the steps of the
        run: what monitors, saved states and reading the images take comes on top. Steps are those
        of the last epoch; where the first ones train otherwise, ``first_epochs`` says how many
        and the median seconds of their steps, which the hours count.

    Raises:
        DataInvalid: The images cannot be opened, or ``images`` are fewer than a batch.
        RecipeInvalid: The method cannot be built.
        OutOfMemory: A step does not fit.
    """
    plan = make_plan(recipe, images)
    check_plan(plan)
    device, spec = best_device(), InputSpec.square(recipe.data.imgsz)
    where = str(recipe.data.unlabeled or recipe.data.labelled)
    source = open_source(where)
    named = open_source(recipe.data.labelled) if recipe.data.labelled else None
    pool = prepare_storage(source, spec.resize, sampled_rows(len(source), plan.batch)).images

    def build() -> Method:
        method, _ = build_method(recipe, classes=len(named.class_names) if named else 0)
        return method.to(device).to(memory_format=torch.channels_last)

    reporter.say(f"measuring steps of {plan.batch} images of {recipe.data.imgsz} px on {device}")
    load = _load()
    times = pretraining_times(recipe, spec, build(), pool, plan, longest_s=LONGEST_S)
    first, early = early_times(recipe, spec, build, pool, plan, longest_s=LONGEST_S)
    median = statistics.median(times.whole)
    early_s = statistics.median(early.whole) if early else 0.0
    seconds = StepSeconds(median, early_s, first).of(plan)
    parts = {"views": times.views, "model": times.model, "optimizer": times.optimizer}
    return {
        "step_s": {
            "median": median, "fastest": min(times.whole), "slowest": max(times.whole),
            "samples": list(times.whole),
        },
        "part_s": parts,
        "first_epochs": {"epochs": first, "step_s": early_s} if early else None,
        "run_hours": seconds * len(recipe.starts) / 3600,
        "memory_mb": _memory(times.peak),
        "conditions": _conditions(device) | {
            "batch": plan.batch, "imgsz": recipe.data.imgsz, "images": where, "sample": len(pool),
            "load_1min": {"before": load, "after": _load()},
        },
        "kind": "measured",
    }  # fmt: skip


def _memory(peak: Peak) -> dict[str, Any]:
    return {
        "process_before": round(peak.process_before / MB),
        "process_peak": round(peak.process / MB),
        "peak_of": "the process since its start" if peak.since_start else "the measured steps",
        "gpu_peak": None if peak.gpu is None else round(peak.gpu / MB),
    }


def _conditions(device: torch.device) -> dict[str, Any]:
    facts = machine_facts()
    name = torch.cuda.get_device_name() if device.type == "cuda" else facts["cpu"]
    return {
        "device": device.type,
        "name": name or facts["architecture"],
        "threads": torch.get_num_threads(),
        "cores": facts["cores"],
        "torch": torch.__version__,
    }


def _load() -> float | None:
    """Return the mean number of runnable threads of the last minute; None where it is unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None

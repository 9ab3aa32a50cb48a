"""What a run would take: a few real steps are measured, the rest is counted.

Nothing is written. Images are a sample, so a large source costs no more than a small one; what
only shows when all are opened (unreadable files, leaks between sources) is for
``edgessl data check``.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.recipe import Recipe
from edgessl.data.decode import MEMORY_LIMIT_BYTES, Prepared, prepare, prepare_storage
from edgessl.data.image_set import ImageSet
from edgessl.data.sources import open_source
from edgessl.methods.base import Method
from edgessl.slimming.sliced import HOST
from edgessl.stages.board_opening import asked_of
from edgessl.stages.conversion import check_installed
from edgessl.stages.dry_run_labels import work_with_labels
from edgessl.stages.image_counts import count_images
from edgessl.stages.memory import gpu_peak, process_peak
from edgessl.stages.pretrain import (
    best_device,
    build_method,
    make_plan,
    make_view_specs,
    make_views,
    view_loss,
)
from edgessl.stages.roles import Pool
from edgessl.stages.step_times import (
    StepTimes,
    early_times,
    module_bytes,
    pass_seconds,
    pretraining_times,
    sampled_rows,
)  # fmt: skip
from edgessl.stages.watch import Looker, as_deployed, make_taught, watched_images
from edgessl.training.budget import StepSeconds, cut
from edgessl.training.loop import Watch
from edgessl.training.plan import Plan, check_plan

MB = 1e6


@dataclass(frozen=True, slots=True)
class Part:
    """Time of a part of the run in seconds; None where it is not estimated."""

    name: str
    seconds: float | None
    note: str


class DryRun:
    """Measures and counts for one recipe.

    Args:
        recipe: Validated.
        stages: Those that would run.
        out: Where the run folder would be, for the free space.
        reporter: Told what is being measured.

    Raises:
        DataInvalid: No images, fewer than a batch, or no labels where they are needed.
        RecipeInvalid, InvalidInput, MissingExtra: As the run would.
    """

    def __init__(
        self, recipe: Recipe, stages: Sequence[str], out: Path, reporter: Reporter
    ) -> None:
        self.recipe, self.stages, self.out, self.reporter = recipe, set(stages), out, reporter
        self.spec = InputSpec.square(recipe.data.imgsz)
        self.device = best_device()
        self.parts: list[Part] = []
        self.warnings: list[str] = []
        self.disk: dict[str, float] = {}
        for target in recipe.export.targets if "export" in self.stages else ():
            check_installed(target)
        self._open()

    def result(self) -> dict[str, Any]:
        """Measure, and return JSON values."""
        self.times: StepTimes | None = None
        self.measured: dict[str, int] = {}
        self.forward: dict[str, float] = {}
        if "pretrain" in self.stages:
            self._pretrain()
        if self.labelled is not None and self.stages & {"evaluate", "finetune"}:
            self._with_labels(self.labelled)
        self._deliver()
        free = _free_bytes(self.out)
        needed = sum(self.disk.values())
        if needed > free:
            self.warnings.append(
                f"the run folder would need {needed / MB:.0f} MB, and {free / MB:.0f} MB are free"
            )
        for warning in self.warnings:
            self.reporter.warn(warning)
        known = [part.seconds for part in self.parts if part.seconds is not None]
        return {
            "device": _device_name(self.device),
            "threads": torch.get_num_threads(),
            "images": asdict(self.counts),
            "measured_steps": self.measured,
            "step_ms": self._step_ms(),
            "parts": [asdict(part) for part in self.parts],
            "seconds": round(sum(known), 1),
            "memory_mb": self._memory_mb(),
            "disk_mb": {name: round(b / MB, 1) for name, b in self.disk.items()}
            | {"total": round(needed / MB, 1), "free": round(free / MB, 1)},
            "bottleneck": self._bottleneck(),
            "warnings": self.warnings,
        }

    def _open(self) -> None:
        data, spec = self.recipe.data, self.spec
        where = data.unlabeled or data.labelled
        assert where is not None  # digits by default
        source = open_source(where)
        start = time.perf_counter()
        self.pool = prepare_storage(source, spec.resize, self._sampled(source)).images
        decode = (time.perf_counter() - start) / len(self.pool)
        self.labelled: Prepared | None = None
        named = open_source(data.labelled) if data.labelled else None
        self.classes = len(named.class_names) if named else 0
        if named is not None:
            named.require_labels()
            if self.stages & {"evaluate", "finetune"}:
                self.labelled = prepare(named, self._sampled(named), spec)
        elif self.stages & {"evaluate", "finetune"}:
            raise DataInvalid(
                "labelled images are needed here, and only unlabeled ones were given",
                hint="name them with --labels, or stop earlier with --until pretrain",
            )
        tested = len(open_source(data.test)) if data.test else None
        self.counts = count_images(self.recipe, source, named, tested)
        # without unlabeled images the training split is opened, again where views need margins
        again = self.counts.pool if spec.resize != spec.height else 0
        whole = (len(named) if named else 0) + (tested or 0)
        whole += len(source) if data.unlabeled else again
        self.parts.append(Part("open images", decode * whole, f"{whole} images"))

    def _sampled(self, source: ImageSet) -> np.ndarray:
        return sampled_rows(len(source), self.recipe.pretrain.batch)

    def _pretrain(self) -> None:
        recipe = self.recipe
        section = recipe.pretrain
        wanted = make_plan(recipe, self.counts.pool)
        check_plan(wanted)

        def build() -> Method:
            made, _ = build_method(recipe, classes=self.classes, images=self.counts.pool)
            return made.to(self.device).to(memory_format=torch.channels_last)

        method = build()
        self.reporter.say(f"measuring steps of pretraining on {self.device.type}")
        times = pretraining_times(recipe, self.spec, method, self.pool, wanted)
        self.times = times
        self.measured["pretraining"] = times.steps
        first, early = early_times(recipe, self.spec, build, self.pool, wanted)
        step = StepSeconds(times.step, early.step if early else 0.0, first)
        plan = cut(wanted, step, section.max_seconds)
        if plan.epochs < wanted.epochs:
            self.warnings.append(
                f"pretrain.max_seconds cuts {wanted.epochs} epochs to {plan.epochs}: all of them "
                f"would take {_spoken(step.of(wanted))}"
            )
        encoder = method.encoder
        batch = as_deployed(self.pool[: section.batch], self.spec)
        for width in encoder.labels if encoder.is_dense else (HOST, *encoder.labels):
            self.forward[width] = pass_seconds(
                lambda x, w=width: encoder(x, width=w, frozen=True), batch, self.spec
            )
        recalibrated = 256 * min(section.recalibrate_batches, max(1, self.counts.pool // 256))
        after = recalibrated * sum(self.forward.values())
        monitors = self._monitor_seconds(method, plan)
        for start in recipe.starts:
            name = "pretrain" if start == "random" else "pretrain from weights"
            note = f"{plan.epochs} epochs of {plan.steps_per_epoch} steps"
            self.parts.append(Part(name, step.of(plan) + monitors + after, note))
        weights = module_bytes(encoder)
        self.disk["pretraining states"] = len(recipe.starts) * times.state_bytes
        self.disk["while a state is saved"] = times.state_bytes
        self.disk["encoders"] = len(recipe.starts) * weights

    def _monitor_seconds(self, method: Method, plan: Plan) -> float:
        recipe, section = self.recipe, self.recipe.pretrain.monitor
        n = watched_images(section.images, self.counts.pool)
        rows = np.arange(min(n, len(self.pool)))
        images, nobody = as_deployed(self.pool[rows], self.spec), np.full(len(rows), -1, np.int64)
        quiet = Reporter(quiet=True)
        looker = Looker(method, images, nobody, self.spec, recipe.pretrain.batch, quiet)
        once = _look_seconds(looker) * n / len(rows)
        labels = np.zeros(len(self.pool), np.int64) if method.uses_labels else None
        loss = view_loss(recipe, self.spec, Pool(self.pool, (), "", labels), self.device)
        views = make_views(recipe, self.spec)
        looker.taught = make_taught(method, rows, self.pool, views, loss)
        # views and gradients, of a number of images that does not grow
        once += max(0.0, _look_seconds(looker) - once * len(rows) / n)
        watch = Watch(looker, section.every_epochs)
        ends = range(plan.steps_per_epoch, plan.steps + 1, plan.steps_per_epoch)
        return once * (1 + sum(watch.is_due(done, plan) for done in ends))

    def _with_labels(self, labelled: Prepared) -> None:
        recipe = self.recipe
        tuned = "finetune" in self.stages
        work = work_with_labels(recipe, self.spec, self.counts, labelled, tuned=tuned)
        if "evaluate" in self.stages:
            note = "rough: probes are timed on random data"
            self.parts.append(Part("evaluate", work.probes, note))
        if tuned:
            self.measured["fine-tuning"] = work.steps
            self.warnings += work.warnings
            note = f"{work.trainings} trainings"
            self.parts.append(Part("finetune", work.tuning, note))
            hosts = self.disk.get("encoders", 0.0) / max(1, len(recipe.starts))
            self.disk["tuned models"] = hosts * len(recipe.slim_labels)
        copies = 1 + (len(recipe.export.targets) if "export" in self.stages else 0)
        self.disk["extracted and exported models"] = work.slim_bytes * copies

    def _deliver(self) -> None:
        recipe = self.recipe
        widths, targets = len(recipe.slim_labels), len(recipe.export.targets)
        if "export" in self.stages:
            note = f"not estimated: {widths * targets} conversions, seconds to a minute each"
            self.parts.append(Part("extract and export", None, note))
        if "bench" in self.stages:
            least = widths * targets * asked_of(recipe.bench).seconds
            self.parts.append(Part("bench", least, f"at least; preset {recipe.bench.preset}"))
        kept = [self.counts.pool * self.spec.resize**2 * 3]
        kept += [(self.counts.train + self.counts.test) * self.spec.height**2 * 3]
        self.disk["images, while it runs"] = float(sum(b for b in kept if b > MEMORY_LIMIT_BYTES))
        self._image_bytes = float(sum(b for b in kept if b <= MEMORY_LIMIT_BYTES))

    def _step_ms(self) -> dict[str, float] | None:
        if self.times is None:
            return None
        parts = {"views": self.times.views, "model": self.times.model,
                 "optimizer": self.times.optimizer}  # fmt: skip
        return {name: round(1e3 * seconds, 3) for name, seconds in parts.items()}

    def _memory_mb(self) -> dict[str, float | None]:
        """Return the peak of this process, with the images that were not loaded and a save."""
        missing = max(0.0, self._image_bytes - self.pool.nbytes)
        saving = 2 * self.times.state_bytes if self.times else 0
        gpu = gpu_peak()
        return {
            "process": round((process_peak() + missing + saving) / MB),
            "gpu": None if gpu is None else round(gpu / MB),
        }

    def _bottleneck(self) -> dict[str, Any] | None:
        """Name the slowest part of a pretraining step and one thing to do about it."""
        steps = self._step_ms()
        if steps is None:
            return None
        part = max(steps, key=lambda name: steps[name])
        data, section = self.recipe.data, self.recipe.pretrain
        grid = 32 if data.imgsz >= 96 else 4
        smaller = max(8, int(0.75 * data.imgsz) // grid * grid)
        shrink = f"--set data.imgsz={smaller} takes about {(smaller / data.imgsz) ** 2:.0%} of it"
        if smaller == data.imgsz:
            shrink = "a narrower host takes less (see --width)"
        if part == "views" and any(view.blur for view in make_view_specs(self.recipe)):
            suggestion = "--set pretrain.views.blur=0 leaves the blur out"
        elif part == "optimizer":
            twice = 2 * section.batch
            suggestion = f"--set pretrain.batch={twice} halves the number of updates"
        elif part == "model" and self.device.type == "cpu":
            suggestion = f"a GPU; or {shrink}"
        else:
            suggestion = shrink
        return {
            "part": part,
            "share": round(steps[part] / sum(steps.values()), 3),
            "suggestion": suggestion,
        }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def _free_bytes(out: Path) -> int:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _spoken(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"


def _look_seconds(looker: Looker) -> float:
    start = time.perf_counter()
    looker(warm=False)
    return time.perf_counter() - start

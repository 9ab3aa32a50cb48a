"""The training loop: exact resume, a plan made once, one JSON line per logged step.

All randomness is keyed by seeds, epoch and item, never by a global generator, so a run that
was killed and resumed takes the same steps as one that was not (same machine, same threads).
"""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, Diverged, FileInvalid, Interrupted
from edgessl.training import checkpoints, optimizers

# (module, item indices, epoch) to named scalar terms; ``total`` is differentiated
LossFunction = Callable[[nn.Module, NDArray[np.int64], int], dict[str, Tensor]]


# a long run also saves, logs and warms the machine up: it is slower than its first steps
MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast; fixed before the first step and kept when resuming.

    Attributes:
        items: Images in the training set.
        batch: Images per step.
        epochs: Passes over the items.
        learning_rate: At the peak, after linear warm-up; cosine to zero follows.
        warmup: Share of all steps spent warming up, in [0, 1).
        drop_last: Leave out the last, smaller batch of an epoch; otherwise an epoch is split
            into batches of nearly equal size.
        seed: Order of the items.
    """

    items: int
    batch: int
    epochs: int
    learning_rate: float
    optimizer: optimizers.Name = "adamw"
    weight_decay: float = 1e-4
    warmup: float = 0.05
    drop_last: bool = True
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        if self.drop_last:
            return self.items // self.batch
        # BatchNorm cannot train on a single image: no part may be that small
        return max(1, min(math.ceil(self.items / self.batch), self.items // 2))

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.steps_per_epoch * self.epochs

    def lr(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        warm = max(1, round(self.warmup * self.steps)) if self.warmup else 0
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def batch_indices(self, step: int) -> NDArray[np.int64]:
        """Items of step ``step``, in a fresh order every epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.items)
        if self.drop_last:
            return order[position * self.batch : (position + 1) * self.batch]
        return np.array_split(order, self.steps_per_epoch)[position]


def check_plan(plan: Plan) -> None:
    """Refuse a plan without a single step.

    Raises:
        DataInvalid: Fewer items than a batch (with ``drop_last``), or no items.
    """
    if plan.steps_per_epoch < 1 or plan.items < 2:
        raise DataInvalid(
            f"{plan.items} training images are fewer than one batch of {plan.batch}",
            hint="give more images or a smaller batch",
        )


def fit_to_budget(
    plan: Plan, module: nn.Module, loss: LossFunction, max_seconds: float | None
) -> tuple[Plan, float]:
    """Cut the epochs so that training fits into a time budget, measured on a throwaway copy.

    Returns:
        The plan, unchanged if it fits, and the expected seconds per step (0 without a budget).
    """
    if max_seconds is None:
        return plan, 0.0
    trial = copy.deepcopy(module)
    optimizer = optimizers.make_optimizer(trial, plan.optimizer, lr=1e-6, weight_decay=0.0)
    took: list[float] = []
    for step in range(min(8, plan.steps)):
        start = time.perf_counter()
        _step(optimizer, loss(trial, plan.batch_indices(step), 0))
        took.append(time.perf_counter() - start)
    seconds = MARGIN * float(np.median(took[2:] or took))
    if seconds * plan.steps <= max_seconds:
        return plan, seconds
    fitting = int(max_seconds / (seconds * plan.steps_per_epoch))
    return replace(plan, epochs=max(1, min(plan.epochs, fitting))), seconds


@dataclass(slots=True)
class Job:
    """One training run.

    Attributes:
        module: Trains as a whole, in place.
        loss: Makes the named terms of one step.
        plan: Wanted plan; a saved state brings its own.
        label: Shown beside the progress bar.
        folder: Stage folder for ``last/`` and ``metrics.jsonl``; None trains without saving.
        identity: What must be equal to resume a saved state (recipe, data hashes).
        max_seconds: Time budget; see :func:`fit_to_budget`.
        save_every_s: Seconds between saved states.
        log_every: Steps between lines of ``metrics.jsonl``.
        after_step: Called after every optimiser step with the number of steps done.
    """

    module: nn.Module
    loss: LossFunction
    plan: Plan
    label: str
    folder: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    max_seconds: float | None = None
    save_every_s: float = 20.0
    log_every: int = 10
    after_step: Callable[[int], None] | None = None


def train(job: Job, reporter: Reporter) -> Plan:
    """Train ``job.module`` and return the plan that was followed.

    Raises:
        DataInvalid: Fewer images than a batch.
        FileInvalid: A saved state belongs to another recipe or other data, or is damaged.
        Interrupted: SIGINT or SIGTERM came; the state was saved.
        Diverged: The loss is no longer finite.
    """
    check_plan(job.plan)
    job.module.train()
    plan, saved = _plan_or_resume(job, reporter)
    done = saved or 0
    optimizer = optimizers.make_optimizer(
        job.module, plan.optimizer, lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    record = _Record(job, plan, optimizer)
    if saved is not None:
        checkpoints.load_state(record.last, job.module, optimizer)
        reporter.say(f"{job.label}: resuming after step {done} of {plan.steps}")
    else:
        record.save(0)
    record.forget_after(done)
    with _stop_requested() as stop, reporter.bar(job.label, plan.steps, done=done) as bar:
        clock = _Clock(done)
        while done < plan.steps:
            indices, epoch = plan.batch_indices(done), done // plan.steps_per_epoch
            for group in optimizer.param_groups:
                group["lr"] = plan.lr(done)
            terms = job.loss(job.module, indices, epoch)
            values = {name: float(term.detach()) for name, term in terms.items()}
            if not math.isfinite(values["total"]):
                raise Diverged(
                    f"{job.label}: the loss became {values['total']} at step {done}, learning "
                    f"rate {plan.learning_rate:g}",
                    hint="start a new run with a lower learning rate",
                )
            _step(optimizer, terms)
            done += 1
            if job.after_step is not None:
                job.after_step(done)
            speed = clock.speed(done, len(indices))
            bar.update(done, f"loss {values['total']:.4g}  {speed:.0f} images/s")
            record.log(done, epoch, values, speed, clock.seconds)
            if stop.is_set():
                record.save(done)
                raise Interrupted(
                    f"{job.label} stopped after step {done} of {plan.steps}; the state is saved",
                    hint="call the same command with --resume to go on",
                )
            record.save_if_due(done)
    record.save(done)
    return plan


def _plan_or_resume(job: Job, reporter: Reporter) -> tuple[Plan, int | None]:
    """Return the plan and, if there is a saved state, the steps done in it."""
    saved = checkpoints.read_facts(job.folder / "last") if job.folder else None
    if saved:
        done, facts = saved
        if facts["identity"] != job.identity:
            raise FileInvalid(
                f"the saved state in {job.folder} belongs to another recipe or other data: "
                + _difference(facts["identity"], job.identity),
                hint="choose another --out, or resume with the recipe saved in the run folder",
            )
        if facts["threads"] != torch.get_num_threads():
            reporter.warn(
                f"resuming with {torch.get_num_threads()} threads a run started with "
                f"{facts['threads']}: weights may differ in the last bits"
            )
        return Plan(**facts["plan"]), done
    plan, seconds = fit_to_budget(job.plan, job.module, job.loss, job.max_seconds)
    if plan.epochs < job.plan.epochs:
        reporter.warn(
            f"{job.label}: {job.plan.epochs} epochs would take about "
            f"{seconds * job.plan.steps:.0f} s here; running {plan.epochs} to stay within "
            f"{job.max_seconds:.0f} s"
        )
    return plan, None


class _Record:
    """Saved states and metrics of one run; does nothing without a folder."""

    def __init__(self, job: Job, plan: Plan, optimizer: torch.optim.Optimizer) -> None:
        self.job, self.plan, self.optimizer = job, plan, optimizer
        self.last = (job.folder or Path()) / "last"
        self.metrics = job.folder / "metrics.jsonl" if job.folder else None
        self._saved = time.monotonic()

    def save(self, done: int) -> None:
        if self.metrics is None:
            return
        facts = {
            "identity": self.job.identity,
            "plan": asdict(self.plan),
            "threads": torch.get_num_threads(),
        }
        checkpoints.save_state(self.last, done, self.job.module, self.optimizer, facts)
        self._saved = time.monotonic()

    def save_if_due(self, done: int) -> None:
        if time.monotonic() - self._saved >= self.job.save_every_s:
            self.save(done)

    def log(
        self, done: int, epoch: int, values: dict[str, float], speed: float, seconds: float
    ) -> None:
        if self.metrics is None or (done % self.job.log_every and done != self.plan.steps):
            return
        row = {
            "step": done, "epoch": epoch, "loss": values, "lr": self.plan.lr(done - 1),
            "images_per_s": round(speed, 1), "seconds": round(seconds, 3),
        }  # fmt: skip
        files.append_jsonl(self.metrics, [row])

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that a kill undid, and a torn last line."""
        if self.metrics is None or not self.metrics.exists():
            return
        kept = [row for row in files.read_jsonl(self.metrics) if row.get("step", 0) <= step]
        files.write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))


class _Clock:
    def __init__(self, done: int) -> None:
        self._first, self._start = done, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def speed(self, done: int, batch: int) -> float:
        return (done - self._first) * batch / max(self.seconds, 1e-9)


def _step(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor]) -> None:
    optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    optimizer.step()


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str:
    keys = [k for k in sorted({*saved, *now}) if saved.get(k) != now.get(k)]
    return ", ".join(f"{k} was {saved.get(k)!r}, is {now.get(k)!r}" for k in keys[:3])


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

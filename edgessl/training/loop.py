"""The training loop: exact resume, a plan made once, one JSON line per logged step.

All randomness is keyed by seeds, epoch and item, never by a global generator, so a run that
was killed and resumed takes the same steps as one that was not (same machine, same threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from edgessl.core.console import Bar, Reporter
from edgessl.core.errors import Collapsed, Diverged, FileInvalid, Interrupted, out_of_memory
from edgessl.methods.base import Schedule
from edgessl.training import checkpoints
from edgessl.training.budget import Hooks, fit_to_budget
from edgessl.training.plan import Plan, check_plan
from edgessl.training.record import Clock, Record, check_finite
from edgessl.training.stopping import stop_requested
from edgessl.training.update import LossFunction, backward, gradient_norm, make_optimizer

# more measurements than these tell no more, and would cost a short training its time
MOST_MEASUREMENTS = 20


class Look(Protocol):
    """Measures what trains; must leave weights, buffers and random generators alone."""

    def __call__(self, *, warm: bool) -> dict[str, Any]:
        """Return JSON values for a line of ``monitor.jsonl``; ``alarm`` is a text or None.

        Args:
            warm: Whether the learning rate has passed its warm-up: no alarm before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """Measurements while training: before the first step, then between epochs, and at the end.

    Attributes:
        look: Makes one.
        every_epochs: Epochs between two; more when they would become over 20.
        collapse: What an alarm does.
    """

    look: Look
    every_epochs: int = 1
    collapse: Literal["stop", "warn", "off"] = "stop"

    def is_due(self, done: int, plan: Plan) -> bool:
        """Whether to measure after ``done`` steps."""
        epochs, into = divmod(done, plan.steps_per_epoch)
        every = max(self.every_epochs, math.ceil(plan.epochs / MOST_MEASUREMENTS))
        return done == plan.steps or (into == 0 and epochs % every == 0)


@dataclass(slots=True)
class Job:
    """One training run.

    Attributes:
        module: Trains as a whole, in place.
        loss: Makes the named terms of one step.
        plan: Wanted plan; a saved state brings its own.
        label: Shown beside the progress bar.
        folder: Stage folder for ``last/``, ``metrics.jsonl`` and ``monitor.jsonl``; None trains
            without saving.
        identity: What must be equal to resume a saved state (recipe, data hashes).
        max_seconds: Time budget; see :func:`edgessl.training.budget.fit_to_budget`.
        save_every_s: Seconds between saved states.
        log_every: Steps between lines of ``metrics.jsonl``.
        begin: Called once the plan is known and a saved state is loaded; like ``after_step`` a
            method of ``module``.
        after_step: Called after every optimiser step with the number of steps done; what it
            returns is written to ``metrics.jsonl``.
        watch: Measurements between epochs, if any.
        early_epochs: First epochs that train otherwise: a time budget counts them apart.
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
    begin: Callable[[Schedule], None] | None = None
    after_step: Callable[[int], dict[str, Any] | None] | None = None
    watch: Watch | None = None
    early_epochs: int = 0


def train(job: Job, reporter: Reporter) -> Plan:
    """Train ``job.module`` and return the plan that was followed.

    Raises:
        DataInvalid: Fewer images than a batch.
        FileInvalid: A saved state belongs to another recipe or other data, or is damaged.
        Interrupted: SIGINT or SIGTERM came; the state was saved.
        Diverged: The loss, a gradient or a weight is no longer finite; the last good state is
            kept.
        Collapsed: ``job.watch`` raised its alarm; the state was saved.
        DiskFull, OutOfMemory: The last saved state is kept.
    """
    check_plan(job.plan)
    try:
        return _train(job, reporter)
    except (MemoryError, RuntimeError) as error:
        explained = out_of_memory(error)
        if explained is None:
            raise
        raise explained from error


def _train(job: Job, reporter: Reporter) -> Plan:
    job.module.train()
    plan, saved = _plan_or_resume(job, reporter)
    done = saved or 0
    optimizer = make_optimizer(job.module, plan)
    record = Record(
        job.folder, job.identity, plan, job.module, optimizer,
        save_every_s=job.save_every_s, log_every=job.log_every,
    )  # fmt: skip
    record.forget_after(-1 if saved is None else done)
    if saved is not None:
        checkpoints.load_state(record.last, job.module, optimizer)
        reporter.say(f"{job.label}: resuming after step {done} of {plan.steps}")
    if job.begin is not None:
        job.begin(Schedule(plan.steps, plan.steps_per_epoch, done, optimizer))
    if saved is None:
        _look(job, record, reporter, 0)
        record.save(0)
    with stop_requested() as stop, reporter.bar(job.label, plan.steps, done=done) as bar:
        clock = Clock(done)
        while done < plan.steps:
            _one_step(job, plan, optimizer, done, record, clock, bar)
            done += 1
            if job.watch is not None and job.watch.is_due(done, plan):
                _look(job, record, reporter, done)
            if stop.is_set():
                record.save(done)
                raise Interrupted(
                    f"{job.label} stopped after step {done} of {plan.steps}; the state is saved",
                    hint="call the same command with --resume to go on",
                )
            record.save_if_due(done)
    check_finite(job.module, done)
    record.save(done)
    return plan


def _one_step(
    job: Job,
    plan: Plan,
    optimizer: Optimizer,
    done: int,
    record: Record,
    clock: Clock,
    bar: Bar,
) -> None:
    """Take step ``done`` (from 0), unless it would do harm."""
    indices, epoch = plan.batch_indices(done), done // plan.steps_per_epoch
    for group in optimizer.param_groups:
        group["lr"] = plan.lr(done) * group.get("lr_mult", 1.0)
    terms = job.loss(job.module, indices, epoch)
    values = {name: float(term.detach()) for name, term in terms.items()}
    seen = {"the loss": values["total"]}
    if math.isfinite(values["total"]):
        backward(optimizer, terms)
        seen["the norm of the gradients"] = gradient_norm(optimizer)
    for what, value in seen.items():
        if not math.isfinite(value):
            raise Diverged(
                f"{job.label}: {what} became {value} at step {done}, learning rate "
                f"{plan.learning_rate:g}",
                hint="start a new run with a lower learning rate",
            )
    optimizer.step()
    told = None if job.after_step is None else job.after_step(done + 1)
    speed = clock.speed(done + 1, len(indices))
    bar.update(done + 1, f"loss {values['total']:.4g}  {speed:.0f} images/s")
    record.log(done + 1, epoch, values, speed, clock.seconds)
    if told:
        record.note(done + 1, epoch, told)


def _look(job: Job, record: Record, reporter: Reporter, done: int) -> None:
    """Measure, write it down, and act on an alarm."""
    if job.watch is None:
        return
    plan = record.plan
    place = {"step": done, "epoch": done // plan.steps_per_epoch}
    row = place | job.watch.look(warm=done > plan.warmup * plan.steps)
    record.monitor(row)
    if row["alarm"] is None or job.watch.collapse == "off":
        return
    if job.watch.collapse == "warn":
        reporter.warn(f"{job.label}: {row['alarm']}")
        return
    record.save(done)
    raise Collapsed(
        f"{job.label} stopped after epoch {place['epoch']} of {plan.epochs}: {row['alarm']}",
        hint="start a new run with a lower pretrain.learning_rate or gentler crops "
        "(pretrain.views.crop_scale), and look for duplicate images; or repeat the same command "
        "with --resume --set pretrain.monitor.collapse=warn",
    )


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
        return Plan.from_dict(facts["plan"]), done
    hooks = Hooks(job.begin, job.after_step, job.early_epochs)
    plan, seconds = fit_to_budget(job.plan, job.module, job.loss, job.max_seconds, hooks)
    if plan.epochs < job.plan.epochs:
        reporter.warn(
            f"{job.label}: {job.plan.epochs} epochs would take about "
            f"{seconds:.0f} s here; running {plan.epochs} to stay within "
            f"{job.max_seconds:.0f} s"
        )
    return plan, None


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str:
    keys = [k for k in sorted({*saved, *now}) if saved.get(k) != now.get(k)]
    return ", ".join(f"{k} was {saved.get(k)!r}, is {now.get(k)!r}" for k in keys[:3])

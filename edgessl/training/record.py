"""What a training leaves on disk: resumable states, ``metrics.jsonl`` and ``monitor.jsonl``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from edgessl.core import files
from edgessl.core.errors import Diverged
from edgessl.training import checkpoints
from edgessl.training.plan import Plan

METRICS, MONITOR = "metrics.jsonl", "monitor.jsonl"


class Record:
    """Saved states and measurements of one training; does nothing without a folder.

    Args:
        folder: Stage folder, or None.
        identity: What must be equal to resume a saved state.
        plan: Saved with the state.
        module: What trains.
        optimizer: Its state is saved too.
        save_every_s: Seconds between saved states.
        log_every: Steps between lines of ``metrics.jsonl``.
    """

    def __init__(
        self,
        folder: Path | None,
        identity: dict[str, Any],
        plan: Plan,
        module: nn.Module,
        optimizer: Optimizer,
        *,
        save_every_s: float,
        log_every: int,
    ) -> None:
        self.folder, self.identity, self.plan = folder, identity, plan
        self.module, self.optimizer = module, optimizer
        self.save_every_s, self.log_every = save_every_s, log_every
        self._saved = time.monotonic()

    @property
    def last(self) -> Path:
        """Folder of the saved state."""
        return (self.folder or Path()) / "last"

    def save(self, done: int) -> None:
        """Replace the saved state.

        Raises:
            Diverged: A weight is not finite; the state before is kept.
            DiskFull: No room; the state before is kept.
        """
        if self.folder is None:
            return
        check_finite(self.module, done)
        facts = {
            "identity": self.identity,
            "plan": asdict(self.plan),
            "threads": torch.get_num_threads(),
        }
        checkpoints.save_state(self.last, done, self.module, self.optimizer, facts)
        self._saved = time.monotonic()

    def save_if_due(self, done: int) -> None:
        """Save when the last state is old enough."""
        if time.monotonic() - self._saved >= self.save_every_s:
            self.save(done)

    def log(
        self, done: int, epoch: int, values: dict[str, float], speed: float, seconds: float
    ) -> None:
        """Write a line of ``metrics.jsonl`` when one is due."""
        if self.folder is None or (done % self.log_every and done != self.plan.steps):
            return
        row = {
            "step": done, "epoch": epoch, "loss": values, "lr": self.plan.lr(done - 1),
            "images_per_s": round(speed, 1), "seconds": round(seconds, 3),
        }  # fmt: skip
        files.append_jsonl(self.folder / METRICS, [row])

    def note(self, done: int, epoch: int, values: dict[str, Any]) -> None:
        """Write what happened at a step as a line of ``metrics.jsonl``, whenever it was."""
        if self.folder is not None:
            files.append_jsonl(self.folder / METRICS, [{"step": done, "epoch": epoch} | values])

    def monitor(self, row: dict[str, Any]) -> None:
        """Write a measurement as a line of ``monitor.jsonl``."""
        if self.folder is not None:
            files.append_jsonl(self.folder / MONITOR, [row])

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a kill undid, and torn ones; -1 drops all."""
        if self.folder is None:
            return
        for name in (METRICS, MONITOR):
            path = self.folder / name
            if not path.exists():
                continue
            kept = [row for row in files.read_jsonl(path) if row.get("step", 0) <= step]
            files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def check_finite(module: nn.Module, step: int) -> None:
    """Refuse weights that are not finite.

    Raises:
        Diverged: Names the first one.
    """
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise Diverged(
                f"{name} is no longer finite after step {step}",
                hint="start a new run with a lower learning rate",
            )


class Clock:
    """Seconds and images per second since training started or was resumed."""

    def __init__(self, done: int) -> None:
        self._first, self._start = done, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def speed(self, done: int, batch: int) -> float:
        """Images per second after ``done`` steps."""
        return (done - self._first) * batch / max(self.seconds, 1e-9)

"""Run folders: made once, never silently overwritten, found again by name or as ``last``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edgessl import __version__
from edgessl.core import files
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.locks import FILE as LOCK
from edgessl.core.locks import FolderLock, lock_folder

ROOT = Path("runs")
FILE = "run.json"
STAGES = ("pretrain", "evaluate", "finetune", "extract", "export", "bench", "report")
PACKAGES = (
    "numpy", "torch", "torchvision", "scikit-learn", "onnx", "onnxruntime", "onnxscript",
    "openvino", "litert-torch", "ai-edge-litert",
)  # fmt: skip


def now() -> str:
    """Return this moment as UTC in ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class RunFolder:
    """One run folder with its ``run.json``.

    Args:
        path: An existing run folder; use :meth:`create` for a new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FolderLock | None = None  # of a folder that is worked in
        self.facts: dict[str, Any] = (
            files.read_json(path / FILE, "run") if (path / FILE).is_file() else {}
        )

    @classmethod
    def create(cls, out: Path | None, name: str, *, resume: bool = False) -> RunFolder:
        """Make a new run folder, or open the one to resume; no other process may, meanwhile.

        Args:
            out: Where; None takes ``runs/<name>``, or ``runs/<name>-2`` and so on.
            name: Name of the recipe or command.
            resume: Open ``out`` (or the newest run of that name) if it exists.

        Raises:
            UsageProblem: The folder exists and is not empty, without ``resume``; or another
                process works in it.
            FileInvalid: The folder to resume is no run folder.
            EdgeSSLError: The folder cannot be written.
        """
        if out is None:
            taken = [p for p in _named(name) if p.exists()]
            out = taken[-1] if resume and taken else _named(name)[-1]
        _refuse_occupied(out, resume)
        lock = lock_folder(out)
        _refuse_occupied(out, resume)  # once more: another process may have ended just now
        files.sweep(out)
        run = cls(out)
        run._lock = lock
        if not run.facts:
            run._save({"started": now(), "commands": [], "stages": {}})
        return run

    @property
    def is_new(self) -> bool:
        """Whether no command has run in this folder yet."""
        return not self.facts.get("commands")

    def begin(self, command: list[str]) -> None:
        """Record a command line with the machine and the versions it runs on."""
        self._save(
            {
                "commands": [*self.facts.get("commands", []), command],
                "machine": machine_facts(),
                "versions": versions(),
            }
        )

    def remember_source(self, run_folder: Path) -> None:
        """Record the run that this one's input came from."""
        self._save({"source": str(run_folder)})

    def finish_stage(self, stage: str, seconds: float, status: str = "done") -> None:
        """Record that a stage ended: ``done``, ``kept`` or ``failed``."""
        stages = dict(self.facts.get("stages", {}))
        entry = {"status": status, "seconds": round(seconds, 3), "finished": now()}
        if status == "kept" and stage in stages:
            entry = stages[stage] | {"status": "done"}
        self._save({"stages": stages | {stage: entry}, "finished": now()})

    def _save(self, changes: dict[str, Any]) -> None:
        self.facts = {**self.facts, **changes}
        head = ("schema", "kind", "edgessl")
        body = {key: value for key, value in self.facts.items() if key not in head}
        files.write_json(self.path / FILE, "run", body)


def _refuse_occupied(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageProblem(f"{out} is a file, not a folder", hint="choose another --out")
    ours = (LOCK, files.PARTIAL)  # all there is when a process was killed at once
    occupied = out.is_dir() and any(not path.name.endswith(ours) for path in out.iterdir())
    if occupied and not resume:
        raise UsageProblem(
            f"{out} already exists and is not empty",
            hint="choose another --out, or continue that run with --resume",
        )
    if occupied and not (out / FILE).is_file():
        raise FileInvalid(f"{out} is not a run folder (no {FILE})", hint="choose another --out")


def _named(name: str) -> list[Path]:
    """Return the run folders of that name in order, and last the first free one."""
    found = [ROOT / name]
    while found[-1].exists():
        found.append(ROOT / f"{name}-{len(found) + 1}")
    return found


def last_run(places: Sequence[str] = ()) -> Path:
    """Return the run folder under ``runs/`` that was started last.

    Args:
        places: Globs below a run folder; only runs that have one of them count, if any do.

    Raises:
        UsageProblem: There is none.
    """
    started = {}
    for path in ROOT.glob(f"*/{FILE}"):
        with suppress(FileInvalid):  # a damaged run is no reason to find no other
            when = str(files.read_json(path, "run").get("started", ""))
            started[path.parent] = (when, path.stat().st_mtime)
    if not started:
        raise UsageProblem(
            f"there is no run under {ROOT}{os.sep}",
            hint="start one (edgessl run quickstart) or name a file or folder",
        )
    fitting = [run for run in started if any(any(run.glob(place)) for place in places)]
    return max(fitting or started, key=lambda run: started[run])


def resolve(what: str | Path | None, places: Sequence[str] = ()) -> Path:
    """Return the path meant by a positional argument: a path, or ``last`` (also for None).

    Args:
        what: As the user gave it.
        places: What ``last`` must have; see :func:`last_run`.

    Raises:
        FileInvalid: No such file or folder.
        UsageProblem: There is no last run.
    """
    if what is None or str(what) == "last":
        return last_run(places)
    path = Path(what)
    if not path.exists():
        raise FileInvalid(
            f"no such file or folder: {path}", hint="give a path, a run folder, or 'last'"
        )
    return path


def run_of(path: Path) -> Path | None:
    """Return the run folder that ``path`` lies in, if any."""
    return next((p for p in (path, *path.absolute().parents) if (p / FILE).is_file()), None)


def machine_facts() -> dict[str, Any]:
    """Say what this computer is; no user or host name."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_mb": _memory_mb(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
    }


def versions() -> dict[str, str]:
    """Return the versions of edgessl and of the packages that matter, where installed."""
    found = {"edgessl": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _memory_mb() -> int | None:
    try:
        line = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0]
        return int(line.split()[1]) // 1024
    except (OSError, ValueError, IndexError):
        return None

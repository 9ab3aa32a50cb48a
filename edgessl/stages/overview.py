"""What lies under ``runs/``: one line per run, whatever state it is in."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgessl.core import files
from edgessl.core.errors import EdgeSSLError, FileInvalid
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.locks import FILE as LOCK
from edgessl.core.measurement import VERDICT_ORDER, BenchResult
from edgessl.core.runs import FILE, ROOT, STAGES

# the figure of the furthest stage stands for a run; within a stage, the best variant
FIGURES = (
    ("export", "top1"), ("extract", "top1"), ("finetune", "top1"), ("evaluate", "linear_top1"),
    ("evaluate", "knn_top1"),
)  # fmt: skip
RESULTS = "bench/*/*/result.json"


def runs_in(folder: Path | None = None) -> list[dict[str, Any]]:
    """Describe the run folders in a folder, or the one that it is, the newest last.

    Args:
        folder: None means ``runs/``.

    Returns:
        Per run: ``name``, ``path``, ``command``, ``started`` (UTC), ``status`` (``done``,
        ``running``, ``unfinished``, ``failed``, ``interrupted``, ``damaged``), ``stages`` (name
        to status),
        ``best`` (a figure with its interval), ``verdict`` (the worst of its benches), ``bytes``
        and ``problem``.

    Raises:
        FileInvalid: No such folder.
    """
    folder = ROOT if folder is None else folder
    if (folder / FILE).is_file():
        return [_described(folder)]
    if not folder.is_dir():
        if folder == ROOT:
            return []
        raise FileInvalid(f"no such folder: {folder}", hint="give a run folder, or one of runs")
    found = [_described(path.parent) for path in folder.glob(f"*/{FILE}")]
    return sorted(found, key=lambda run: (run["started"], run["name"]))


def _described(folder: Path) -> dict[str, Any]:
    facts: Mapping[str, Any] = {}
    rows: Sequence[LedgerRow] = ()
    problems = []
    try:
        facts = files.read_json(folder / FILE, "run")
        rows = Ledger.open(folder).rows
    except EdgeSSLError as error:
        problems.append(error.message)
    stages = {
        str(name): str(entry.get("status", "")) if isinstance(entry, Mapping) else "damaged"
        for name, entry in _mapping(facts.get("stages")).items()
    }
    return {
        "name": folder.name,
        "path": str(folder),
        "command": _command(facts)[0],
        "started": str(facts.get("started", "")),
        "status": "damaged" if problems else _status(folder, facts, stages),
        "stages": stages,
        "best": _best(rows),
        "verdict": _verdict(folder),
        "bytes": _size(folder),
        "problem": "; ".join(problems) or None,
    }


def _status(folder: Path, facts: Mapping[str, Any], stages: Mapping[str, str]) -> str:
    """Return what the run came to; a stage that never ended leaves no entry behind."""
    if _is_locked(folder):
        return "running"
    for bad in ("interrupted", "failed"):
        if bad in stages.values():
            return bad
    command, words = _command(facts)
    last = "report" if command == "run" else command
    if "--until" in words[:-1]:
        last = words[words.index("--until") + 1]
    if last == "bench":  # its results speak for themselves
        return "done" if any(folder.glob(RESULTS)) else "unfinished"
    # without a command line the run was started from Python: all that is known is what it did
    ended = any(stage.split()[0] == last for stage in stages) if last else bool(stages)
    return "done" if ended else "unfinished"


def _is_locked(folder: Path) -> bool:
    """Whether a process works in the folder now; False where that cannot be known."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with (folder / LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _command(facts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the command that made the run, '' for one from Python, and its whole line."""
    words = [str(word) for word in _list(next(iter(_list(facts.get("commands"))), None))]
    return next((word for word in words[1:] if word in (*STAGES, "run")), ""), words


def _best(rows: Sequence[LedgerRow]) -> dict[str, Any] | None:
    for stage, metric in FIGURES:
        found = [
            row
            for row in rows
            if (row.stage, row.metric) == (stage, metric)
            and row.variant != "pixels"
            and (row.draw is None or stage in ("extract", "export"))
        ]
        if found:
            keys = (
                "stage", "variant", "width", "target", "metric", "value", "ci_low", "ci_high",
                "n", "labels_per_class",
            )  # fmt: skip
            return max(found, key=lambda row: row.value).model_dump(mode="json", include=set(keys))
    return None


def _verdict(folder: Path) -> str | None:
    """Return the worst verdict of all benches; None where there is none that can be read."""
    verdicts = []
    for path in folder.glob(RESULTS):
        try:
            verdicts.append(BenchResult.model_validate(files.read_json(path, "bench-result")))
        except (EdgeSSLError, ValidationError):
            return "damaged"
    return min((r.verdict for r in verdicts), key=VERDICT_ORDER.index, default=None)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:  # it went away while we looked, or may not be seen
            continue
    return total


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

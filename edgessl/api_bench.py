"""The Python API of the command bench; part of :mod:`edgessl.api`."""

# ruff: noqa: PLR0913  (a function has one parameter per option)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgessl.core.console import Reporter
from edgessl.core.registry import require_training
from edgessl.core.runs import run_of
from edgessl.outcome import Outcome
from edgessl.stages.opening import export_folders, lineage, open_run

Settings = Mapping[str, Any]


def bench(
    artifacts: Sequence[str | Path] = (),
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Measure exported files on a device.

    Args:
        artifacts: Export folders, or run folders (all their exports); empty means the last run.
        settings: Dotted recipe values, for example ``{"bench.preset": "standard"}``.
        out: Run folder.
        resume: Continue in that folder; finished benches are kept.
        reporter: Speaks to the user.

    Returns:
        All results; ``errors`` holds what could not be measured, and a MeasurementNotValid when
        a verdict is not VALID and that is not allowed.
    """
    from edgessl.stages.bench import find_source, run_bench
    from edgessl.stages.board_opening import check_bench

    folders = export_folders(artifacts)
    context = open_run("bench", folders[0], settings, out, resume, reporter, check_bench)
    runs = lineage(found) if (found := run_of(folders[0])) else []
    results, errors = run_bench(context, find_source(context, folders[0], runs), folders)
    figures = [r.model_dump(mode="json", by_alias=True) for r in results]
    result = {"results": figures}
    return Outcome("bench", context.run.path, result, "edgessl report last", tuple(errors))


def bench_untrained(
    encoders: Sequence[str],
    widths: Sequence[float],
    sizes: Sequence[int],
    *,
    target: str | None = None,
    images: str | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Measure a grid of untrained nets on a device, to choose width and size before training.

    Args:
        encoders: Names of encoders.
        widths: Width multipliers.
        sizes: Sides of the input in pixels.
        target: Format of the files; None takes what the device runs best.
        images: Source of real images; None takes those of ``edgessl.yaml``, else the digits.
        settings: Dotted recipe values, for example ``{"bench.device": "kitchen"}``.
        out: Run folder.
        resume: Continue in that folder; finished configurations are kept.
        reporter: Speaks to the user.

    Returns:
        ``rows`` (also in ``grid.json`` and ``grid.csv``) and ``table``, the same as text; errors
        as of :func:`bench`.
    """
    require_training("bench --encoder")
    from edgessl.stages.bench import verdict_problems
    from edgessl.stages.board_opening import check_bench, open_device
    from edgessl.stages.conversion import check_installed
    from edgessl.stages.grid import cells_of, run_grid, table_rows

    cells = cells_of(encoders, widths, sizes)
    if target is not None:
        check_installed(target, str((settings or {}).get("export.quantize") or "none"))
    context = open_run("bench", None, settings, out, resume, reporter, check_bench)
    section, data = context.recipe.bench, context.recipe.data
    source = images or data.unlabeled or data.labelled or "digits"
    rows, results, errors = run_grid(context, open_device(section), cells, target, source)
    errors += verdict_problems(results, section.allow_unstable)
    result = {
        "rows": [asdict(row) for row in rows],
        "table": table_rows(rows, results),
        "errors": [error.as_dict() for error in errors],
    }
    return Outcome("bench", context.run.path, result, "edgessl report last", tuple(errors))

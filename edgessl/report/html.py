"""report.html: one file that needs no network, no script and no server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgessl import __version__
from edgessl.core import files
from edgessl.core.errors import UsageProblem
from edgessl.core.measurement import PERCENTILE_FLOORS, VERDICT_ORDER
from edgessl.report import facts, findings, formats
from edgessl.report.accuracy import FOLD_CHOICES
from edgessl.report.accuracy_plots import point_plots, step_groups, step_plots
from edgessl.report.bench_groups import bench_groups
from edgessl.report.grid import NOTES as GRID_NOTES
from edgessl.report.label_curve import label_curves
from edgessl.report.latency import MEANINGS
from edgessl.report.mistakes import ROOM, mistakes
from edgessl.report.plot_lines import sample_mark
from edgessl.report.proofs import SYMBOLS
from edgessl.report.read import read_run
from edgessl.report.summary import Summary, summarise
from edgessl.report.tolerant import mapping
from edgessl.report.training import training_curves
from edgessl.report.tried import resize_rows
from edgessl.report.variants import NAMES
from edgessl.report.waterfall import agreements, doubts
from edgessl.report.widths import widths_side_by_side

CLASSES_SHOWN = 60
RECALLS_SHOWN = 12  # of so many classes the recall is in sight, of the others it is folded away


def write_report(run_folders: Sequence[Path], out: Path) -> Path:
    """Write one HTML page about one or several runs.

    Args:
        run_folders: Run folders; whatever a folder lacks is named as not run.
        out: The file to write, or a folder that gets ``report.html``.

    Raises:
        UsageProblem: No run folder was given.
        FileInvalid: One of them is not a run folder, or its ledger cannot be read; nothing is
            written.
    """
    if not run_folders:
        raise UsageProblem("no run folder to report on", hint="edgessl report runs/<name>")
    summaries = [summarise(read_run(Path(folder))) for folder in run_folders]
    page = environment(autoescape=True).get_template("report.html.j2")
    target = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    text = page.render(
        runs=[_context(summary, ROOM // len(summaries)) for summary in summaries],
        grid_notes=GRID_NOTES,
        meanings={verdict: MEANINGS[verdict] for verdict in reversed(VERDICT_ORDER)},
        floors=PERCENTILE_FLOORS,
        sample_mark=sample_mark,
        names=NAMES,
        symbols=SYMBOLS,
        fold_choices=FOLD_CHOICES,
        validation=summaries[0].findings.validation if len(summaries) == 1 else None,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    files.write_text(target, writable(text))
    return target


def writable(text: str) -> str:
    """Replace what UTF-8 or HTML cannot hold: file names may contain any byte."""
    known = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", known)


@cache
def environment(*, autoescape: bool) -> Environment:
    """Return the template environment; names that do not exist are errors."""
    found = Environment(
        loader=PackageLoader("edgessl.report", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "percent_range", "points", "points_range", "count", "size", "plain"):
        found.filters[name] = getattr(formats, name)
    found.filters |= {"duration": formats.duration, "budget": formats.budget}
    return found


def _context(summary: Summary, room: int) -> dict[str, Any]:
    run = summary.run
    parts = {
        "name": run.name,
        "run": run,
        "summary": summary,
        "headline": summary.headline,
        "title": summary.title,
        "point_plots": point_plots(summary),
        "label_curves": label_curves(summary.points, summary.findings),
        "step_plots": step_plots(summary),
        "step_groups": step_groups(summary.steps),
        "agreements": agreements(run, summary.steps),
        "doubts": doubts(summary.steps),
        "widths": widths_side_by_side(run, summary.points, summary.benches),
        "groups": bench_groups(summary.benches),
        "grid": summary.grid,
        "only_grid": summary.only_grid,
        "resizes": resize_rows(run.resizes),
        "mistakes": {m.width: m for m in mistakes(run, room)},
        "recalls_shown": RECALLS_SHOWN,
        "pretrain_curves": training_curves(run.pretrainings, "Pretraining"),
        "finetune_curves": training_curves(run.finetunings, "Fine-tuning"),
        "classes": run.class_names,
        "classes_shown": CLASSES_SHOWN,
        "pairs_shown": findings.PAIRS_SHOWN,
        "bars_shown": findings.CLASSES_SHOWN,
        "equivalences": {
            width: (
                facts.passed_of(document),
                facts.plain_facts(document),
                facts.nested_facts(document),
            )
            for width, document in run.equivalences.items()
        },
        "commands": facts.commands_of(run),
        "machine": formats.flatten(mapping(run.facts.get("machine"))),
        "versions": formats.flatten(mapping(run.facts.get("versions"))),
        "stages": facts.stage_seconds(run),
        "started": facts.moment(run.facts.get("started")),
        "finished": facts.moment(run.facts.get("finished")),
    }
    # last: everything above may add to the notes
    return parts | {"problems": list(run.notes.lines)}

"""report.html: one file that needs no network, no script and no server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgessl import __version__
from edgessl.core import files
from edgessl.core.errors import UsageProblem
from edgessl.core.measurement import PERCENTILE_FLOORS, VERDICT_ORDER
from edgessl.report import facts, formats, plots
from edgessl.report.accuracy import Point
from edgessl.report.curves import curves
from edgessl.report.headline import Summary, summarise
from edgessl.report.latency import MEANINGS, accuracy_against_latency
from edgessl.report.read import read_run
from edgessl.report.svg import Axis
from edgessl.report.waterfall import doubts

CLASSES_SHOWN = 60


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
        runs=[_context(summary) for summary in summaries],
        meanings={verdict: MEANINGS[verdict] for verdict in reversed(VERDICT_ORDER)},
        floors=PERCENTILE_FLOORS,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    files.write_text(target, text)
    return target


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


def _context(summary: Summary) -> dict[str, Any]:
    run = summary.run
    return {
        "name": run.name,
        "run": run,
        "headline": summary.headline,
        "points": summary.points,
        "judgements": summary.judgements,
        "point_plots": _point_plots(summary.points),
        "steps": summary.steps,
        "step_plot": _step_plot(summary),
        "doubts": doubts(summary.steps),
        "benches": summary.benches,
        "tradeoff": accuracy_against_latency(summary.benches),
        "pretrain_curves": curves(run.pretrain_metrics, "Pretraining"),
        "finetune_curves": curves(run.finetune_metrics, "Fine-tuning"),
        "splits": facts.split_counts(run),
        "classes": facts.class_names(run),
        "classes_shown": CLASSES_SHOWN,
        "skipped": facts.skipped_files(run),
        "data_facts": facts.plain_facts(run.splits),
        "equivalences": {
            width: (
                facts.passed_of(document),
                facts.plain_facts(document),
                facts.nested_facts(document),
            )
            for width, document in run.equivalences.items()
        },
        "commands": facts.commands_of(run),
        "machine": formats.flatten(facts.mapping(run.facts.get("machine"))),
        "versions": formats.flatten(facts.mapping(run.facts.get("versions"))),
        "stages": facts.stage_seconds(run),
        "started": facts.moment(run.facts.get("started")),
        "finished": facts.moment(run.facts.get("finished")),
        "unmeasured": summary.unmeasured,
    }


def _point_plots(points: Sequence[Point]) -> list[tuple[str, Markup]]:
    """Draw one plot per label budget and split, all on the same axis."""
    if not points:
        return []
    values = [p.value for p in points] + [v for p in points for v in (p.low, p.high) if v]
    values += [draw for p in points for draw in p.draws]
    axis = Axis.around([100 * v for v in values], floor=0.0, ceiling=100.0)
    found = []
    for key in dict.fromkeys((p.labels_per_class, p.split) for p in points):
        group = [p for p in points if (p.labels_per_class, p.split) == key]
        title = formats.budget(key[0]) + (f", {key[1]} split" if key[1] else "")
        rows = [
            plots.DotRow(
                label=p.label,
                text=f"{formats.percent(p.value)} {formats.percent_range(p.low, p.high)}".strip(),
                value=100 * p.value,
                low=None if p.low is None else 100 * p.low,
                high=None if p.high is None else 100 * p.high,
                dots=tuple(100 * draw for draw in p.draws),
                shape=p.shape,
            )
            for p in group
        ]
        found.append((title, plots.dot_rows(f"Top-1 with {title}", rows, axis, "%")))
    return found


def _step_plot(summary: Summary) -> Markup | None:
    rows = [
        plots.DotRow(
            label=f"{step.label}{' (' + step.verdict + ')' if step.verdict else ''}",
            text=f"{formats.percent(step.row.value)}",
            value=100 * step.row.value,
            low=None if step.row.ci_low is None else 100 * step.row.ci_low,
            high=None if step.row.ci_high is None else 100 * step.row.ci_high,
            shape="round" if step.verdict in ("", "VALID") else "ring",
        )
        for step in summary.steps
    ]
    if len(rows) < 2:
        return None
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None]
    axis = Axis.around(values, floor=0.0, ceiling=100.0)
    return plots.dot_rows("Top-1 from training to the device", rows, axis, "%")

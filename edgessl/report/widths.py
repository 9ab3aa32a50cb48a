"""Several widths side by side: what each slim net costs and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.report.accuracy import Point
from edgessl.report.exports import file_title
from edgessl.report.formats import MISSING, percent, percent_range, size
from edgessl.report.found import FoundArtifact
from edgessl.report.latency import BenchView, best
from edgessl.report.read import Run


@dataclass(frozen=True, slots=True)
class WidthRow:
    """One width: its cost, its accuracy and its fastest sound bench."""

    width: str
    parameters: str
    macs: str
    file: str
    top1: str
    interval: str
    about: str
    view: BenchView | None


def widths_side_by_side(
    run: Run, found: Sequence[Point], views: Sequence[BenchView]
) -> list[WidthRow]:
    """Return one row per width; empty when there is only one."""
    if len(run.widths) < 2:
        return []
    return [_row(run, width, found, views) for width in run.widths]


def _row(run: Run, width: str, found: Sequence[Point], views: Sequence[BenchView]) -> WidthRow:
    net = next((a for a in run.artifacts if a.folder == f"extract/{width}"), None)
    proven = [p for p in run.proofs if p.width == width and p.passed]
    smallest = min(proven, key=lambda p: p.bytes, default=None)
    row = next(
        (r for r in run.rows if (r.stage, r.width, r.metric) == ("extract", width, "top1")), None
    )
    if row:
        figure = (row.value, row.ci_low, row.ci_high)
        about = f"extracted net, n {row.n:,}"
    else:
        own = [p for p in found if p.width == width and not p.frozen]
        best_point = max(own, key=lambda p: p.value, default=None)
        figure = (best_point.value, best_point.low, best_point.high) if best_point else None
        about = best_point.label if best_point else "not measured"
    of_width = [view for view in views if view.width == width]
    return WidthRow(
        width=width,
        parameters=_millions(net, "parameters"),
        macs=_millions(net, "macs"),
        file=f"{size(smallest.bytes)}, {file_title(smallest)}" if smallest else MISSING,
        top1=percent(figure[0]) if figure else MISSING,
        interval=percent_range(figure[1], figure[2]) if figure else "",
        about=about,
        view=best(of_width, width),
    )


def _millions(net: FoundArtifact | None, name: str) -> str:
    value = net.artifact.facts.get(name) if net else None
    return f"{value / 1e6:.2f} M" if isinstance(value, int) and value > 0 else MISSING

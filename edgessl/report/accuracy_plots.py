"""The accuracy figures drawn: each kind of training, and the steps from probe to device."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgessl.report import formats
from edgessl.report.accuracy import Point, widths_of
from edgessl.report.plots import DotRow, dot_rows
from edgessl.report.summary import Summary
from edgessl.report.svg import Axis
from edgessl.report.variants import full_name, look
from edgessl.report.waterfall import Step, step_name

PANELS = 2  # label budgets drawn one by one; of more only the first, as the curve shows all


def point_plots(summary: Summary) -> list[tuple[str, Markup]]:
    """Draw one plot per width and label budget, all on the same axis.

    The budget of the headline comes first; with many budgets the curve takes their place.
    """
    points = summary.points
    if not points:
        return []
    judgement = summary.headline.judgement
    first = judgement.labels_per_class if judgement else None
    budgets = list(dict.fromkeys(p.labels_per_class for p in points))
    budgets.sort(key=lambda b: (b != first, not _tuned_at(points, b)))
    del budgets[PANELS if len(budgets) <= PANELS else 1 :]
    shown = [p for p in points if p.labels_per_class in budgets]
    values = [v for p in shown for v in (p.value, p.low, p.high, *p.draws.values())]
    axis = Axis.around([100 * v for v in values if v is not None], floor=0.0, ceiling=100.0)
    widths = widths_of(shown)
    found = []
    for labels in budgets:
        for width in widths:
            group = [p for p in shown if p.labels_per_class == labels and p.width in ("", width)]
            if not group:
                continue
            splits = ", ".join(dict.fromkeys(p.split for p in group if p.split))
            title = formats.budget(labels) + (f", {splits}" if splits else "")
            title += f", {width}" if len(widths) > 1 else ""
            found.append((title, dot_rows(f"Top-1 with {title}", _rows(group), axis, "%")))
    return found


def step_plots(summary: Summary) -> list[tuple[str, Markup]]:
    """Draw the waterfall of each width, all on the same axis."""
    values = [
        100 * v
        for step in summary.steps
        for v in (step.row.value, step.row.ci_low, step.row.ci_high)
        if v is not None
    ]
    axis = Axis.around(values, floor=0.0, ceiling=100.0)
    found = []
    groups = step_groups(summary.steps)
    for width, steps in groups:
        if len(steps) > 1:
            title = f"Top-1 from the probe to the device{', ' + width if width else ''}"
            picture = dot_rows(
                title, [_step_row(s) for s in steps], axis, "%", joints=_joints(steps)
            )
            found.append((width if len(groups) > 1 else "", picture))
    return found


def step_groups(steps: Sequence[Step]) -> list[tuple[str, list[Step]]]:
    """Return (width, its steps), in the order of the steps."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.row.width or "", []).append(step)
    return list(groups.items())


def _joints(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """Return (row of the form before, row of the form after) for each step."""
    places = {step.row.id: index for index, step in enumerate(steps)}
    return [
        (places[step.before.id], index)
        for index, step in enumerate(steps)
        if step.before and step.before.id in places
    ]


def _tuned_at(points: Sequence[Point], labels: int | None) -> bool:
    return any(not p.frozen for p in points if p.labels_per_class == labels)


def _rows(group: Sequence[Point]) -> list[DotRow]:
    return [
        DotRow(
            label=full_name(p.variant, p.metric),  # the panel has the width; phones are narrow
            text=f"{formats.percent(p.value)} {formats.percent_range(p.low, p.high)}".strip(),
            value=100 * p.value,
            low=None if p.low is None else 100 * p.low,
            high=None if p.high is None else 100 * p.high,
            dots=tuple(100 * draw for draw in p.draws.values()) if len(p.draws) > 1 else (),
            shape=look(p.variant).shape,
            css=look(p.variant).css,
            hollow=p.frozen,
        )
        for p in group
    ]


def _step_row(step: Step) -> DotRow:
    row = step.row
    doubtful = bool(step.doubt)
    frozen = row.metric != "top1"
    return DotRow(
        label=step_name(row, short=True, proof=step.proof)
        + (f" ({step.doubt})" if doubtful else ""),
        text=formats.percent(row.value),
        value=100 * row.value,
        low=None if row.ci_low is None else 100 * row.ci_low,
        high=None if row.ci_high is None else 100 * row.ci_high,
        shape=look(row.variant).shape,
        css=look(row.variant).css,
        hollow=doubtful or frozen,
    )

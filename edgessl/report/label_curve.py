"""The label-budget curve: what each variant reaches with how many labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgessl.report.accuracy import Point, widths_of
from edgessl.report.findings import Findings
from edgessl.report.formats import budget, count, percent, percent_range
from edgessl.report.plot_lines import Series, lines
from edgessl.report.svg import Axis
from edgessl.report.variants import look, order, short_name

BEYOND = 2.0  # how far behind the largest budget "all" stands where its size is not known


@dataclass(frozen=True, slots=True)
class LabelCurve:
    """The panels of one width; ``note`` says where "all labels" stands on the axis."""

    width: str
    panels: list[tuple[str, Markup]]
    note: str


def label_curves(found: Sequence[Point], findings: Findings) -> list[LabelCurve]:
    """Draw one curve per variant for each width that was tried at two budgets or more."""
    known = [p for p in found if p.metric in ("linear_top1", "top1")]
    curves = []
    for width in widths_of(known):
        here = [p for p in known if p.width in ("", width)]
        budgets = {p.labels_per_class for p in here}
        if len(budgets) < 2:
            continue
        x_axis, note = _label_axis(budgets, findings)
        values = [100 * v for p in here for v in (p.value, p.low, p.high) if v is not None]
        y_axis = Axis.around(values, wanted=5, floor=0.0, ceiling=100.0)
        tuned = {p.labels_per_class for p in here if not p.frozen}
        groups = [("Linear probe on frozen features", [p for p in here if p.frozen])]
        if len(tuned) > 1:
            groups.append(("Fine-tuned", [p for p in here if not p.frozen]))
        elif tuned:
            title = "Linear probe; filled marks: fine-tuned"
            groups = [(title, here)]
        panels = [
            (title, _panel(f"{title}, {width}", group, x_axis, y_axis))
            for title, group in groups
            if group
        ]
        curves.append(LabelCurve(width, panels, note))
    return curves


def _label_axis(budgets: set[int | None], findings: Findings) -> tuple[Axis, str]:
    numbers = sorted(float(b) for b in budgets if b is not None and b > 0)
    ticks, names = numbers, [f"{b:g}" for b in numbers]
    note = ""
    if None in budgets:
        end = numbers[-1] if numbers else 1.0
        mean = findings.training_images_per_class
        if mean and mean > end:
            ticks, names = [*numbers, mean], [*names, "all"]
            note = f"All: {count(round(mean))} training images per class, on average."
        else:
            ticks, names = [*numbers, end * BEYOND], [*names, "all"]
            note = (
                "How many images per class 'all' means is not recorded; its place is not to scale."
            )
    shown = _not_crowded(ticks)
    return (
        Axis(
            ticks[0],
            ticks[-1] if len(ticks) > 1 else ticks[0] * 2,
            tuple(ticks[i] for i in shown),
            tuple(names[i] for i in shown),
            log=True,
        ),
        note,
    )


def _not_crowded(ticks: Sequence[float]) -> list[int]:
    """Return the ticks that stand apart enough to be named, the ends among them."""
    span = math.log(ticks[-1] / ticks[0]) or 1.0
    kept = [len(ticks) - 1]
    for index in range(len(ticks) - 2, -1, -1):
        if math.log(ticks[kept[-1]] / ticks[index]) / span > 0.09:
            kept.append(index)
    return kept[::-1]


def _panel(title: str, group: Sequence[Point], x_axis: Axis, y_axis: Axis) -> Markup:
    series = []
    keys = dict.fromkeys((p.variant, p.metric) for p in group)
    names = [variant for variant, _ in keys]
    for variant, metric in sorted(keys, key=lambda key: (order(key[0]), key[1])):
        own = [p for p in group if (p.variant, p.metric) == (variant, metric)]
        own.sort(key=lambda p: _place(p, x_axis))
        known = ", ".join(
            f"{percent(p.value)} {percent_range(p.low, p.high)} with {budget(p.labels_per_class)}"
            for p in own
        )
        frozen = own[0].frozen
        alone = len(own) == 1 and names.count(variant) > 1
        series.append(
            Series(
                end="" if alone else short_name(variant),
                text=f"{own[0].label}: {known}",
                xs=[_place(p, x_axis) for p in own],
                ys=[100 * p.value for p in own],
                lows=[None if p.low is None else 100 * p.low for p in own],
                highs=[None if p.high is None else 100 * p.high for p in own],
                css=look(variant).css,
                shape=look(variant).shape,
                dashed=frozen,
            )
        )
    return lines(
        f"Top-1 against labels per class: {title}", series, x_axis, y_axis,
        height=260, x_name="labels per class, logarithmic", y_name="Top-1, %",
    )  # fmt: skip


def _place(point: Point, x_axis: Axis) -> float:
    return x_axis.high if point.labels_per_class is None else float(point.labels_per_class)

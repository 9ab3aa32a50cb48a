"""The plots of the report: small SVG, no scripts, light and dark alike (see ``svg``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape

from edgessl.report.svg import (
    Axis,
    figure,
    horizontal_grid,
    interval_line,
    pc,
    point,
    stretched,
    tag,
    vertical_grid,
    words_at,
)

SHOWN_POINTS = 2000  # more samples than this are drawn in groups, and the caption says so


@dataclass(frozen=True, slots=True)
class DotRow:
    """One line of a dot-and-interval plot; values are in the unit of the axis."""

    label: str
    text: str
    value: float | None
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    shape: str = "round"  # round, ring, square or diamond: never told apart by colour alone


@dataclass(frozen=True, slots=True)
class Mark:
    """One labelled point of a scatter plot with its intervals."""

    label: str
    x: float
    y: float
    x_low: float | None = None
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    solid: bool = True


def dot_rows(title: str, rows: Sequence[DotRow], axis: Axis, unit: str) -> Markup:
    """Draw one row per figure: the label above, the interval, the value, single draws behind."""
    step, top = 46, 6
    bottom = top + step * len(rows)
    parts = vertical_grid(axis, top, bottom, unit)
    for index, row in enumerate(rows):
        y = top + step * index
        parts.append(words_at(0, y + 15, row.label, "label"))
        parts.append(words_at(100, y + 15, row.text, "value", anchor="end"))
        y += 30
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="track"))
        parts += [tag("circle", cx=pc(axis.at(dot)), cy=y, r=3, class_="draw") for dot in row.dots]
        if row.low is not None and row.high is not None:
            parts.append(interval_line(axis.at(row.low), axis.at(row.high), y, row.shape))
        if row.value is not None:
            parts.append(point(row.shape, axis.at(row.value), y))
    text = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return figure(title, f"{title}. {text}", bottom + 24, parts)


def histogram(title: str, samples: Sequence[float], lines: dict[str, float]) -> tuple[Markup, int]:
    """Draw ``samples`` (ms) in bins and return how many lie beyond the axis, for the caption."""
    height, top = 150, 22
    axis = Axis.around([min(samples), usual_end(samples)], wanted=5, floor=0.0)
    inside = [value for value in samples if value <= axis.high]
    bins = max(8, min(48, round(math.sqrt(len(inside)))))
    counts = [0] * bins
    for value in inside:
        place = (value - axis.low) / (axis.high - axis.low)
        counts[min(bins - 1, int(place * bins))] += 1
    highest = max(counts)
    parts = vertical_grid(axis, top, top + height, " ms")
    for index, number in enumerate(counts):
        if number:
            tall = max(1.0, height * number / highest)
            parts.append(
                tag(
                    "rect",
                    x=pc(100 * index / bins),
                    y=round(top + height - tall, 1),
                    width=pc(100 / bins - 0.15),
                    height=round(tall, 1),
                    class_="bar",
                )
            )
    parts += _vertical_lines(axis, lines, top, top + height)
    text = f"{title}: {len(samples)} samples from {min(samples):.4g} to {max(samples):.4g} ms"
    return figure(title, text, top + height + 24, parts), len(samples) - len(inside)


def usual_end(samples: Sequence[float]) -> float:
    """Return where an axis may end: the greatest sample, or the 99th percentile if far below.

    A few stragglers would squeeze all others into a corner; plots say how many lie beyond.
    """
    ordered = sorted(samples)
    usual = ordered[math.ceil(0.99 * len(ordered)) - 1]
    far = ordered[-1] > ordered[0] + 1.5 * (usual - ordered[0])
    return usual if far and len(ordered) >= 100 else ordered[-1]


def time_order(
    title: str, samples: Sequence[float], starts: Sequence[int] = ()
) -> tuple[Markup, int]:
    """Draw ``samples`` (ms) in the order taken; above SHOWN_POINTS in groups.

    Returns the plot and how many samples lie above it and are marked at its upper edge.

    A group is a line from its least to its greatest sample with a dot at its median, so that no
    straggler is lost. ``starts`` are the sample indices at which a new repeat begins.
    """
    height, top = 150, 22
    axis = Axis.around([0.0, usual_end(samples)], wanted=4, floor=0.0)
    n = len(samples)
    group = group_size(n)
    parts = horizontal_grid(axis, top, height)
    dots, bars, over = [], [], []
    for start in range(0, n, group):
        part = samples[start : start + group]
        x = round(1000 * (start + len(part) / 2) / n, 1)
        if max(part) > axis.high:
            over.append(f"M{x} 0v-50")
        if group > 1 or max(part) <= axis.high:
            dots.append(f"M{x} {_down(axis, median(part))}h0")
        if group > 1:
            bars.append(f"M{x} {_down(axis, max(part))}V{_down(axis, min(part))}")
    parts.append(
        stretched(
            top,
            height,
            [
                tag("path", d="".join(bars), class_="range") if bars else Markup(""),
                tag("path", d="".join(dots), class_="dots"),
                tag("path", d="".join(over), class_="over") if over else Markup(""),
            ],
        )
    )
    for start in starts:
        x = pc(100 * start / n)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=top + height, class_="divider"))
    parts.append(words_at(0, top + height + 17, "first sample", "tick"))
    parts.append(words_at(100, top + height + 17, f"sample {n}", "tick", "end"))
    picture = figure(
        title, f"{title}: {n} samples in the order taken", top + height + 24, parts, gutter=True
    )
    return picture, sum(value > axis.high for value in samples)


def group_size(n: int) -> int:
    """Return how many samples one drawn point of :func:`time_order` stands for."""
    return 1 if n <= SHOWN_POINTS else math.ceil(n / (SHOWN_POINTS // 4))


def curve(title: str, xs: Sequence[float], ys: Sequence[float], x_name: str) -> Markup:
    """Draw one line; ``xs`` ascend."""
    height, top = 130, 8
    x_axis = Axis(xs[0], xs[-1] if xs[-1] > xs[0] else xs[0] + 1, ())
    axis = Axis.around(ys, wanted=3, floor=0.0 if min(ys) >= 0 else None)
    path = "L".join(
        f"{round(10 * x_axis.at(x), 1)} {_down(axis, y)}" for x, y in zip(xs, ys, strict=True)
    )
    parts = horizontal_grid(axis, top, height)
    parts.append(stretched(top, height, [tag("path", d="M" + path, class_="line")]))
    parts.append(tag("circle", cx="100%", cy=top + _down(axis, ys[-1]) * height / 1000, r=3.5))
    parts.append(words_at(0, top + height + 17, f"{x_name} {xs[0]:g}", "tick"))
    parts.append(words_at(100, top + height + 17, f"{x_name} {xs[-1]:g}", "tick", "end"))
    text = f"{title}: from {ys[0]:.4g} to {ys[-1]:.4g}"
    return figure(title, text, top + height + 24, parts, gutter=True)


def scatter(title: str, marks: Sequence[Mark], x_unit: str, y_unit: str) -> Markup:
    """Draw labelled points with their intervals; ``solid`` ones filled, the others hollow."""
    height, top = 240, 14
    x_axis = Axis.around(
        [v for m in marks for v in (m.x, m.x_low, m.x_high) if v is not None], wanted=4, floor=0.0
    )
    y_axis = Axis.around([v for m in marks for v in (m.y, m.y_low, m.y_high) if v is not None])
    parts = horizontal_grid(y_axis, top, height)
    parts += vertical_grid(x_axis, top, top + height, f" {x_unit}")
    taken: list[float] = []
    for mark in sorted(marks, key=lambda m: -m.y):
        x, y = x_axis.at(mark.x), top + _down(y_axis, mark.y) * height / 1000
        if mark.x_low is not None and mark.x_high is not None:
            parts.append(interval_line(x_axis.at(mark.x_low), x_axis.at(mark.x_high), y, "round"))
        if mark.y_low is not None and mark.y_high is not None:
            ends = [
                round(top + _down(y_axis, v) * height / 1000, 1) for v in (mark.y_low, mark.y_high)
            ]
            parts.append(tag("line", x1=pc(x), x2=pc(x), y1=ends[0], y2=ends[1], class_="interval"))
        parts.append(point("round" if mark.solid else "ring", x, y))
        place = y - 8
        while any(abs(place - other) < 16 for other in taken):
            place += 16
        taken.append(place)
        right = x > 50
        parts.append(
            tag(
                "text",
                escape(mark.label),
                x=pc(x),
                y=round(place, 1),
                dx=-9 if right else 9,
                text_anchor="end" if right else "start",
                class_="label",
            )
        )
    text = "; ".join(f"{m.label}: {m.x:.4g} {x_unit}, {m.y:.4g} {y_unit}" for m in marks)
    return figure(title, f"{title}. {text}", top + height + 24, parts, gutter=True)


def _vertical_lines(axis: Axis, lines: dict[str, float], top: float, bottom: float) -> list[Markup]:
    parts = []
    for name, value in lines.items():
        place = axis.at(value)
        x = pc(place)
        parts.append(tag("line", x1=x, x2=x, y1=top - 4, y2=bottom, class_="rule"))
        anchor = "end" if place > 85 else "start" if place < 8 or name != "p50" else "end"
        parts.append(words_at(place, top - 8, name, "tick strong", anchor))
    return parts


def _down(axis: Axis, value: float) -> float:
    return round(1000 - 10 * axis.at(value), 1)

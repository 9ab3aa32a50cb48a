"""Plots of figures with intervals: rows of dots and a scatter plot; small SVG, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgessl.report.svg import (
    Axis,
    figure,
    horizontal_grid,
    interval_line,
    mark,
    pc,
    tag,
    upright_line,
    vertical_grid,
    words_at,
)

LABELLED = 5  # so many points of a scatter plot are labelled in place, more get letters
LONGEST = 36  # characters of a label in place: two of them fit on a desk, one on a phone


@dataclass(frozen=True, slots=True)
class DotRow:
    """One line of a dot-and-interval plot; values are in the unit of the axis."""

    label: str
    text: str
    value: float
    low: float | None = None
    high: float | None = None
    dots: tuple[float, ...] = ()
    shape: str = "round"  # told apart by shape and by colour, never by colour alone
    css: str = ""
    hollow: bool = False


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
    shape: str = "round"
    css: str = ""


def dot_rows(
    title: str,
    rows: Sequence[DotRow],
    axis: Axis,
    unit: str,
    *,
    joints: Sequence[tuple[int, int]] = (),
) -> Markup:
    """Draw one row per figure: the label above, the interval, the value, single draws behind.

    ``joints`` are pairs of rows to connect, for steps that follow one another.
    """
    step, top = 46, 6
    bottom = top + step * len(rows)
    parts = vertical_grid(axis, top, bottom, unit)
    for before, after in joints:
        x, y = axis.at(rows[before].value), top + 30 + step * after
        parts.append(upright_line(x, top + 30 + step * before, y, "joint"))
        if rows[before].value != rows[after].value:
            ends = {"x1": pc(x), "x2": pc(axis.at(rows[after].value))}
            parts.append(tag("line", **ends, y1=y, y2=y, class_="joint"))
    for index, row in enumerate(rows):
        y = top + step * index
        parts.append(words_at(0, y + 15, row.label, "label"))
        parts.append(words_at(100, y + 15, row.text, "value", anchor="end"))
        y += 30
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="track"))
        if row.low is not None and row.high is not None:
            parts.append(interval_line(axis.at(row.low), axis.at(row.high), y, row.css))
        parts += [
            tag("circle", cx=pc(axis.at(dot)), cy=y, r=3, class_=f"draw {row.css}".strip())
            for dot in row.dots
        ]
        parts.append(mark(row.shape, axis.at(row.value), y, row.css, hollow=row.hollow))
    text = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return figure(title, f"{title}. {text}", bottom + 24, parts)


def scatter(
    title: str,
    marks: Sequence[Mark],
    x_name: str,
    y_name: str,
    *,
    from_zero: bool = False,
    letters: bool = False,
) -> tuple[Markup, bool]:
    """Draw points with their intervals; ``solid`` ones filled, the others hollow.

    Args:
        title: Of the plot.
        marks: The points.
        x_name: Quantity and unit; its axis is logarithmic where values span a factor of 20.
        y_name: Quantity and unit.
        from_zero: Whether both axes begin at zero where they are not logarithmic.
        letters: Whether the points carry letters (A for the first of ``marks``) however few.

    Returns:
        The plot, and whether the points carry letters: many or long labels have no room.
    """
    height, top = 280, 26
    xs = [v for m in marks for v in (m.x, m.x_low, m.x_high) if v is not None]
    ys = [v for m in marks for v in (m.y, m.y_low, m.y_high) if v is not None]
    x_axis = _wide_axis(xs, from_zero)
    y_axis = _wide_axis(ys, from_zero) if from_zero else Axis.around(ys)
    parts = horizontal_grid(y_axis, top, height)
    parts += vertical_grid(x_axis, top, top + height, "")
    x_name, y_name = (
        f"{name}, logarithmic" if axis.log else name
        for name, axis in ((x_name, x_axis), (y_name, y_axis))
    )
    parts.append(tag("text", escape(y_name), x=-38, y=12, class_="tick strong"))
    parts.append(words_at(100, top + height + 36, x_name, "tick strong", "end"))
    lettered = letters or len(marks) > LABELLED or max(len(m.label) for m in marks) > LONGEST
    places = {id(m): (x_axis.at(m.x), top + height * (1 - y_axis.at(m.y) / 100)) for m in marks}
    for m in marks:
        x, y = places[id(m)]
        if m.x_low is not None and m.x_high is not None:
            parts.append(interval_line(x_axis.at(m.x_low), x_axis.at(m.x_high), y, m.css))
        if m.y_low is not None and m.y_high is not None:
            ends = [top + height * (1 - y_axis.at(v) / 100) for v in (m.y_high, m.y_low)]
            parts.append(upright_line(x, ends[0], ends[1], f"interval {m.css}".strip()))
        parts.append(mark(m.shape, x, y, m.css, hollow=not m.solid))
    parts += _point_labels(marks, places, lettered)
    text = "; ".join(f"{m.label}: {m.x:.4g} {x_name}, {m.y:.4g} {y_name}" for m in marks)
    return figure(title, f"{title}. {text}", top + height + 44, parts, gutter=True), lettered


def _wide_axis(values: Sequence[float], from_zero: bool) -> Axis:
    """Return an axis of values above zero; logarithmic where they span a factor of 20."""
    if min(values) > 0 and max(values) > 20 * min(values):
        return Axis.decades(values)
    return Axis.around([*values, 0.0] if from_zero else values, wanted=4, floor=0.0)


def letter(index: int) -> str:
    """Return the letter of a point: A to Z, then A2 and so on."""
    return chr(ord("A") + index % 26) + (str(index // 26 + 1) if index >= 26 else "")


def _point_labels(
    marks: Sequence[Mark], places: dict[int, tuple[float, float]], lettered: bool
) -> list[Markup]:
    parts = []
    taken: list[tuple[float, float]] = []
    for index, m in sorted(enumerate(marks), key=lambda pair: -pair[1].y):
        x, y = places[id(m)]
        place = y - 9
        near = 6 if lettered else 101  # percent: letters are short, labels are not
        while any(abs(place - b) < 15 and abs(x - a) < near for a, b in taken):
            place += 15
        taken.append((x, place))
        left = x > 50
        parts.append(
            tag(
                "text",
                escape(letter(index) if lettered else m.label),
                x=pc(x),
                y=round(place, 1),
                dx=-9 if left else 9,
                text_anchor="end" if left else "start",
                class_="label",
            )
        )
    return parts

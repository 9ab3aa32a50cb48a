"""Line plots with bands, marks and labels at the ends of the lines; small SVG, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgessl.report.svg import (
    SHAPES,
    Axis,
    figure,
    horizontal_grid,
    mark,
    pc,
    stretched,
    tag,
    upright_line,
    vertical_grid,
    words_at,
)

APART = 15  # pixels between two labels
LONGEST = 22  # characters of a label at the end of a line


@dataclass(frozen=True, slots=True)
class Series:
    """One line; ``xs`` ascend. Bands are drawn where ``lows`` and ``highs`` are known.

    ``end`` is the label at the end of the line, ``text`` what a reader who cannot see hears.
    """

    end: str
    text: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float | None] = ()
    highs: Sequence[float | None] = ()
    css: str = ""
    shape: str = ""  # no marks when empty
    dashed: bool = False


def lines(
    title: str,
    series: Sequence[Series],
    x_axis: Axis,
    y_axis: Axis,
    *,
    height: int = 150,
    x_name: str = "",
    y_name: str = "",
    rules: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Draw lines over one another; ``rules`` are (x, words) of moments to mark."""
    top = 26 if y_name or rules else 10
    parts = horizontal_grid(y_axis, top, height)
    parts += vertical_grid(x_axis, top, top + height, "")
    if y_name:
        parts.append(tag("text", escape(y_name), x=-38, y=12, class_="tick strong"))
    bands = [_band(s, x_axis, y_axis) for s in series]
    strokes = [_stroke(s, x_axis, y_axis) for s in series if len(s.xs) > 1]
    parts.append(stretched(top, height, [*(b for b in bands if b), *strokes]))
    for at, words in rules:
        place = x_axis.at(at)
        parts.append(upright_line(place, top - 4, top + height, "alarm"))
        parts.append(words_at(place, top - 8, words, "care", "end" if place > 60 else "start"))
    for s in series:
        if s.shape or len(s.xs) == 1:
            parts += _marks(s, x_axis, y_axis, top, height)
    ends = [s for s in series if s.end]
    parts += _end_labels(ends, x_axis, y_axis, top, height)
    below = top + height
    if x_name:
        parts.append(words_at(100, below + 35, x_name, "tick strong", "end"))
    text = "; ".join(s.text for s in series)
    longest = max((len(_cut(s.end)) for s in ends), default=0)
    room = (36 if any(s.shape for s in ends) else 22) + round(7.7 * longest) if ends else 0
    return figure(
        title, f"{title}. {text}", below + (43 if x_name else 24), parts, gutter=True, ends=room
    )


def _stroke(s: Series, x_axis: Axis, y_axis: Axis) -> Markup:
    path = "L".join(
        f"{_right(x_axis, x)} {_down(y_axis, y)}" for x, y in zip(s.xs, s.ys, strict=True)
    )
    return tag("path", d=f"M{path}", class_=f"line {s.css}{' dashed' if s.dashed else ''}")


def _band(s: Series, x_axis: Axis, y_axis: Axis) -> Markup | None:
    known = [
        (_right(x_axis, x), _down(y_axis, low), _down(y_axis, high))
        for x, low, high in zip(s.xs, s.lows, s.highs, strict=False)
        if low is not None and high is not None
    ]
    if len(known) < 2:
        return None
    there = "L".join(f"{x} {high}" for x, _, high in known)
    back = "L".join(f"{x} {low}" for x, low, _ in reversed(known))
    return tag("path", d=f"M{there}L{back}z", class_=f"band {s.css}")


def _marks(s: Series, x_axis: Axis, y_axis: Axis, top: float, height: float) -> list[Markup]:
    parts = []
    for index, (x, y) in enumerate(zip(s.xs, s.ys, strict=True)):
        low = s.lows[index] if index < len(s.lows) else None
        high = s.highs[index] if index < len(s.highs) else None
        if low is not None and high is not None:
            ends = [_pixel(y_axis, v, top, height) for v in (high, low)]
            parts.append(upright_line(x_axis.at(x), ends[0], ends[1], f"interval thin {s.css}"))
        place = _pixel(y_axis, y, top, height)
        parts.append(mark(s.shape or "round", x_axis.at(x), place, s.css, hollow=s.dashed))
    return parts


def _end_labels(
    series: Sequence[Series], x_axis: Axis, y_axis: Axis, top: float, height: float
) -> list[Markup]:
    """Write each name at the end of its line, moved apart where the lines end close together."""
    ordered = sorted(series, key=lambda s: -s.ys[-1])
    points = [_pixel(y_axis, s.ys[-1], top, height) for s in ordered]
    places = spread(points, APART, top + 4, top + height)
    parts = []
    for s, point, place in zip(ordered, points, places, strict=True):
        last = x_axis.at(s.xs[-1])
        words = 32 if s.shape else 18
        if last < 99:
            parts.append(
                tag("line", x1=pc(last), x2="100%", y1=point, y2=point, class_=f"lead {s.css}")
            )
        inside = [
            tag("path", d=f"M7 {point}L14 {place}", class_=f"lead {s.css}"),
            tag("text", escape(_cut(s.end)), x=words, y=round(place + 4, 1), class_="end"),
        ]
        if s.shape:
            inside.append(mark(s.shape, 0, place, s.css, hollow=s.dashed, dx=22))
        parts.append(tag("svg", *inside, x="100%", y=0, class_="at"))
    return parts


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Move ascending places at least ``apart``, inside ``low`` to ``high`` where they fit."""
    places = list(wanted)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + apart)
    limit = high
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - apart
    floor = low
    for index, place in enumerate(places):
        places[index] = round(max(place, floor), 1)
        floor = places[index] + apart
    return places


def sample_mark(shape: str, css: str, *, hollow: bool = False) -> Markup:
    """Draw one mark for a text that explains it."""
    words = " ".join(word for word in ("mark", css, "hollow" if hollow else "") if word)
    inner = tag("path", d=SHAPES[shape], class_=words)
    box = {"viewBox": "-8 -8 16 16", "width": 14, "height": 14, "aria_hidden": "true"}
    return tag("svg", inner, class_="key", **box)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _right(axis: Axis, value: float) -> float:
    return round(10 * axis.at(value), 1)


def _down(axis: Axis, value: float) -> float:
    return round(1000 - 10 * axis.at(value), 1)


def _pixel(axis: Axis, value: float, top: float, height: float) -> float:
    return round(top + height * (1 - axis.at(value) / 100), 1)

"""Parts that the plots are made of: axes, marks and escaped SVG elements.

Horizontal positions are percentages and vertical ones pixels, so a plot fills any width while its
text keeps the size of the page. Curves live in a nested ``svg`` that is stretched; their strokes
are not (``vector-effect``). Colours come from the page's CSS.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# paths around the origin, of about the same area
SHAPES = {
    "round": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
    "square": "M-4.5 -4.5h9v9h-9z",
    "diamond": "M0 -6.4L6.4 0L0 6.4L-6.4 0z",
    "triangle": "M0 -6.4L6 4.4H-6z",
    "plus": "M-2.2 -6h4.4v3.8H6v4.4H2.2V6h-4.4V2.2H-6v-4.4h3.8z",
}
LARGEST = 1e100  # differences of larger values may be no numbers any more


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from ``low`` to ``high`` with its tick values, linear or logarithmic.

    ``names`` are the words at the ticks; without them the numbers are written out.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    names: tuple[str, ...] = ()
    log: bool = False

    @classmethod
    def around(
        cls,
        values: Iterable[float],
        *,
        wanted: int = 5,
        floor: float | None = None,
        ceiling: float | None = None,
    ) -> Axis:
        """Choose round limits around ``values``, not beyond ``floor`` and ``ceiling``."""
        known = [value for value in values if abs(value) <= LARGEST] or [0.0]
        low, high = min(known), max(known)
        pad = (high - low) * 0.03 or abs(high) * 0.1 or 1.0
        low = low - pad if floor is None else max(floor, low - pad)
        high = high + pad if ceiling is None else min(ceiling, high + pad)
        if high <= low:
            low, high = low - pad, high + pad
        step = _round_step((high - low) / wanted)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        steps = round((high - low) / step)
        return cls(low, high, tuple(low + step * i for i in range(steps + 1)))

    @classmethod
    def decades(cls, values: Iterable[float]) -> Axis:
        """Choose a logarithmic axis around positive ``values`` with ticks at 1, 2 and 5."""
        known = [value for value in values if math.isfinite(value) and value > 1e-9] or [1.0]
        marks = [
            mantissa * 10.0**power
            for power in range(math.floor(math.log10(min(known))) - 1, 309)
            if 10.0**power <= 10 * max(known)
            for mantissa in (1, 2, 5)
        ]
        first = max(i for i, mark in enumerate(marks) if mark <= min(known) * (1 + 1e-9))
        last = min(i for i, mark in enumerate(marks) if mark >= max(known) * (1 - 1e-9))
        ticks = marks[first : max(last, first + 1) + 1]
        shown = [t for t in ticks if len(ticks) <= 8 or f"{t:e}".startswith("1")]
        return cls(ticks[0], ticks[-1], tuple(shown), tuple(f"{t:g}" for t in shown), log=True)

    def at(self, value: float) -> float:
        """Place of ``value`` along the axis, in percent, kept inside it."""
        low, high = self.low, self.high
        if self.log:
            low, high = math.log(low), math.log(high)
            value = math.log(max(value, self.low))
        place = 100 * (value - low) / (high - low)
        return round(min(100.0, max(0.0, place)), 3)

    def text(self, tick: float) -> str:
        """Write a tick with as many decimals as the step needs."""
        if self.names:
            return self.names[self.ticks.index(tick)]
        step = (self.high - self.low) / max(1, len(self.ticks) - 1)
        decimals = next((d for d in range(6) if math.isclose(step, round(step, d))), 6)
        if decimals > 5 or self.high >= 1e7:
            largest = max(abs(self.low), abs(self.high))
            digits = max(1, math.ceil(math.log10(largest / step) - 1e-9) + 1)
            return f"{tick:.{digits}e}".replace("-", "−")
        return f"{tick:,.{decimals}f}".replace("-", "−")


def figure(
    title: str,
    description: str,
    height: float,
    parts: Sequence[Markup],
    *,
    gutter: bool = False,
    ends: int = 0,
) -> Markup:
    """Wrap the parts of a plot.

    ``gutter`` leaves a margin for ticks on the left, ``ends`` so many pixels for labels on the
    right.
    """
    # an id from the content: the same run gives the same bytes, other samples another id
    content = "|".join((title, description, *parts))
    name = "plot" + hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:10]
    head = [
        tag("title", escape(title), id=f"{name}t"),
        tag("desc", escape(description), id=f"{name}d"),
    ]
    return tag(
        "svg",
        *head,
        *parts,
        class_="plot gutter" if gutter else "plot",
        role="img",
        aria_labelledby=f"{name}t {name}d",
        width="100%",
        height=round(height),
        **({"style": f"--ends:{ends}px"} if ends else {}),
    )


def vertical_grid(axis: Axis, top: float, bottom: float, unit: str) -> list[Markup]:
    """Draw grid lines at the ticks with their labels below; the last names the unit."""
    parts = []
    last = len(axis.ticks) - 1
    for index, tick in enumerate(axis.ticks):
        x = pc(axis.at(tick))
        anchor = "start" if index == 0 else "end" if index == last else "middle"
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        label = axis.text(tick) + (unit if index == last else "")
        parts.append(words_at(axis.at(tick), bottom + 17, label, "tick", anchor))
    return parts


def horizontal_grid(axis: Axis, top: float, height: float) -> list[Markup]:
    """Draw grid lines at the ticks with their labels in the left margin."""
    parts: list[Markup] = []
    for tick in axis.ticks:
        y = round(top + height * (1 - axis.at(tick) / 100), 1)
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"))
        label = axis.text(tick)
        # in the margin that the class "gutter" leaves: pixels, whatever the width
        parts.append(tag("text", escape(label), x=-7, y=y + 4, text_anchor="end", class_="tick"))
    return parts


def interval_line(low: float, high: float, y: float, css: str) -> Markup:
    """Draw an interval between two places in percent, in the colour of a CSS class."""
    y = round(y, 1)
    return tag("line", x1=pc(low), x2=pc(high), y1=y, y2=y, class_=f"interval {css}".strip())


def upright_line(x: float, top: float, bottom: float, css: str) -> Markup:
    """Draw a vertical line; ``x`` in percent, the ends in pixels."""
    return tag("line", x1=pc(x), x2=pc(x), y1=round(top, 1), y2=round(bottom, 1), class_=css)


def mark(
    shape: str, x: float, y: float, css: str = "", *, hollow: bool = False, dx: float = 0
) -> Markup:
    """Draw a mark; ``x`` in percent, ``y`` in pixels, ``shape`` one of :data:`SHAPES`.

    ``dx`` moves it by pixels.
    """
    # a nested svg moves the shape to a percentage; its path then speaks in pixels
    words = " ".join(word for word in ("mark", css, "hollow" if hollow else "") if word)
    moved = {"transform": f"translate({dx:g} 0)"} if dx else {}
    path = tag("path", d=SHAPES[shape], class_=words, **moved)
    return tag("svg", path, x=pc(x), y=round(y, 1), class_="at")


def stretched(top: float, height: float, parts: Sequence[Markup]) -> Markup:
    """Lay paths in a 1000 x 1000 box that is stretched over the plot."""
    return tag(
        "svg",
        *parts,
        x="0",
        y=top,
        width="100%",
        height=height,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        class_="stretched",
    )


def words_at(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    """Write text; ``x`` in percent, ``y`` in pixels."""
    return tag("text", escape(words), x=pc(x), y=y, text_anchor=anchor, class_=kind)


def pc(value: float) -> str:
    """Write a percentage as SVG wants it."""
    return f"{round(value, 3):g}%"


def tag(name: str, *children: Markup, **attributes: str | float) -> Markup:
    """Write an element; attribute values are escaped, ``class_`` becomes ``class``."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    # everything that enters is escaped above or by the caller that holds text
    return Markup(f"<{name}{pairs}>{Markup('').join(children)}</{name}>")


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw * (1 - 1e-9))

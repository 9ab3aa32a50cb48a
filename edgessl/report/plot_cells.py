"""Small bars for table cells: the figure stands beside them, so they are hidden from readers."""

from __future__ import annotations

from markupsafe import Markup

from edgessl.report.svg import interval_line, mark, pc, tag


def interval_cell(value: float, low: float, high: float, css: str = "") -> Markup:
    """Draw a proportion with its interval on an axis from 0 to 1."""
    track = tag("line", x1="0%", x2="100%", y1=10, y2=10, class_="track")
    parts = [track, interval_line(100 * low, 100 * high, 10, css), mark("round", 100 * value, 10)]
    return tag("svg", *parts, class_="cell", width="100%", height=20, aria_hidden="true")


def bar_cell(share: float) -> Markup:
    """Draw a bar as long as ``share`` (0 to 1) of the cell."""
    bar = tag("rect", x="0%", y=3, width=pc(100 * min(1.0, max(0.0, share))), height=14, rx=2)
    return tag("svg", bar, class_="cell bars", width="100%", height=20, aria_hidden="true")

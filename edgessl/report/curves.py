"""Training curves from metrics.jsonl: one small plot for each quantity that was logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from edgessl.report import plots
from edgessl.report.formats import count, is_number, plural, significant

DRAWN = 400  # points of a curve; more are averaged in groups, and the caption says so
MOST = 12  # quantities shown
CLOCKS = ("step", "epoch", "seconds", "time", "timestamp", "schema")


@dataclass(frozen=True, slots=True)
class Curve:
    """One plot with its title, its last value and what was done to draw it."""

    name: str
    last: str
    picture: Markup
    note: str


def curves(rows: Sequence[Mapping[str, Any]], title: str) -> list[Curve]:
    """Draw every logged number against the step (or the epoch), losses first."""
    series: dict[str, list[tuple[float, float]]] = {}
    broken: dict[str, int] = {}
    clock = "step" if any("step" in row for row in rows) else "epoch"
    for index, row in enumerate(rows):
        x = row.get(clock)
        for name, value in _numbers(row):
            if is_number(value):
                at = float(x) if is_number(x) else float(index)
                series.setdefault(name, []).append((at, float(value)))
            else:
                broken[name] = broken.get(name, 0) + 1
    names = sorted(series, key=lambda name: (not name.startswith("loss"), name != "loss.total"))
    return [
        _curve(name, series[name], broken.get(name, 0), clock, title)
        for name in names[:MOST]
        if len(series[name]) > 1
    ]


def _numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            continue
        elif prefix or key not in CLOCKS:
            yield f"{prefix}{key}", value


def _curve(
    name: str, pairs: list[tuple[float, float]], broken: int, clock: str, title: str
) -> Curve:
    pairs = sorted(pairs)
    group = -(-len(pairs) // DRAWN)
    parts = [pairs[i : i + group] for i in range(0, len(pairs), group)]
    xs = [part[-1][0] for part in parts]
    ys = [fmean(y for _, y in part) for part in parts]
    note = f"{plural(len(pairs), 'value')}"
    if group > 1:
        note += f", each point the mean of {group}"
    if broken:
        note += f"; {count(broken)} not finite and left out"
    picture = plots.curve(f"{title}: {name}", xs, ys, clock)
    return Curve(name, significant(pairs[-1][1], 4), picture, note)

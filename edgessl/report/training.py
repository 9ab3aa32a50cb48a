"""Training curves from metrics.jsonl: one small plot for each quantity that was logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from edgessl.report.formats import count, is_number, plural, significant
from edgessl.report.plot_lines import Series, lines
from edgessl.report.read import Log
from edgessl.report.svg import Axis
from edgessl.report.tolerant import numbers_in

DRAWN = 400  # points of a curve; more are averaged in groups, and the caption says so
MOST = 12  # quantities shown
CLOCKS = ("step", "epoch", "seconds", "time", "timestamp", "schema")
TITLES = {
    "loss.total": "Loss, total", "lr": "Learning rate", "images_per_s": "Images per second",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """One plot with its title, its last values and what was done to draw it."""

    name: str
    last: str
    picture: Markup
    note: str


def training_curves(logs: Sequence[Log], title: str) -> list[Curve]:
    """Draw every logged number against the step (or the epoch), losses first.

    Several logs share a plot: the same quantity of two trainings is to be compared.
    """
    gathered = [_series_of(log) for log in logs]
    names = dict.fromkeys(name for values, _, _ in gathered for name in values)
    first = ["loss.total", "loss"]
    ordered = sorted(names, key=lambda n: (n not in first, not n.startswith("loss"), n != "lr"))
    curves = []
    for name in ordered[:MOST]:
        known = [
            (log, values[name], broken.get(name, 0), clock)
            for log, (values, broken, clock) in zip(logs, gathered, strict=True)
            if len(values.get(name, [])) > 1
        ]
        if known:
            curves.append(_curve(name, known, title))
    return curves


def pairs_of(log: Log, name: str) -> list[tuple[float, float]]:
    """Return the (step, value) pairs of one quantity, sorted."""
    return _series_of(log)[0].get(name, [])


def thinned(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float], int]:
    """Average pairs in groups so that at most DRAWN are left; returns xs, ys and the group size."""
    group = -(-len(pairs) // DRAWN)
    parts = [pairs[i : i + group] for i in range(0, len(pairs), group)]
    return [part[-1][0] for part in parts], [fmean(y for _, y in part) for part in parts], group


def step_axis(ends: Sequence[float], clock: str) -> Axis:
    """Choose an axis from the first to the last step, with the ends named."""
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1
    return Axis(low, high, (low, high), (f"{clock} {low:,.0f}", f"{high:,.0f}"))


def _series_of(log: Log) -> tuple[dict[str, list[tuple[float, float]]], dict[str, int], str]:
    values: dict[str, list[tuple[float, float]]] = {}
    broken: dict[str, int] = {}
    clock = "step" if any("step" in row for row in log.metrics) else "epoch"
    for index, row in enumerate(log.metrics):
        x = row.get(clock)
        for name, value in numbers_in(row):
            if name in CLOCKS:
                continue
            if is_number(value) and abs(value) < 1e30:
                values.setdefault(name, []).append((float(x if is_number(x) else index), value))
            else:
                broken[name] = broken.get(name, 0) + 1
    return {name: sorted(pairs) for name, pairs in values.items()}, broken, clock


def _curve(
    name: str, known: Sequence[tuple[Log, list[tuple[float, float]], int, str]], title: str
) -> Curve:
    series, ends, notes = [], [], []
    several = len(known) > 1
    for log, pairs, broken, _ in known:
        xs, ys, group = thinned(pairs)
        ends += [xs[0], xs[-1]]
        who = f"{log.title}: " if several else ""
        note = f"{who}{plural(len(pairs), 'value')}"
        note += f", each point the mean of {group}" if group > 1 else ""
        note += f", {count(broken)} not finite and left out" if broken else ""
        notes.append(note)
        series.append(
            Series(
                end=short_title(log) if several else "",
                text=f"{log.title}, from {significant(ys[0], 4)} to {significant(ys[-1], 4)}",
                xs=xs,
                ys=ys,
                css="v-both" if log.from_weights else "v-method",
                dashed=log.from_weights,
            )
        )
    lowest = min(min(s.ys) for s in series)
    y_axis = Axis.around(
        [y for s in series for y in s.ys], wanted=3, floor=0.0 if lowest >= 0 else None
    )
    picture = lines(f"{title}: {name}", series, step_axis(ends, known[0][3]), y_axis, height=130)
    last = ", ".join(significant(pairs[-1][1], 3) for _, pairs, _, _ in known)
    shown = TITLES.get(name) or name.replace("loss.", "Loss, ")
    return Curve(shown, last, picture, "; ".join(notes))


def short_title(log: Log) -> str:
    """Name a training where there is little room."""
    return {"pretrain": "random", "pretrain-imagenet": "ImageNet"}.get(log.folder) or (
        log.folder.removeprefix("pretrain-").removeprefix("finetune/")
    )

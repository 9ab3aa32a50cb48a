"""What was watched while pretraining: rank, spread, kNN, agreement of host and slim, alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgessl.report.formats import is_number, plural, significant
from edgessl.report.plot_lines import Series, lines
from edgessl.report.read import Log
from edgessl.report.svg import Axis
from edgessl.report.tolerant import mapping
from edgessl.report.training import DRAWN, step_axis, thinned

QUANTITIES = {
    "rankme": ("RankMe", "effective rank of the embedding; falls towards 1 in a collapse", 1.0),
    "std": ("Spread", "standard deviation, 1 for a sphere; falls to 0 in a collapse", 1.0),
    "knn": ("Online kNN, %", "accuracy of neighbours on training images with labels", 100.0),
    "agreement": ("Host and slim, %", "images with the same nearest neighbour in both", 100.0),
}


@dataclass(frozen=True, slots=True)
class Monitor:
    """One watched quantity; ``last`` names the last value of each net."""

    name: str
    last: str
    picture: Markup
    meaning: str


@dataclass(frozen=True, slots=True)
class Watched:
    """The monitors of one pretraining with the alarms that were raised."""

    title: str
    monitors: list[Monitor]
    alarms: list[str]
    measurements: int


def watched(logs: Sequence[Log]) -> list[Watched]:
    """Draw the monitors of every pretraining that wrote any."""
    return [_watched(log) for log in logs if log.monitor]


def _watched(log: Log) -> Watched:
    alarms = [
        (_at(row, index), " ".join(str(row["alarm"]).split()))
        for index, row in enumerate(log.monitor)
        if row.get("alarm") not in (None, "", False)
    ]
    monitors = [
        _monitor(log, key, [at for at, _ in alarms][:1])
        for key in QUANTITIES
        if any(_values(row, key) for row in log.monitor)
    ]
    lines_ = [f"step {at:,.0f}: {text}" for at, text in alarms]
    return Watched(log.title, monitors, lines_, len(log.monitor))


def _monitor(log: Log, key: str, alarms: Sequence[float]) -> Monitor:
    name, meaning, factor = QUANTITIES[key]
    nets = dict.fromkeys(net for row in log.monitor for net in _values(row, key))
    series, ends = [], []
    for net in nets:
        pairs = sorted(
            (_at(row, i), factor * _values(row, key)[net])
            for i, row in enumerate(log.monitor)
            if net in _values(row, key)
        )
        xs, ys, _ = thinned(pairs)
        ends += [pairs[0][0], pairs[-1][0]]
        series.append(
            Series(
                end=net if len(nets) > 1 else "",
                text=f"{net}, from {significant(ys[0])} to {significant(ys[-1])}",
                xs=xs,
                ys=ys,
                css="v-host" if net == "host" else "v-both" if log.from_weights else "v-method",
                dashed=net != "host" and len(nets) > 1,
                shape="round" if len(xs) <= min(12, DRAWN) else "",
            )
        )
    # from zero on, which is where a collapse goes
    y_axis = Axis.around([0.0, *(y for s in series for y in s.ys)], wanted=3, floor=0.0)
    picture = lines(
        f"{name}, pretraining {log.title}", series, step_axis(ends, "step"), y_axis,
        height=130, rules=[(at, "alarm") for at in alarms],
    )  # fmt: skip
    last = ", ".join(f"{s.end} {significant(s.ys[-1])}".strip() for s in series)
    return Monitor(name, last, picture, meaning)


def _values(row: Mapping[str, object], key: str) -> dict[str, float]:
    return {str(k): float(v) for k, v in mapping(row.get(key)).items() if is_number(v)}


def _at(row: Mapping[str, object], index: int) -> float:
    step = row.get("step")
    return float(step) if is_number(step) else float(index)


def alarm_text(found: Sequence[Watched]) -> list[str]:
    """Say which pretraining raised an alarm, for the headline."""
    return [
        f"Pretraining {w.title} raised {plural(len(w.alarms), 'alarm')}: {w.alarms[0]}."
        for w in found
        if w.alarms
    ]

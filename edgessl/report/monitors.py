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


@dataclass(frozen=True, slots=True)
class Quantity:
    """How one key of ``monitor.jsonl`` is shown; values are multiplied by ``factor``."""

    name: str
    meaning: str
    factor: float = 1.0
    chance: str = ""  # key of the value that guessing gives


QUANTITIES = {
    "rankme": Quantity("RankMe", "effective rank of the embedding; falls towards 1 in a collapse"),
    "std": Quantity("Spread", "standard deviation, 1 for a sphere; falls to 0 in a collapse"),
    "alpha_req": Quantity(
        "Spectrum, alpha", "how steeply the eigenvalues of the features fall; 0 is white noise"
    ),
    "knn": Quantity(
        "Online kNN, %", "accuracy of neighbours on training images with labels", 100.0
    ),
    "agreement": Quantity(
        "Host and slim, %", "images with the same nearest neighbour in both", 100.0
    ),
    "view_retrieval": Quantity(
        "Views found, %", "images whose view A finds their view B among those of all", 100.0,
        chance="view_retrieval_chance",
    ),
    "correlation_diagonal": Quantity(
        "Diagonal", "mean correlation of a dimension with itself between two views"
    ),
    "correlation_off_diagonal": Quantity(
        "Off-diagonal", "root mean square of its correlation with the others"
    ),
    "same_view_diagonal": Quantity(
        "Diagonal, same view", "the same between host and slim net; cross distillation pulls it "
        "to 1"
    ),
    "gradient_cosine": Quantity(
        "Gradients, cosine", "1: both pull the shared weights the same way; below 0: against "
        "each other"
    ),
    "gradient_norm_ratio": Quantity(
        "Gradients, ratio", "norm of the first over that of the second"
    ),
}  # fmt: skip


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
    quantity = QUANTITIES[key]
    nets = dict.fromkeys(net for row in log.monitor for net in _values(row, key))
    series, ends = [], []
    for index, net in enumerate(nets):
        pairs = sorted(
            (_at(row, i), quantity.factor * _values(row, key)[net])
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
                css=_css(net, log),
                dashed=index > 0,
                shape="round" if len(xs) <= min(12, DRAWN) else "",
            )
        )
    # from zero on, which is where a collapse goes
    drawn = [0.0, *(y for s in series for y in s.ys)]
    y_axis = Axis.around(drawn, wanted=3, floor=None if min(drawn) < 0 else 0.0)
    picture = lines(
        f"{quantity.name}, pretraining {log.title}", series, step_axis(ends, "step"), y_axis,
        height=130, rules=[(at, "alarm") for at in alarms],
    )  # fmt: skip
    digits = 3 if len(series) < 3 else 2
    last = ", ".join(f"{s.end} {significant(s.ys[-1], digits)}".strip() for s in series)
    return Monitor(quantity.name, last, picture, _meaning(log, quantity))


def _css(net: str, log: Log) -> str:
    if net == "host":
        return "v-host"
    pair = net.startswith("host-")  # from the host to a slim net
    return "v-both" if log.from_weights != pair else "v-method"


def _meaning(log: Log, quantity: Quantity) -> str:
    guessing = [row.get(quantity.chance) for row in log.monitor] if quantity.chance else []
    known = [quantity.factor * float(value) for value in guessing if is_number(value)]
    return f"{quantity.meaning}; chance {significant(known[-1], 2)}" if known else quantity.meaning


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

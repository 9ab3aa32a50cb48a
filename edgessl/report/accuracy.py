"""The accuracy ledger as it is shown: points, whether pretraining paid, the waterfall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgessl.core.ledger import LedgerRow
from edgessl.core.statistics import student_t_interval
from edgessl.report.formats import budget, points, points_range

CHAIN = ("extract", "export", "bench")  # stages that only carry a trained net along
BASELINES = {
    "pixels": "Raw pixels",
    "scratch": "From scratch",
    "imagenet": "ImageNet weights",
}
NAMES = {
    "sacl-xd": "SACL+XD", "xd": "XD", "barlow": "Barlow Twins", "moco-v2": "MoCo v2",
    "seed": "SEED", "vicreg": "VICReg", "onnx": "ONNX", "openvino": "OpenVINO",
    "tflite": "TFLite", "pytorch": "PyTorch",
}  # fmt: skip
PIXELS = {"knn_top1": "kNN", "linear_top1": "logistic regression", "top1": "logistic regression"}
PROTOCOLS = {"linear_top1": "linear probe", "knn_top1": "kNN", "top1": "fine-tuned"}


@dataclass(frozen=True, slots=True)
class Point:
    """One accuracy with its interval and the single draws behind it; proportions."""

    label: str
    shape: str
    labels_per_class: int | None
    split: str
    value: float
    low: float | None
    high: float | None
    n: int
    interval: str
    draws: tuple[float, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether pretraining paid at one label budget; differences are proportions."""

    variant: str
    labels_per_class: int | None
    answer: str  # paid, did not pay or cannot tell
    delta: float
    low: float | None
    high: float | None
    draws: int

    @property
    def sentence(self) -> str:
        """The judgement in plain language, with figures."""
        name = NAMES.get(self.variant, self.variant)
        reach = points_range(self.low, self.high)
        more = "above" if self.delta >= 0 else "below"
        found = (
            f"with {budget(self.labels_per_class)}, {name} and fine-tuning ends "
            f"{points(abs(self.delta)).lstrip('+')} points {more} the same net trained from scratch"
        )
        if self.draws < 2:
            return (
                f"Cannot tell with one draw: {found}, but one draw of labels and seed says "
                "nothing about the next. Train more draws to know."
            )
        proof = f"(95% interval {reach}, paired over {self.draws} draws)"
        if self.answer == "paid":
            return f"Pretraining paid here: {found} {proof}."
        if self.answer == "did not pay":
            return f"Pretraining did not pay here: {found} {proof}."
        return f"Cannot tell with these draws: {found} {proof}; the interval includes zero."


def accuracy_points(rows: Iterable[LedgerRow]) -> list[Point]:
    """Gather the rows that are not of the carrying stages into points, baselines first.

    Rows that differ in nothing but draw and seed belong together. A row without a draw is their
    summary; where none was written, the mean and its Student t interval are computed here.
    """
    wanted = [r for r in rows if r.stage not in CHAIN and r.metric in PROTOCOLS]
    widths = {r.width for r in wanted if r.variant != "pixels"}
    groups: dict[tuple[object, ...], list[LedgerRow]] = {}
    for row in wanted:
        key = (row.variant, row.metric, row.labels_per_class, row.width, row.split, row.stage)
        groups.setdefault(key, []).append(row)
    found = []
    for group in groups.values():
        draws = [r for r in group if r.draw is not None]
        summaries = [r for r in group if r.draw is None] or [_summary(draws)]
        found += [_point(row, draws, len(widths) > 1) for row in summaries]
    order = {"diamond": 0, "square": 1, "ring": 2, "round": 3}
    return sorted(
        found, key=lambda p: (p.labels_per_class or 10**9, p.split, order[p.shape], p.label)
    )


def judge_pretraining(rows: Sequence[LedgerRow]) -> list[Judgement]:
    """Compare every pretrained variant with scratch at each label budget, paired by draw."""
    tuned = [
        r
        for r in rows
        if r.stage not in CHAIN and r.metric == "top1" and r.target in (None, "pytorch")
    ]
    judgements = []
    variants = dict.fromkeys(r.variant for r in tuned if r.variant not in BASELINES)
    for variant in variants:
        theirs = [r for r in tuned if r.variant == variant]
        settings = dict.fromkeys((r.labels_per_class, r.width, r.split) for r in theirs)
        if any(split == "test" for _, _, split in settings):
            settings = {key: None for key in settings if key[2] == "test"}
        for key in settings:
            mine = [r for r in theirs if (r.labels_per_class, r.width, r.split) == key]
            other = [
                r
                for r in tuned
                if r.variant == "scratch" and (r.labels_per_class, r.width, r.split) == key
            ]
            if mine and other:
                judgements.append(_judge(variant, key[0], mine, other))
    return sorted(judgements, key=lambda j: (j.labels_per_class or 10**9, j.variant))


def _summary(draws: Sequence[LedgerRow]) -> LedgerRow:
    if len(draws) == 1:
        return draws[0]
    values = [row.value for row in draws]
    low, high = _t_interval(values, 0.0)
    return draws[0].model_copy(
        update={
            "value": fmean(values),
            "ci_low": low,
            "ci_high": high,
            "interval": f"t over {len(values)} draws",
            "note": None,
        }
    )


def _t_interval(values: Sequence[float], least: float) -> tuple[float | None, float | None]:
    """Return the t interval of the mean, cut to what a proportion or a difference can be."""
    low, high = student_t_interval(values) or (None, None)
    return None if low is None else max(least, low), None if high is None else min(1.0, high)


def _point(row: LedgerRow, draws: Sequence[LedgerRow], name_width: bool) -> Point:
    if row.ci_low is None and len(draws) == 1:
        row = draws[0]  # a summary of one draw knows less than the draw itself
    name = BASELINES.get(row.variant) or NAMES.get(row.variant, row.variant)
    if row.variant == "pixels":
        shape, name = "diamond", f"{name}, {PIXELS[row.metric]}"
    elif row.variant == "scratch" and row.metric == "top1":
        shape = "square"
    else:
        shape = "round" if row.metric == "top1" else "ring"
        name = f"{name}, {PROTOCOLS[row.metric]}"
    if name_width and row.width and shape != "diamond":
        name = f"{name}, {row.width}"
    return Point(
        label=name,
        shape=shape,
        labels_per_class=row.labels_per_class,
        split=row.split or "",
        value=row.value,
        low=row.ci_low,
        high=row.ci_high,
        n=row.n,
        interval=row.interval or ("" if row.ci_low is None else "kind not stated"),
        draws=tuple(r.value for r in draws) if len(draws) > 1 else (),
        note=row.note or "",
    )


def _judge(
    variant: str,
    labels_per_class: int | None,
    mine: Sequence[LedgerRow],
    other: Sequence[LedgerRow],
) -> Judgement:
    theirs = {r.draw: r.value for r in other}
    both = [(r.value - theirs[r.draw]) for r in mine if r.draw in theirs and r.draw is not None]
    low = high = None
    if len(both) >= 2:
        low, high = _t_interval(both, -1.0)
        delta = fmean(both)
    else:
        delta = both[0] if both else mine[0].value - other[0].value
    answer = "cannot tell"
    if low is not None and high is not None:
        answer = "paid" if low > 0 else "did not pay" if high <= 0 else answer
    return Judgement(variant, labels_per_class, answer, delta, low, high, max(1, len(both)))

"""The accuracy figures of training: draws gathered into points with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgessl.core.ledger import LedgerRow
from edgessl.core.statistics import student_t_interval
from edgessl.report.tolerant import width_number
from edgessl.report.variants import BALANCED, CHAIN, PROTOCOLS, full_name, order

FOLDS = "folds"  # the split of figures that were taken over cross-validation folds
FOLD_CHOICES = (
    "In every fold the learning rate was chosen on validation images of that fold, which it "
    "does not test on."
)
MANY = 10**9  # all labels sort behind every number of labels


@dataclass(frozen=True, slots=True)
class Point:
    """One accuracy with its interval and the single draws behind it; proportions."""

    variant: str
    metric: str
    width: str
    labels_per_class: int | None
    split: str
    value: float
    low: float | None
    high: float | None
    n: int
    interval: str
    draws: Mapping[int, float]
    note: str
    id: str
    compared_with: str | None = None
    delta: tuple[float | None, float | None, float | None] = (None, None, None)
    balanced: float | None = None

    @property
    def label(self) -> str:
        """The variant and how it was measured."""
        return full_name(self.variant, self.metric, self.width)

    @property
    def frozen(self) -> bool:
        """Whether the features were frozen: a probe, not a fine-tuned net."""
        return self.metric != "top1"


def accuracy_points(rows: Iterable[LedgerRow]) -> list[Point]:
    """Gather the rows that are not of the carrying stages into points, rivals first.

    Rows that differ in nothing but draw and seed belong together. A row without a draw is their
    summary; where none was written, the mean and its Student t interval are computed here.
    """
    wanted = [r for r in rows if r.stage not in CHAIN]
    balanced = _groups(r for r in wanted if r.metric in BALANCED)
    found = []
    for key, group in _groups(r for r in wanted if r.metric in PROTOCOLS).items():
        means = _summaries(balanced.get(key, []))
        draws = [r for r in group if r.draw is not None]
        mean = means[0].value if means else None
        found += [_point(row, draws, mean) for row in _summaries(group)]
    return sorted(
        found,
        key=lambda p: (p.labels_per_class or MANY, p.split, order(p.variant), p.metric, p.width),
    )


def fold_choices(points: Iterable[Point]) -> str:
    """Say how the learning rate of folds was chosen; empty where none were fine-tuned on."""
    tuned = any(p.split == FOLDS and not p.frozen for p in points)
    return FOLD_CHOICES if tuned else ""


def widths_of(points: Iterable[Point]) -> list[str]:
    """Return the widths of nets among the points, the widest first; [""] where none is named."""
    named = {p.width for p in points if p.width}
    return sorted(named, key=lambda text: (-width_number(text), text)) or [""]


def mean_interval(values: Sequence[float], least: float) -> tuple[float | None, float | None]:
    """Return the t interval of the mean, cut to what a proportion or a difference can be."""
    low, high = student_t_interval(values) or (None, None)
    return None if low is None else max(least, low), None if high is None else min(1.0, high)


def _groups(rows: Iterable[LedgerRow]) -> dict[tuple[object, ...], list[LedgerRow]]:
    groups: dict[tuple[object, ...], list[LedgerRow]] = {}
    for row in rows:
        metric = BALANCED.get(row.metric, row.metric)
        key = (row.variant, metric, row.labels_per_class, row.width, row.split, row.stage)
        groups.setdefault(key, []).append(row)
    return groups


def _summaries(group: Sequence[LedgerRow]) -> list[LedgerRow]:
    draws = [row for row in group if row.draw is not None]
    written = [row for row in group if row.draw is None]
    if written or not draws:
        # a summary of one draw knows less than the draw itself
        alone = draws[0] if len(draws) == 1 else None
        return [alone if alone and row.ci_low is None else row for row in written]
    if len(draws) == 1:
        return draws
    values = [row.value for row in draws]
    folds = draws[0].split == FOLDS  # they depend on each other: no interval from them alone
    low, high = (None, None) if folds else mean_interval(values, 0.0)
    update = {
        "value": fmean(values),
        "ci_low": low,
        "ci_high": high,
        "interval": None if folds else f"t over {len(values)} draws",
        "note": None,
        "draw": None,
        "compared_with": None,
    }
    return [draws[0].model_copy(update=update)]


def _point(row: LedgerRow, draws: Sequence[LedgerRow], balanced: float | None) -> Point:
    return Point(
        variant=row.variant,
        metric=row.metric,
        width=row.width or "",
        labels_per_class=row.labels_per_class,
        split=row.split or "",
        value=row.value,
        low=row.ci_low,
        high=row.ci_high,
        n=row.n,
        interval=row.interval or ("" if row.ci_low is None else "kind not stated"),
        draws={r.draw: r.value for r in draws if r.draw is not None},
        note=row.note or "",
        id=row.id,
        compared_with=row.compared_with,
        delta=(row.delta, row.delta_low, row.delta_high),
        balanced=balanced,
    )

"""Whether pretraining paid: against the best rival without it, paired on the same label draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from edgessl.core.statistics import resampled_t_interval, student_t_quantile
from edgessl.report.accuracy import FOLDS, MANY, Point, mean_interval
from edgessl.report.formats import budget, percent, plural, points, points_range
from edgessl.report.variants import TUNED, is_narrow, is_pretrained, measurement, name, order

Answer = Literal["paid", "did not pay", "cannot tell"]
NOT_WORTH = "these images do not show that a net is worth its cost."
BRIEFLY = {
    "pixels": "raw pixels", "scratch": "training from scratch", "imagenet": "ImageNet weights",
}  # fmt: skip
AS_RIVALS = {
    "pixels": "raw pixels without any net",
    "scratch": "the same net trained from scratch",
    "imagenet": "ImageNet weights",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A pretrained variant against its best rival; differences are proportions."""

    mine: Point
    rival: Point
    answer: Answer
    delta: float
    low: float | None
    high: float | None
    draws: int

    @property
    def variant(self) -> str:
        """The pretrained variant."""
        return self.mine.variant

    @property
    def labels_per_class(self) -> int | None:
        """The label budget; None: all labels."""
        return self.mine.labels_per_class

    @property
    def short(self) -> str:
        """The rival in few words, with how it was measured."""
        how = measurement(self.rival.variant, self.rival.metric)
        text = BRIEFLY.get(self.rival.variant, self.rival.variant)
        if self.rival.variant == "imagenet" and is_narrow(self.rival.width):
            text = "first channels of ImageNet weights"
        return f"{text} ({how})" if how else text

    @property
    def sentence(self) -> str:
        """The judgement in plain language, with figures."""
        more = "above" if self.delta >= 0 else "below"
        apart = f"{points(abs(self.delta)).lstrip('+')} points {more}"
        how = "and a linear probe" if self.mine.frozen else "and fine-tuning"
        found = (
            f"with {budget(self.labels_per_class)}, {name(self.variant)} {how} "
            f"({percent(self.mine.value)}) ends {apart} its best rival, "
            f"{_as_rival(self.rival)} ({percent(self.rival.value)})"
        )
        unit = "fold" if self.mine.split == FOLDS else "draw"
        if self.answer == "cannot tell" and self.draws > 1:
            return f"Cannot tell: {found}, but the interval of that difference is not known."
        if self.answer == "cannot tell":
            return (
                f"Cannot tell with 1 {unit}: {found}, but one draw of "
                "labels and seed says nothing about the next. Train more draws to know."
            )
        paired = f"paired over {plural(self.draws, unit)}" if self.draws else "paired"
        proof = f"(95% interval {points_range(self.low, self.high)}, {paired})"
        if self.answer == "paid":
            return f"Pretraining paid here: {found} {proof}."
        sure = self.high is not None and self.high < 0
        level = "better" if sure else "as well"
        pixels = f" Pixels alone do {level}: {NOT_WORTH}" if self.pixels_win else ""
        if sure:
            return f"Pretraining did not pay here: {found} {proof}.{pixels}"
        return (
            f"Pretraining did not pay here: {found} {proof}. The interval includes zero, so "
            f"these {unit}s do not show a gain.{pixels}"
        )

    @property
    def pixels_win(self) -> bool:
        """Whether raw pixels without any net end above it."""
        return self.rival.variant == "pixels" and self.delta < 0


def judge_pretraining(found: Sequence[Point]) -> list[Judgement]:
    """Judge every pretrained variant at each label budget and width.

    The figure of a pretrained variant is its fine-tuned one, or its linear probe where it was not
    fine-tuned. The rival is the best figure, probe or fine-tuned, of raw pixels, from scratch and
    ImageNet weights. It is picked by the very figures that are compared: that favours the rival.
    """
    # features that were trained with labels say nothing of pretraining
    known = [p for p in found if not p.variant.endswith(TUNED)]
    known = [p for p in known if p.metric in ("top1", "linear_top1")]
    judgements = []
    for place in dict.fromkeys((p.labels_per_class, p.width, p.split) for p in known if p.width):
        here = [p for p in known if (p.labels_per_class, p.split) == (place[0], place[2])]
        here = [p for p in here if p.width in ("", place[1])]
        own: dict[str, Point] = {}
        for point in here:
            if is_pretrained(point.variant) and (point.variant not in own or not point.frozen):
                own[point.variant] = point
        rivals = [p for p in here if not is_pretrained(p.variant)]
        if rivals:
            rival = max(rivals, key=_value)
            ratio = next(filter(None, map(test_to_train, here)), None)
            judgements += [_judge(p, rival, ratio) for p in own.values()]
    return sorted(
        judgements, key=lambda j: (j.labels_per_class or MANY, j.mine.width, order(j.variant))
    )


def pixels_do_better(found: Sequence[Point], labels: int | None, width: str) -> str:
    """Say so when raw pixels beat every trained net at one budget; empty otherwise."""
    here = [p for p in found if p.labels_per_class == labels and p.width in ("", width)]
    floors = [p for p in here if p.variant == "pixels"]
    own = max((p for p in here if p.variant != "pixels"), default=None, key=_value)
    floors = [p for p in floors if own and p.split == own.split and p.value >= own.value]
    if not floors or own is None:
        return ""
    floor = max(floors, key=_value)
    return (
        f"Pixels alone do better: with {budget(labels)}, {floor.label} reaches "
        f"{percent(floor.value)}, {points(floor.value - own.value).lstrip('+')} points above "
        f"the best net ({own.label}, {percent(own.value)}): {NOT_WORTH}"
    )


def _as_rival(point: Point) -> str:
    text = AS_RIVALS.get(point.variant, point.label)
    if point.variant == "scratch" and point.frozen:
        text = "the same net with random weights"
    elif point.variant == "imagenet" and is_narrow(point.width):
        text = "the first channels of ImageNet weights"
    how = measurement(point.variant, point.metric)
    return f"{text}, {how}" if how else text


def test_to_train(point: Point) -> float | None:
    """Return the test images per training image of the folds behind a figure.

    Folds share most of their training images, so that the plain t interval of their figures is
    too narrow; the ledger's is corrected by this ratio, which is found again from its width.
    None where it cannot be: not folds, or no spread, or an interval that was cut at 0 and 1.
    """
    values = list(point.draws.values())
    if point.split != FOLDS or len(values) < 2 or point.low is None or point.high is None:
        return None
    spread = student_t_quantile(0.975, len(values) - 1) * stdev(values)
    half = max(point.value - point.low, point.high - point.value)
    whole = point.low > 0 or point.high < 1
    ratio = (half / spread) ** 2 - 1 / len(values) if spread and whole else 0.0
    return ratio if ratio > 0 and math.isfinite(ratio) else None


def _interval(
    pairs: Iterable[float], folds: bool, ratio: float | None
) -> tuple[float | None, float | None]:
    values = list(pairs)
    if not folds:
        return mean_interval(values, -1.0)
    bounds = resampled_t_interval(values, ratio) if ratio else None
    return (max(-1.0, bounds[0]), min(1.0, bounds[1])) if bounds else (None, None)


def _judge(mine: Point, rival: Point, ratio: float | None) -> Judgement:
    shared = [draw for draw in mine.draws if draw in rival.draws]
    pairs = [mine.draws[draw] - rival.draws[draw] for draw in shared]
    delta, count = (fmean(pairs), len(pairs)) if pairs else (mine.value - rival.value, 0)
    folds = mine.split == FOLDS
    low, high = _interval(pairs, folds, ratio)
    told = mine.compared_with == rival.id and mine.delta[0] is not None
    if told and (not pairs or (folds and len(pairs) > 1)):
        delta, low, high = mine.delta[0] or 0.0, mine.delta[1], mine.delta[2]  # by the ledger
    answer: Answer = "cannot tell"
    if low is not None and high is not None:
        answer = "paid" if low > 0 else "did not pay"
    return Judgement(mine, rival, answer, delta, low, high, count)


def _value(point: Point) -> float:
    return point.value

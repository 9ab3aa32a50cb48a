"""The label table: every rival and every pretrained net, per width and label budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.report.accuracy import MANY, Point, widths_of
from edgessl.report.judgement import Judgement
from edgessl.report.read import Run
from edgessl.report.variants import (
    RIVALS,
    WEIGHTS,
    Look,
    is_pretrained,
    look,
    measurement,
    name,
    order,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One variant at one budget; a figure is None where it was not run.

    ``rival`` says which of its figures makes it the best rival; None: it is not.
    """

    name: str
    look: Look
    knn: Point | None
    probe: Point | None
    tuned: Point | None
    judgement: Judgement | None
    rival: str | None

    @property
    def ran(self) -> bool:
        """Whether there is any figure."""
        return any((self.knn, self.probe, self.tuned))

    @property
    def balanced(self) -> float | None:
        """Balanced accuracy of the fine-tuned net, or of the probe where none was."""
        return next((p.balanced for p in (self.tuned, self.probe) if p), None)


@dataclass(frozen=True, slots=True)
class Budget:
    """The lines of one label budget."""

    labels_per_class: int | None
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """One width with all its label budgets."""

    width: str
    budgets: list[Budget]
    absent: list[str]
    has_knn: bool
    has_balanced: bool


def label_tables(
    run: Run, found: Sequence[Point], judgements: Sequence[Judgement]
) -> list[LabelTable]:
    """Build one table per width; a variant that has no figure at a budget is kept as not run."""
    variants = expected_variants(run, found)
    present = {p.variant for p in found}
    tables = []
    for width in widths_of(found):
        here = [p for p in found if p.width in ("", width)]
        judged = [j for j in judgements if j.mine.width == width]
        budgets = []
        for labels in sorted({p.labels_per_class for p in here}, key=lambda b: b or MANY):
            group = [p for p in here if p.labels_per_class == labels]
            tried = [p for p in group if p.metric != "knn_top1"]
            # kNN uses all labels whatever the budget: nobody expects a scratch net there
            wanted = variants if tried else [v for v in variants if v in {p.variant for p in group}]
            lines = [(variant, _line(variant, group, judged, width)) for variant in wanted]
            budgets.append(Budget(labels, [x for v, x in lines if x.ran or v in present]))
        absent = [name(variant) for variant in variants if variant not in present]
        tables.append(
            LabelTable(
                width,
                budgets,
                absent,
                any(p.metric == "knn_top1" for p in here),
                any(p.balanced is not None for p in here),
            )
        )
    return tables if found else []


def expected_variants(run: Run, found: Sequence[Point]) -> list[str]:
    """Return the variants that a whole study has, those found and those that were not run."""
    methods = {p.variant.removeprefix(WEIGHTS) for p in found if is_pretrained(p.variant)}
    methods = methods or {run.setting("pretrain", "method")} - {""}
    return sorted({*RIVALS, *methods, *(WEIGHTS + method for method in methods)}, key=order)


def _line(
    variant: str, group: Sequence[Point], judgements: Sequence[Judgement], width: str
) -> Line:
    own = {p.metric: p for p in group if p.variant == variant}
    tuned, probe = own.get("top1"), own.get("linear_top1")
    figures = [p for p in (tuned, probe) if p]
    judged = [j for j in judgements if any(j.mine is p for p in figures)]
    best = next((p for p in figures for j in judgements if j.rival is p), None)
    rival = measurement(variant, best.metric) if best else None
    return Line(
        name(variant, width), look(variant), own.get("knn_top1"), probe, tuned,
        judged[0] if judged else None, rival,
    )  # fmt: skip

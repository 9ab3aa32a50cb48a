"""Ledger rows of a fine-tuning stage: one per training, their means, paired with scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.ledger import LedgerRow
from edgessl.stages.context import Context
from edgessl.stages.evaluate import balanced_row, is_imbalanced
from edgessl.stages.rounds import Rounds
from edgessl.stages.rows import accuracy_row, summary_row, with_note
from edgessl.training.plan import Plan

Rows = list[LedgerRow]


@dataclass(frozen=True)
class Found:
    """The results of one variant on one budget: a line of ``draws.jsonl`` per round."""

    variant: str
    rounds: Rounds
    plan: Plan
    lines: tuple[dict[str, Any], ...]
    told: str = ""  # what a reader of its figures must know


def study_rows(context: Context, width: str, found: Sequence[Found]) -> Rows:
    """Return one row per training and the means, paired with scratch where there is one."""
    rows: Rows = []
    scratch: dict[str, tuple[Rows, Found]] = {}
    for result in found:
        made = _rows(context, width, result, scratch.get(result.rounds.budget))
        if result.variant == "scratch":
            scratch[result.rounds.budget] = (made, result)
        rows += [with_note(row, result.told) for row in made]
    return rows


def right(line: dict[str, Any]) -> NDArray[np.bool_]:
    """Return which test images of its round a training answered right."""
    return np.array([c == "1" for c in line["correct"]], np.bool_)


def _rows(context: Context, width: str, found: Found, scratch: tuple[Rows, Found] | None) -> Rows:
    rounds, plan = found.rounds, found.plan
    name = f"finetune/{width}/{found.variant}/{rounds.budget}"
    rows, balanced = [], []
    for position, (part, line) in enumerate(zip(rounds.rounds, found.lines, strict=True)):
        compared = None
        if scratch:
            compared = (scratch[0][position], right(scratch[1].lines[position]))
        row = accuracy_row(
            right(line), compared=compared,
            id=f"{name}/draw{part.draw}", stage="finetune", variant=found.variant, width=width,
            target="pytorch", split=rounds.split, data_sha256=rounds.test.data_sha256,
            labels_per_class=rounds.per_class, seed=context.recipe.seed, draw=part.draw,
            metric="top1", seconds=line["seconds"],
            note=f"{plan.epochs} epochs, learning rate {line['lr']:g} chosen on "
            f"{rounds.chosen_on}",
        )  # fmt: skip
        rows.append(row)
        balanced.append(balanced_row(row, right(line), rounds.test.labels[part.test]))
    # the mean of the scratch rows stands right behind them
    paired = (scratch[0][len(rows)].id, scratch[0][: len(rows)]) if scratch else None
    extra: dict[str, Any] = {"n": len(rounds.test.labels)} if rounds.folds else {}
    note = f"{rows[0].note}; delta: paired with scratch on the same labels" if scratch else None
    summaries = [
        summary_row(
            rows, compared=paired, test_to_train=rounds.test_to_train, id=name, note=note, **extra
        )
    ]
    if is_imbalanced(rounds):
        summaries.append(
            summary_row(
                balanced, test_to_train=rounds.test_to_train, id=f"{name}/balanced", note=None,
                parents=(), **extra,
            )
        )  # fmt: skip
    return [*rows, *summaries]

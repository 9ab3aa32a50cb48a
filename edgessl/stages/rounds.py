"""Rounds of training with labels: which images train, choose and measure, how often.

Hold-out: a round is a random draw of labels from the training split; all rounds choose on the
same validation images and are measured on the same test images. Folds, for few labels: a round
is a fold of a repeat, and every image is measured once per repeat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.core.recipe import Recipe
from edgessl.data.splits import draw_labels
from edgessl.stages.context import Context
from edgessl.stages.roles import Split

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Round:
    """One training: positions in the splits of :class:`Rounds`; ``draw`` numbers it."""

    draw: int
    train: Positions
    validation: Positions
    test: Positions


@dataclass(frozen=True, slots=True)
class Rounds:
    """All rounds at one number of labels per class.

    Attributes:
        train: Split that the training positions point into; in folds all three are the same.
        validation: Likewise.
        test: Likewise.
        per_class: Labels per class; None means all.
        rounds: In order; their numbers go into the ledger as ``draw``.
        folds: Whether the rounds are folds.
    """

    train: Split
    validation: Split
    test: Split
    per_class: int | None
    rounds: tuple[Round, ...]
    folds: bool

    @property
    def chosen_on(self) -> str:
        """What choices are made on, in words."""
        if any(part.validation is part.train for part in self.rounds):
            return "training images, as some class has none left for validation"
        return "validation"

    @property
    def budget(self) -> str:
        """The labels per class as in ids: a number or ``all``."""
        return str(self.per_class or "all")

    @property
    def split(self) -> str:
        """Name of what is measured on, for the ledger."""
        return "folds" if self.folds else "test"

    @property
    def test_to_train(self) -> float | None:
        """Test images per training image of a fold; None where rounds are draws."""
        if not self.folds:
            return None
        return float(np.mean([len(r.test) / len(r.train) for r in self.rounds]))


def trainings_of(recipe: Recipe, rounds: int, folds: bool) -> int:
    """Return how many trainings a variant takes: its search and its rounds.

    With draws the learning rate is searched in the first one, in folds in every one.
    """
    rates = len(recipe.finetune.learning_rates)
    return rates * rounds if folds else rates + rounds - 1


def rounds_of(context: Context, per_class: int | None) -> Rounds:
    """Return the rounds at a number of labels per class; folds always use all labels.

    Raises:
        DataInvalid: A class has fewer training images than labels per class.
    """
    folds = context.images.folds
    if folds is not None:
        # a fold too small for validation images chooses on what it is trained on
        made = tuple(
            Round(i, p.train, p.validation if len(p.validation) else p.train, p.test)
            for i, p in enumerate(folds.parts)
        )
        return Rounds(folds.all, folds.all, folds.all, None, made, True)
    splits = context.splits
    labels, seed = splits.train.labels, context.recipe.seed
    fixed = np.arange(len(splits.validation.labels)), np.arange(len(splits.test.labels))
    if per_class is None:
        chosen = [np.arange(len(labels))]
    else:
        chosen = [
            draw_labels(
                labels, per_class, seed=seed, draw=draw, class_names=splits.class_names,
                source_sha256=splits.train.source_sha256,
            )
            for draw in range(context.recipe.labels.draws)
        ]  # fmt: skip
    made = tuple(Round(draw, rows, *fixed) for draw, rows in enumerate(chosen))
    return Rounds(splits.train, splits.validation, splits.test, per_class, made, False)


def budgets(context: Context, *, curve: bool) -> list[Rounds]:
    """Return the rounds at the recipe's number of labels, then at those of its curve.

    Budgets of the curve that a class has too few images for are left out with a warning.

    Raises:
        DataInvalid: Too few images for ``labels.per_class``.
    """
    wanted = context.recipe.labels
    found = [rounds_of(context, wanted.per_class)]
    if found[0].folds or not curve:
        return found
    for per_class in dict.fromkeys(wanted.curve):
        if per_class == wanted.per_class:
            continue
        try:
            found.append(rounds_of(context, per_class))
        except DataInvalid as error:
            context.reporter.warn(f"label-budget curve: {error.message}; left out")
    return found

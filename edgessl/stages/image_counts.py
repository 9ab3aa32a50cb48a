"""How many images a recipe would work on, from the sizes of its sources alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgessl.core.recipe import Recipe
from edgessl.data.folds import AUTO_FOLDS, FEWEST_TEST_IMAGES
from edgessl.data.image_set import ImageSet
from edgessl.stages.proving import held_out_count


@dataclass(frozen=True, slots=True)
class Counts:
    """Images by role; shares of the recipe, before any is left out.

    Attributes:
        pool: To pretrain on.
        train: Labelled ones to train on; with folds, of one fold.
        validation: To choose on.
        test: To measure on; with folds, of one fold.
        classes: Number of classes.
        folds: How many; None with a test split.
    """

    pool: int
    train: int
    validation: int
    test: int
    classes: int
    folds: int | None

    def labels_used(self, per_class: int | None) -> int:
        """Return the labelled images that a training sees."""
        if self.folds is not None or per_class is None:
            return self.train
        return min(self.train, per_class * self.classes)

    def rounds(self, recipe: Recipe, per_class: int | None) -> int:
        """Return how often a training is repeated on other labels."""
        if self.folds is not None:
            return self.folds * recipe.data.repeats
        return 1 if per_class is None else recipe.labels.draws


def count_images(
    recipe: Recipe, pool: ImageSet, named: ImageSet | None, tested: int | None
) -> Counts:
    """Return the counts of a recipe.

    Args:
        recipe: Its shares and folds.
        pool: Source of the pretraining images.
        named: Source of the labelled images, if any.
        tested: Images of the source of test images, if any.
    """
    data, n = recipe.data, len(named) if named else 0
    test = tested if tested is not None else round(data.test_share * n)
    validation, folds = round(data.validation_share * n), data.folds
    if folds == "auto":
        few = n and tested is None and test < FEWEST_TEST_IMAGES
        folds = AUTO_FOLDS if few else None
    if folds is not None:
        seen, validation, test = n, 0, round(n / folds)
        train = n - test
    else:
        train = seen = n - validation - (0 if tested is not None else test)
    classes = len(named.class_names) if named else 0
    if data.unlabeled:
        proving = 0 if folds is not None else test
        seen = len(pool) - held_out_count(len(pool), proving, data)
    return Counts(seen, train, validation, test, classes, folds)

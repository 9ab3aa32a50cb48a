"""Who is who among labelled images: splits, or folds where there are too few for a test split.

The assignment is stored in ``splits.json`` of the run folder and used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.core.images import images_sha256
from edgessl.core.recipe import Data, Labels
from edgessl.data.decode import Prepared
from edgessl.data.folds import Fold, load_folds, make_folds, save_folds
from edgessl.data.groups import grouped
from edgessl.data.image_set import ImageSet
from edgessl.data.labelled import Labelled
from edgessl.data.splits import load_splits, make_splits

FILE = "splits.json"


@dataclass(frozen=True, slots=True)
class Split:
    """Prepared images of one role.

    Attributes:
        name: Of the role.
        images: uint8 (N, H, W, 3).
        labels: int64 (N,); -1 where there is none.
        items: Name of each image, for people.
        sha256: Identity of each prepared image.
        source_sha256: Identity of each source image, before preparation.
        data_sha256: Identity of the ordered prepared images.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    items: tuple[str, ...]
    sha256: tuple[str, ...]
    source_sha256: tuple[str, ...]
    data_sha256: str

    @property
    def labelled(self) -> Labelled:
        """Images and labels alone."""
        return Labelled(self.images, self.labels)


@dataclass(frozen=True, slots=True)
class Splits:
    """The labelled images by role, and their classes."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folds:
    """The labelled images when there are too few for a test split.

    Attributes:
        all: Every labelled image.
        parts: One per fold of each repeat: positions in ``all``; copies and groups lie on one
            side. ``validation`` may be empty.
        class_names: Names of the classes.
    """

    all: Split
    parts: tuple[Fold, ...]
    class_names: tuple[str, ...]

    @property
    def count(self) -> int:
        """Folds of one repeat."""
        return 1 + max(part.fold for part in self.parts)


@dataclass(frozen=True, slots=True)
class Pool:
    """Images to pretrain on: uint8 (N, S, S, 3) with S the storage side, and who they are.

    ``labels`` is int64 (N,) for a method that uses labels, else None.
    """

    images: NDArray[np.uint8]
    source_sha256: tuple[str, ...]
    data_sha256: str
    labels: NDArray[np.int64] | None = None


def hold_out(
    folder: Path, source: ImageSet, prepared: Prepared, data: Data, seed: int
) -> tuple[Split, Split, Split | None]:
    """Return the training, validation and test split; no test split beside ``data.test``.

    Args:
        folder: Run folder.
        source: Of the labelled images; its skipped files are stored too.
        prepared: All of them.
        data: Section of the recipe.
        seed: Of the run.

    Raises:
        DataInvalid: Too few images of a class, groups that cannot be shared out, or a stored
            assignment that was made with other settings or images.
    """
    path = folder / FILE
    asked: dict[str, Any] = {
        "seed": seed, "val": data.validation_share, "group_by": data.group_by,
        "test": 0.0 if data.test else data.test_share,
    }  # fmt: skip
    if path.is_file():
        assigned = load_splits(path, prepared, **asked)
    else:
        assigned = make_splits(prepared, **asked)
        assigned.save(path, (*source.skipped, *prepared.skipped))
    rows = assigned.indices(prepared.source_sha256)
    return (
        split_of("train", prepared, rows["train"]),
        split_of("validation", prepared, rows["val"]),
        None if data.test else split_of("test", prepared, rows["test"]),
    )


def in_folds(
    folder: Path, source: ImageSet, prepared: Prepared, data: Data, seed: int, number: int
) -> Folds:
    """Return all labelled images and ``number`` folds per repeat; otherwise :func:`hold_out`."""
    path = folder / FILE
    asked: dict[str, float | str | None] = {
        "seed": seed, "group_by": data.group_by, "folds": number, "repeats": data.repeats,
        "val": data.validation_share,
    }  # fmt: skip
    if path.is_file():
        parts = load_folds(path, prepared, asked=asked)
    else:
        parts = make_folds(
            prepared, seed=seed, folds=number, repeats=data.repeats,
            validation_share=data.validation_share,
        )  # fmt: skip
        skipped = (*source.skipped, *prepared.skipped)
        save_folds(path, prepared, parts, asked=asked, skipped=skipped)
    return Folds(split_of("all", prepared, None), parts, prepared.class_names)


def unused_budgets(labels: Labels) -> str:
    """Return a remark when numbers of labels were asked for, which folds leave out, else ''."""
    # null asks for all labels, which is what folds use
    if labels.per_class in (None, Labels().per_class) and not any(labels.curve):
        return ""
    return "folds use all labels: labels.per_class and labels.curve are left out"


def shared_groups(source: ImageSet, train: Prepared, group_by: str | None) -> set[str]:
    """Return the groups of labelled images that a source of test images has too."""
    # folders of different sources may be called alike without belonging together
    if train.groups is None or group_by == "folder":
        return set()
    try:
        return set(grouped(source, group_by).groups or ()) & set(train.groups)
    except DataInvalid:  # the test source need not tell its groups
        return set()


def split_of(name: str, prepared: Prepared, rows: NDArray[np.int64] | None) -> Split:
    """Return some rows of prepared images, or all without a copy; -1 for missing labels."""
    chosen = np.arange(len(prepared.images)) if rows is None else rows
    images = prepared.images if rows is None else np.ascontiguousarray(prepared.images[rows])
    labels = np.full(len(chosen), -1, np.int64)
    return Split(
        name=name,
        images=images,
        labels=labels if prepared.labels is None else prepared.labels[chosen],
        items=tuple(prepared.items[i] for i in chosen),
        sha256=tuple(prepared.sha256[i] for i in chosen),
        source_sha256=tuple(prepared.source_sha256[i] for i in chosen),
        data_sha256=images_sha256(images),
    )

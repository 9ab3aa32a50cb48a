"""What a source of images is, before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid

# folders of these names hold splits; a data set may have a class "train", but not only such
SPLIT_NAMES = frozenset(
    {
        "train",
        "training",
        "val",
        "valid",
        "validation",
        "test",
        "testing",
        "unlabeled",
        "unlabelled",
    }
)


class ImageUnreadable(DataInvalid):
    """One image cannot be decoded; whoever walks a whole source skips it and counts it."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(f"cannot read image {item!r}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class Originals:
    """What was true of images before they were made smaller for a cache.

    Attributes:
        source_sha256: Identity of every image as first decoded.
        sizes: int64 (N, 2), width and height of every image as first decoded.
        side: Short side that larger images were reduced to, in pixels.
    """

    source_sha256: tuple[str, ...]
    sizes: NDArray[np.int64]
    side: int


def _rgb(_: int) -> str:
    return "RGB"


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The images of one source, in a fixed order.

    Attributes:
        name: The source as the user gave it.
        items: A name for every image: relative path, or ``file#position``.
        load: Position to uint8 RGB pixels (H, W, 3); raises :class:`ImageUnreadable`.
        labels: int64 (N,), positions in ``class_names``; None where the source has none.
        class_names: Sorted names of the classes; empty without labels.
        skipped: Files that the listing already had to leave out.
        unlabelled_because: What a stage that needs labels tells the user when there are none.
        columns: Further columns of a list, by name: one text per image.
        groups: Name of the group of every image, by ``data.group_by``; None where images are
            on their own (see :func:`edgessl.data.groups.grouped`).
        mode: Position to the colour mode the image is stored in, in Pillow's names.
        paths: File of every image, where each has one of its own.
        known: What a cache remembers of the originals; None where images are the originals.
    """

    name: str
    items: tuple[str, ...]
    load: Callable[[int], NDArray[np.uint8]]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unlabelled_because: str = "it has no labels"
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    mode: Callable[[int], str] = _rgb
    paths: tuple[Path, ...] | None = None
    known: Originals | None = None

    def __len__(self) -> int:
        return len(self.items)

    def require_labels(self) -> NDArray[np.int64]:
        """Return the labels, for a stage that cannot do without.

        Raises:
            DataInvalid: There are none, all images are of one class, or the classes are called
                train, test and the like.
        """
        if self.labels is None:
            raise DataInvalid(
                f"{self.name} cannot be used as a labelled source: {self.unlabelled_because}",
                hint="put the images of each class into their own folder, SRC/<class>/<image>, or "
                "give a .csv list with the columns path and label",
            )
        if len(self.class_names) < 2:
            raise DataInvalid(
                f"{self.name} has the one class '{''.join(self.class_names)}'; "
                "at least two are needed to classify",
                hint="give the folder that holds the class folders",
            )
        if SPLIT_NAMES.issuperset(name.lower() for name in self.class_names):
            raise DataInvalid(
                f"the sub-folders of {self.name} are splits, not classes: "
                f"{', '.join(self.class_names)}",
                hint=f"give each for what it is: --labels {self.name}/{self.class_names[-1]}, "
                "--test ...",
            )
        return self.labels

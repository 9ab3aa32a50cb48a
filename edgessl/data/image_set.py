"""What a source of images is, before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid


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
    """

    name: str
    items: tuple[str, ...]
    load: Callable[[int], NDArray[np.uint8]]
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    unlabelled_because: str = "it has no labels"

    def __len__(self) -> int:
        return len(self.items)

    def require_labels(self) -> NDArray[np.int64]:
        """Return the labels, for a stage that cannot do without.

        Raises:
            DataInvalid: There are none, or all images are of one class.
        """
        if self.labels is None:
            raise DataInvalid(
                f"{self.name} cannot be used as a labelled source: {self.unlabelled_because}",
                hint="put the images of each class into their own folder: SRC/<class>/<image>",
            )
        if len(self.class_names) < 2:
            raise DataInvalid(
                f"{self.name} has the one class '{''.join(self.class_names)}'; "
                "at least two are needed to classify",
                hint="give the folder that holds the class folders",
            )
        return self.labels

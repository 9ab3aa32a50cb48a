"""A look at every image of a source: size, colour mode, identity, and a thumbnail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from edgessl.data.decode import FORMATS, Prepared, identity, map_in_threads
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped
from edgessl.data.near import SIDE, thumbnail


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was seen; rows are the images that can be decoded.

    Attributes:
        source: What was looked at.
        kept: int64 (N,), position of every row in the source.
        sizes: int64 (N, 2), width and height.
        source_sha256: Identity of every image.
        modes: Stored colour mode to number of images, in Pillow's names.
        thumbnails: uint8 (N, 32, 32, 3).
        skipped: Images that cannot be decoded; those of the listing are in ``source.skipped``.
    """

    source: ImageSet
    kept: NDArray[np.int64]
    sizes: NDArray[np.int64]
    source_sha256: tuple[str, ...]
    modes: dict[str, int]
    thumbnails: NDArray[np.uint8]
    skipped: tuple[Skipped, ...]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class of every row, if the source has labels."""
        return None if self.source.labels is None else self.source.labels[self.kept]

    @property
    def items(self) -> tuple[str, ...]:
        """Name of every row."""
        return tuple(self.source.items[i] for i in self.kept)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Group of every row, if the source has groups."""
        return self.source.groups and tuple(self.source.groups[i] for i in self.kept)

    def prepared(self) -> Prepared:
        """Return the rows in the form that splits are made of, thumbnails as images."""
        return Prepared(
            images=self.thumbnails, labels=self.labels, class_names=self.source.class_names,
            items=self.items, sha256=self.source_sha256, source_sha256=self.source_sha256,
            source_sizes=self.sizes, groups=self.groups, kept=self.kept, skipped=self.skipped,
        )  # fmt: skip


def inspect(source: ImageSet, progress: Callable[[int], object]) -> Inspection:
    """Decode every image once.

    Args:
        source: What to look at.
        progress: Told how many images are done.
    """
    n = len(source)
    small = np.empty((n, SIDE, SIDE, 3), np.uint8)
    sizes, shas, modes = np.zeros((n, 2), np.int64), [""] * n, [""] * n

    def one(position: int) -> str:
        try:
            image = source.load(position)
        except ImageUnreadable as error:
            return error.reason
        small[position] = thumbnail(image)
        shas[position], sizes[position] = identity(source, position, image)
        modes[position] = source.mode(position)
        return ""

    skipped, kept = [], []
    for position, reason in enumerate(map_in_threads(one, n)):
        if reason:
            skipped.append(Skipped(source.items[position], reason))
        else:
            kept.append(position)
        progress(position + 1)
    rows = np.array(kept, np.int64)
    return Inspection(
        source=source,
        kept=rows,
        sizes=sizes[rows],
        source_sha256=tuple(shas[i] for i in kept),
        modes=dict(Counter(modes[i] for i in kept).most_common()),
        thumbnails=small if len(rows) == n else small[rows],
        skipped=tuple(skipped),
    )


def salvage(path: Path) -> NDArray[np.uint8] | None:
    """Return what can be seen of a damaged file, uint8 (H, W, 3); None if that is nothing."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            with suppress(OSError):
                image.load()
            if isinstance(image, ImageFile.ImageFile):
                image.tile = []  # nothing more to decode: what is there so far is the picture
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001  (damaged bytes, as in read_image)
        return None

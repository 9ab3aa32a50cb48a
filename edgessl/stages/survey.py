"""A quick look at a source of images: how many, of which classes, how large, grey or not."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.data.image_set import ImageSet, ImageUnreadable
from edgessl.data.sources import open_source

SAMPLE, FEWEST, AT_ONCE = 48, 16, 8
BUDGET_S = 5.0  # large photographs: stop at fewer than SAMPLE when it takes longer


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source looks like.

    Attributes:
        source: As the user named it.
        images: How many the listing shows.
        classes: Name to number of images, in the order of the classes; None without labels.
        smallest: Width and height of the smallest sampled image, by its short side.
        typical: The same of the median one.
        largest: The same of the largest one.
        short_side: Median short side of the sample, in pixels.
        grey: Share of the sample without colour, in [0, 1].
        sampled: Images that were decoded for this.
        unreadable: Images of the sample that could not be decoded, and files left out before.
    """

    source: str
    images: int
    classes: dict[str, int] | None
    smallest: tuple[int, int]
    typical: tuple[int, int]
    largest: tuple[int, int]
    short_side: int
    grey: float
    sampled: int
    unreadable: int

    @property
    def is_grey(self) -> bool:
        """Whether (nearly) no image has colour."""
        return self.grey >= 0.95

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest; 1 without classes."""
        counts = list((self.classes or {}).values())
        return max(counts) / max(1, min(counts)) if counts else 1.0

    def text(self) -> str:
        """Return one line for people."""
        (w0, h0), (w, h), (w1, h1) = self.smallest, self.typical, self.largest
        sizes = f"{w} x {h} px"
        if (w0, h0) != (w1, h1):
            sizes += f" ({w0} x {h0} to {w1} x {h1})"
        parts = [f"{self.images:,} images", sizes, "grey" if self.is_grey else "colour"]
        if self.classes is not None:
            ranked = sorted(self.classes.items(), key=lambda pair: -pair[1])
            shown = ", ".join(f"{name} {n:,}" for name, n in ranked[:6])
            more = f" and {len(ranked) - 6} more" if len(ranked) > 6 else ""
            parts.append(f"{len(ranked)} classes: {shown}{more}")
        if self.unreadable:
            parts.append(f"{self.unreadable} unreadable")
        return "; ".join(parts)


def look_at(source: str, *, labelled: bool) -> Survey:
    """Open a source and decode a sample of it.

    Args:
        source: See :func:`edgessl.data.sources.open_source`.
        labelled: Whether it must have labels; classes are told only then.

    Raises:
        DataInvalid: No such source, no image in it, none of the sample can be decoded, or no
            labels where they are needed.
    """
    images = open_source(source)
    classes = None
    if labelled:
        counts = np.bincount(images.require_labels(), minlength=len(images.class_names))
        classes = dict(zip(images.class_names, map(int, counts), strict=True))
    looks, failed = _sampled(images)
    if not looks:
        raise DataInvalid(
            f"none of {failed} sampled image(s) of {source} can be read",
            hint="open one of the files in an image viewer, or give another folder",
        )
    sizes = sorted(((width, height) for width, height, _ in looks), key=min)
    return Survey(
        source=source,
        images=len(images),
        classes=classes,
        smallest=sizes[0],
        typical=sizes[len(sizes) // 2],
        largest=sizes[-1],
        short_side=round(median(map(min, sizes))),
        grey=sum(grey for _, _, grey in looks) / len(looks),
        sampled=len(looks),
        unreadable=failed + len(images.skipped),
    )


def _sampled(images: ImageSet) -> tuple[list[tuple[int, int, bool]], int]:
    """Return (width, height, has no colour) of a random sample, and how many failed."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))[:SAMPLE]
    found: list[tuple[int, int, bool] | None] = []
    start = time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for part in range(0, len(order), AT_ONCE):
            if len(found) >= FEWEST and time.monotonic() - start > BUDGET_S:
                break
            found += pool.map(lambda i: _look(images, int(i)), order[part : part + AT_ONCE])
    looks = [look for look in found if look is not None]
    return looks, len(found) - len(looks)


def _look(images: ImageSet, position: int) -> tuple[int, int, bool] | None:
    try:
        pixels = images.load(position)
    except ImageUnreadable:
        return None
    height, width = pixels.shape[:2]
    return width, height, _is_grey(pixels)


def _is_grey(pixels_HWC: NDArray[np.uint8]) -> bool:
    few = pixels_HWC[:: max(1, len(pixels_HWC) // 64)].astype(np.int16)
    # JPEG rounds a grey picture to channels that differ by one or two
    return int(np.abs(few - few.mean(2, keepdims=True)).max(initial=0)) <= 2

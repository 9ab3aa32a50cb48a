"""Near-duplicates: pictures that differ by size, compression, exposure or a thin border only.

Every picture becomes a 32 x 32 thumbnail in colour, brought to zero mean and unit contrast. Two
pictures are near-duplicates when the root mean square of the difference of these is at most
:data:`THRESHOLD`. The search is exact: the 64 lowest frequencies of the brightness (the part that
perceptual hashes round to bits) are an orthonormal projection, so their distance never exceeds
that of the thumbnails, and pairs beyond the threshold there need no second look. Nor do pairs
beyond it along the first principal axis, so pictures are walked in that order. Source of the
idea: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, LOW = 32, 8
# distance = sqrt(2 (1 - r)) with r the correlation of two thumbnails; 0.15 is r = 0.989. Photos
# saved again as JPEG of quality 10 come to 0.05, with 1 % of the border cut off to 0.09.
THRESHOLD = 0.15
# contrast below which a picture counts as flat: noise must not be stretched into content
FLAT = 8.0
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Pair:
    """Two near-duplicates: positions in what was searched, and their distance."""

    a: int
    b: int
    distance: float


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What was found.

    Attributes:
        pairs: One chain of pairs through every group, the closest first: of three pictures
            alike, two pairs are named.
        group: int64 (N,), the number of the group of every picture; alone in it where nothing
            is near.
    """

    pairs: tuple[Pair, ...]
    group: NDArray[np.int64]


def thumbnail(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the whole picture as uint8 (32, 32, 3), whatever its aspect."""
    small = Image.fromarray(image_HWC).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small)


def near_duplicates(
    thumbnails_NHWC: NDArray[np.uint8], identities: Sequence[str] | None = None
) -> NearDuplicates:
    """Find near-duplicates among thumbnails.

    Args:
        thumbnails_NHWC: uint8 (N, 32, 32, 3), see :func:`thumbnail`.
        identities: Source sha256 of every picture; exact copies are searched for once, and
            join the group of the first of them without a pair of their own.
    """
    n = len(thumbnails_NHWC)
    first: dict[str, int] = {}
    twin = np.array(
        [first.setdefault(sha, i) for i, sha in enumerate(identities)]
        if identities is not None
        else np.arange(n),
        np.int64,
    )
    rows = np.unique(twin)
    low, scale = _low_frequencies(thumbnails_NHWC, rows)
    order, along = _principal_order(low)
    rows, low, scale = rows[order], low[order], scale[order]
    limit = THRESHOLD**2 * SIDE * SIDE * 3 * (1 + 1e-3)  # room for rounding
    # |a - b|^2 as one product: (-2 a, |a|^2, 1) (b, 1, |b|^2)
    squares, ones = (low * low).sum(axis=1, keepdims=True), np.ones((len(rows), 1), np.float32)
    left, right = np.hstack([-2 * low, squares, ones]), np.hstack([low, ones, squares])
    group = np.arange(len(rows))
    pairs: list[Pair] = []
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        end = int(np.searchsorted(along, along[stop - 1] + math.sqrt(limit), side="right"))
        near = left[start:stop] @ right[start:end].T <= limit
        here, there = np.divmod(np.flatnonzero(near), end - start)
        for i in np.unique(here):
            others = there[here == i]
            others = start + others[others > i]
            a = start + int(i)
            others = others[group[others] != group[a]]
            if not len(others):
                continue
            distances = _distances(thumbnails_NHWC, scale, rows, a, others)
            for distance, b in sorted(zip(distances, others, strict=True)):
                if distance <= THRESHOLD and group[a] != group[b]:
                    first_one, second = sorted((int(rows[a]), int(rows[b])))
                    pairs.append(Pair(first_one, second, float(distance)))
                    group[group == group[b]] = group[a]
    pairs.sort(key=lambda pair: (pair.distance, pair.a, pair.b))
    # a group is called by its first picture
    number = np.full(len(rows), n, np.int64)
    np.minimum.at(number, group, rows)
    own = np.empty(n, np.int64)
    own[rows] = number[group]
    return NearDuplicates(tuple(pairs), own[twin])


def _principal_order(
    low: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the order along the axis that separates most, and the places on it, ascending."""
    centred = low - low.mean(axis=0)
    axis = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, -1]
    along = (low @ axis.astype(np.float32)).astype(np.float32)
    order = np.argsort(along, kind="stable")
    return order, along[order]


def _low_frequencies(
    thumbnails: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (R, 64) coefficients of the brightness, and (R, 2) mean and contrast."""
    k, x = np.arange(LOW)[:, None], np.arange(SIDE)[None, :]
    cosines = np.sqrt(2 / SIDE) * np.cos(math.pi * k * (2 * x + 1) / (2 * SIDE))
    cosines[0] /= math.sqrt(2)
    dct = cosines.astype(np.float32)
    low = np.empty((len(rows), LOW * LOW), np.float32)
    scale = np.empty((len(rows), 2), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        x_BHWC = thumbnails[rows[part]].astype(np.float32)
        flat = x_BHWC.reshape(len(x_BHWC), -1)
        scale[part, 0] = flat.mean(axis=1)
        scale[part, 1] = np.maximum(flat.std(axis=1), FLAT)
        brightness = (x_BHWC - scale[part, 0, None, None, None]).sum(axis=3) / math.sqrt(3)
        brightness /= scale[part, 1, None, None]
        low[part] = (dct @ brightness @ dct.T).reshape(len(x_BHWC), -1)
    return low, scale


def _distances(
    thumbnails: NDArray[np.uint8],
    scale: NDArray[np.float32],
    rows: NDArray[np.int64],
    i: int,
    others: NDArray[np.int64],
) -> NDArray[np.float64]:
    def normalised(which: NDArray[np.int64]) -> NDArray[np.float32]:
        flat = thumbnails[rows[which]].astype(np.float32).reshape(len(which), -1)
        return (flat - scale[which, :1]) / scale[which, 1:]

    one = normalised(np.array([i]))
    found = [
        np.sqrt(((normalised(others[s : s + BLOCK]) - one) ** 2).mean(axis=1))
        for s in range(0, len(others), BLOCK)
    ]
    return np.concatenate(found).astype(np.float64)

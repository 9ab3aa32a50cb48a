"""Random numbers that are a function of their key: no generator, no state, no order.

The words of a key are absorbed one after the other, ``k <- mix(k ^ word)``, and number ``c`` of
the key is ``mix(k + (c + 1) * GAMMA)``: the SplitMix64 generator started at ``k``. Source of
``mix`` and ``GAMMA``: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014 (variant 13 of Stafford's mixers). Integer arithmetic only, so every machine gives
the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def uniforms(
    seed: int, epoch: int, indices: NDArray[np.int64], view: int, count: int
) -> NDArray[np.float64]:
    """Return ``count`` numbers per image that depend on (seed, epoch, image index, view) only.

    Args:
        seed: Any integer (taken modulo 2^64, like ``epoch`` and ``view``).
        epoch: Pass over the data.
        indices: int64 (B,), positions of the images in their source.
        view: Which of the views of an image.
        count: Numbers per image.

    Returns:
        float64 (B, count), multiples of 2^-53 in [0, 1).
    """
    key = np.zeros(len(indices), np.uint64)
    for word in (seed, epoch, view):
        key = _mix((key ^ np.uint64(word & MASK)) + np.uint64(GAMMA))
    key = _mix((key ^ np.asarray(indices, np.int64).astype(np.uint64)) + np.uint64(GAMMA))
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
    bits = _mix(key[:, None] + counters) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

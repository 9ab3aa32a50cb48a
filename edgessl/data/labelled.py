"""Prepared images with their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Labelled:
    """Prepared images uint8 (N, H, W, 3) with classes (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def subset(self, indices: NDArray[np.int64]) -> Labelled:
        """Return the images at ``indices``."""
        return Labelled(self.images[indices], self.labels[indices])

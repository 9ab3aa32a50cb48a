"""The handwritten digits that scikit-learn ships: 8 x 8 grey images, no download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgessl.core.registry import missing_extra
from edgessl.data.image_set import ImageSet


def open_digits(_split: str = "") -> ImageSet:
    """Open the 1797 digits; ink counts 0..16 become 0..255, repeated to three channels.

    There is one split, the whole.

    Source: UCI Machine Learning Repository, Optical Recognition of Handwritten Digits, its
    test part.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise missing_extra("dataset 'digits'", "scikit-learn", "train") from error
    images, labels = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(images).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)

    def load(position: int) -> NDArray[np.uint8]:
        return np.repeat(grey[position][:, :, None], 3, axis=2)

    return ImageSet(
        name="digits",
        items=tuple(f"digits#{i}" for i in range(len(grey))),
        load=load,
        labels=np.asarray(labels, np.int64),
        class_names=tuple("0123456789"),
        mode=lambda _: "L",
    )

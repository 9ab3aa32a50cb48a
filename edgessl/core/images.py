"""From decoded pixels to model input: the one definition that every room shares.

Shapes: N images, H height, W width; pixels are RGB uint8 in 0..255.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec


def to_model_input(images_NHWC: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Scale, normalise and lay out images that are already resized and cropped.

    Args:
        images_NHWC: uint8 (N, H, W, 3) with H, W as in ``spec``.
        spec: The input contract.

    Returns:
        float32, (N, 3, H, W) or (N, H, W, 3) by ``spec.layout``, contiguous.

    Raises:
        ValueError: Shape or dtype differ from the contract.
    """
    want = (spec.height, spec.width, spec.channels)
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != want:
        raise ValueError(f"want uint8 (N, {want}), got {images_NHWC.dtype} {images_NHWC.shape}")
    low, high = spec.value_range
    x = images_NHWC.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
    x = (x - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    if spec.layout == "NCHW":
        x = x.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x, dtype=np.float32)


def image_sha256(image_HWC: NDArray[np.uint8]) -> str:
    """Identity of one prepared image: SHA-256 of its shape and pixels, 64 hex digits."""
    digest = hashlib.sha256(repr(image_HWC.shape).encode())
    digest.update(np.ascontiguousarray(image_HWC).data)  # no copy: it may be a large photograph
    return digest.hexdigest()


def images_sha256(images_NHWC: NDArray[np.uint8]) -> str:
    """Identity of an ordered set of prepared images."""
    return image_sha256(images_NHWC)

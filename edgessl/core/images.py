"""From decoded pixels to model input: the one definition that every room shares.

Shapes: N images, H height, W width; pixels are RGB uint8 in 0..255.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec, OutputSpec, Quantized


def to_model_input(images_NHWC: NDArray[np.uint8], spec: InputSpec) -> NDArray[Any]:
    """Scale, normalise and lay out images that are already resized and cropped.

    Args:
        images_NHWC: uint8 (N, H, W, 3) with H, W as ``spec.side`` says.
        spec: The input contract.

    Returns:
        Array of ``spec.dtype``, (N, 3, H, W) or (N, H, W, 3) by ``spec.layout``, contiguous.

    Raises:
        ValueError: Shape or dtype differ from the contract.
    """
    want = (*spec.side, spec.channels)
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape[1:] != want:
        raise ValueError(f"want uint8 (N, {want}), got {images_NHWC.dtype} {images_NHWC.shape}")
    if spec.takes_pixels:
        return np.ascontiguousarray(_laid_out(images_NHWC, spec))
    low, high = spec.value_range
    x = images_NHWC.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
    x = (x - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    if spec.quantized is not None:
        return np.ascontiguousarray(to_integers(_laid_out(x, spec), spec.quantized, spec.dtype))
    return np.ascontiguousarray(_laid_out(x, spec), dtype=np.float32)


def to_integers(values: NDArray[np.float32], quantized: Quantized, dtype: str) -> NDArray[Any]:
    """Round real numbers (to even) to the integers that stand for them, saturating."""
    kind = np.iinfo(dtype)
    q = np.rint(values / np.float32(quantized.scale)) + quantized.zero_point
    return q.clip(kind.min, kind.max).astype(dtype)


def to_logits(outputs_NC: NDArray[Any], spec: OutputSpec) -> NDArray[np.float32]:
    """Return what a file gave as real numbers: float32 (N, C)."""
    if spec.quantized is None:
        return outputs_NC.astype(np.float32)
    offset = outputs_NC.astype(np.float32) - np.float32(spec.quantized.zero_point)
    return offset * np.float32(spec.quantized.scale)


def _laid_out(x_NHWC: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    return x_NHWC.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else x_NHWC


def image_sha256(image_HWC: NDArray[np.uint8]) -> str:
    """Identity of one prepared image: SHA-256 of its shape and pixels, 64 hex digits."""
    digest = hashlib.sha256(repr(image_HWC.shape).encode())
    digest.update(np.ascontiguousarray(image_HWC).data)  # no copy: it may be a large photograph
    return digest.hexdigest()


def images_sha256(images_NHWC: NDArray[np.uint8]) -> str:
    """Identity of an ordered set of prepared images."""
    return image_sha256(images_NHWC)

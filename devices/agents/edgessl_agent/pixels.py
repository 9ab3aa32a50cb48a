"""Pixels in, answers out: what stands around the model in every sample."""

from __future__ import annotations

from typing import Any, Callable


def make_preprocess(spec: dict[str, Any]) -> Callable[[Any], Any]:
    """Return uint8 (H, W, 3) -> (1, ...) in the layout and dtype of the input contract."""
    import numpy as np

    low, high = spec["value_range"]
    scale, shift = np.float32((high - low) / 255), np.float32(low)
    mean, std = np.asarray(spec["mean"], np.float32), np.asarray(spec["std"], np.float32)
    channels_first = spec["layout"] == "NCHW"
    integers: dict[str, Any] = spec.get("quantized") or {}

    def laid_out(x: Any) -> Any:
        return np.ascontiguousarray(x.transpose(2, 0, 1) if channels_first else x)[None]

    def preprocess(image: Any) -> Any:
        return laid_out((image.astype(np.float32) * scale + shift - mean) / std)

    def to_integers(image: Any) -> Any:
        kind = np.iinfo(spec["dtype"])
        real = preprocess(image) / np.float32(integers["scale"])
        return (np.rint(real) + integers["zero_point"]).clip(kind.min, kind.max).astype(kind.dtype)

    if integers:
        return to_integers
    # a file of integers without a scale takes the pixels as they are
    return preprocess if spec["dtype"] == "float32" else laid_out


def make_logits(spec: dict[str, Any] | None) -> Callable[[Any], Any]:
    """Return what a file gives (1, C) -> float32 logits (1, C)."""
    import numpy as np

    integers = (spec or {}).get("quantized")
    if not integers:
        return lambda y: y
    scale, zero = np.float32(integers["scale"]), np.float32(integers["zero_point"])
    return lambda y: (y.astype(np.float32) - zero) * scale


def make_postprocess() -> Callable[[Any], tuple[Any, int]]:
    """Return logits (1, C) -> (probabilities (C,), index of the answer)."""
    import numpy as np

    def postprocess(logits: Any) -> tuple[Any, int]:
        shifted = np.exp(logits[0] - logits[0].max())
        probabilities = shifted / shifted.sum()
        # of the logits: float32 probabilities tie where logits do not
        return probabilities, int(logits[0].argmax())

    return postprocess

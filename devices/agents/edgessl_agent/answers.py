"""Packs of images read row by row, and the comparison of two sets of logits."""

from __future__ import annotations

import zipfile
from typing import Any, Iterator

from .channel import Failed

BROKEN = 1e30


def rows(path: str, name: str) -> Iterator[Any]:
    """Yield the rows of one array of an ``.npz``, one at a time: a board's memory is small."""
    import numpy as np

    with zipfile.ZipFile(path) as archive, archive.open(name + ".npy") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        if header is None:
            raise Failed("PackInvalid", "%s in the pack has npy version %s" % (name, version))
        shape, fortran, dtype = header(stream)
        if fortran or dtype.hasobject:
            raise Failed("PackInvalid", "%s in the pack is not a plain array" % name)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        for _ in range(shape[0]):
            yield np.frombuffer(stream.read(size), dtype).reshape(shape[1:])


def compare(got: Any, want: Any, scale: float | None = None) -> dict[str, Any]:
    """Compare logits (N, C): largest error, lowest cosine, share of equal answers.

    The error is divided by ``scale``, by default the largest absolute wanted logit; what is not
    finite or has another shape counts as BROKEN, which no tolerance admits.
    """
    import numpy as np

    if got.shape != want.shape:
        return {"max_abs": BROKEN, "cosine": 0.0, "agreement": 0.0, "shape": list(got.shape)}
    agreement = float((got.argmax(1) == want.argmax(1)).mean())
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return {"max_abs": BROKEN, "cosine": 0.0, "agreement": agreement}
    got, want = got.astype(np.float64), want.astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    return {
        "max_abs": float(np.abs(got - want).max()) / (scale or float(np.abs(want).max()) or 1.0),
        "cosine": float(((got * want).sum(1) / np.maximum(lengths, 1e-30)).min()),
        "agreement": agreement,
    }

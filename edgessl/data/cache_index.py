"""The index of an image cache, read as what it is: a file that anybody may have changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.data.image_set import Originals, Skipped

INDEX, PIXELS, KIND = "index.json", "pixels.bin", "image-cache"
LARGEST = (1 << 32) - 1  # no side and no CRC-32 is more
HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Index:
    """What the index says of N images.

    Attributes:
        source: Name of what the cache was made of.
        items: Name of every image.
        shapes: int64 (N, 2), height and width.
        ends: int64 (N,), where the pixels of every image end in the file of pixels, in bytes.
        crc32: int64 (N,), of the pixels.
        labels: int64 (N,), each in 0..classes-1; None without labels.
        class_names: Empty without labels.
        columns: One text per image, by name.
        skipped: Images that were left out.
        known: The originals.
    """

    source: str
    items: tuple[str, ...]
    shapes: NDArray[np.int64]
    ends: NDArray[np.int64]
    crc32: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    skipped: tuple[Skipped, ...]
    known: Originals


def read_index(folder: Path) -> Index:
    """Read the index of a cache and compare it with the size of the pixels beside it.

    Raises:
        DataInvalid: Not a whole index, a value that cannot be, or a file of pixels of another
            size than all shapes together.
    """
    path = folder / INDEX
    try:
        index = _checked(files.read_json(path, KIND), (folder / PIXELS).stat().st_size)
    except (FileInvalid, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise DataInvalid(
            f"{path} is not a whole index: {said}", hint="prepare the cache again"
        ) from error
    return index


def _checked(body: dict[str, Any], size: int) -> Index:
    """Return the index; ValueError or TypeError name the first value that cannot be."""
    table = _mapping(body["images"], "images")
    items = _texts(table["item"], "images.item")
    n = len(items)
    if not n:
        raise ValueError("it lists no image")
    shapes = _pairs(table["shape"], "images.shape", n)
    # integers of Python: a sum of damaged shapes need not fit 64 bits
    total = sum(height * width * 3 for height, width in shapes)
    if total != size:
        raise ValueError(f"{PIXELS} has {size} bytes, its index says {total}")
    class_names, labels = (), None
    if body["class_names"] is not None or table["label"] is not None:
        class_names = _texts(body["class_names"], "class_names")
        if len(set(class_names)) != len(class_names):
            raise ValueError("class_names names a class twice")
        labels = _integers(table["label"], "images.label", n, (0, len(class_names) - 1))
    hashes = _texts(table["source_sha256"], "images.source_sha256", n)
    _every(hashes, "images.source_sha256", "64 hexadecimal digits", HASH.fullmatch)
    (side,) = _integers([body["side"]], "side", 1, (1, LARGEST))
    sizes = _pairs(table["source_size"], "images.source_size", n)
    columns = {
        name: _texts(values, f"columns.{name}", n)
        for name, values in _mapping(body["columns"], "columns").items()
    }
    skipped = [_mapping(s, f"skipped.{i}") for i, s in enumerate(_list(body["skipped"], "skipped"))]
    left_out = _texts([s["item"] for s in skipped], "skipped.item")
    reasons = _texts([s["reason"] for s in skipped], "skipped.reason")
    shape_array = np.array(shapes, np.int64)
    return Index(
        source=_texts([body["source"]], "source")[0],
        items=items,
        shapes=shape_array,
        ends=np.cumsum(shape_array.prod(axis=1) * 3),
        crc32=np.array(_integers(table["crc32"], "images.crc32", n, (0, LARGEST)), np.int64),
        labels=None if labels is None else np.array(labels, np.int64),
        class_names=class_names,
        columns=columns,
        skipped=tuple(map(Skipped, left_out, reasons)),
        known=Originals(hashes, np.array(sizes, np.int64), side),
    )


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is no object")
    return value


def _list(value: Any, name: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    if length not in (None, len(value)):
        raise ValueError(f"{name} has {len(value)} values for {length} images")
    return value


def _texts(value: Any, name: str, length: int | None = None) -> tuple[str, ...]:
    found = _list(value, name, length)
    _every(found, name, "text", lambda x: isinstance(x, str))
    "".join(found).encode()  # half a surrogate pair could be shown and written nowhere
    return tuple(found)


def _integers(value: Any, name: str, length: int, bounds: tuple[int, int]) -> list[int]:
    low, high = bounds
    found = _list(value, name, length)
    wanted = f"an integer from {low} to {high}"
    _every(found, name, wanted, lambda x: type(x) is int and low <= x <= high)
    return found


def _pairs(value: Any, name: str, length: int) -> list[list[int]]:
    found = _list(value, name, length)
    _every(
        found, name, "a pair of positive integers",
        lambda x: isinstance(x, list) and len(x) == 2
        and all(type(side) is int and 0 < side <= LARGEST for side in x),
    )  # fmt: skip
    return found


def _every(values: Any, name: str, wanted: str, good: Callable[[Any], object]) -> None:
    for position, value in enumerate(values):
        if not good(value):
            raise ValueError(f"{name}[{position}] is {str(value)[:40]!r}, expected {wanted}")

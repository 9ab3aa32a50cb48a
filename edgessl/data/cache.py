"""A cache of decoded images: one file of pixels that is mapped into memory, and an index.

Large photographs are reduced to a short side once, instead of in every run. A cached image is
resized a second time when it is used at a smaller side, so pixels differ slightly from those of
the original; at the cached side they are the same. Images keep the identity of their originals,
so splits, label draws and leak checks do not depend on whether a cache is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgessl.core import files
from edgessl.core.errors import DataInvalid, EdgeSSLError, FileInvalid
from edgessl.data.cache_index import INDEX, KIND, PIXELS, read_index
from edgessl.data.decode import check_side, identity, map_in_threads
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped

AT_ONCE = 64  # images decoded before they are written: bounds the memory


def is_cache(folder: Path) -> bool:
    """Return whether a folder is such a cache, and not one that holds pictures."""
    return (folder / INDEX).is_file() and (folder / PIXELS).is_file()


def write_cache(
    source: ImageSet, side: int, folder: Path, progress: Callable[[int], object]
) -> ImageSet:
    """Decode a source into a new cache folder, whole or not at all.

    The pixels of an interrupted call are removed by the call itself, or by the next one for the
    same folder.

    Args:
        source: Images that cannot be decoded are left out, and listed.
        side: Images with a longer short side are reduced to it, in pixels; none is enlarged.
        folder: Must not exist, or be empty.
        progress: Told how many images are done.

    Returns:
        The cache, opened.

    Raises:
        DataInvalid: No image can be decoded, or the source is a cache of smaller images.
        DiskFull: No space is left.
        EdgeSSLError: The folder exists, is being written, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EdgeSSLError(
            f"{folder} exists and is not overwritten",
            hint="choose another --out, or remove it first",
        )
    check_side(source, side)
    part = folder.with_name(f".{folder.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        with (part / "lock").open("w") as lock:
            _take(lock, folder)
            try:
                _write(source, side, part, progress)
                (part / "lock").unlink()
                os.replace(part, folder)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise files.explain_os_error(error, folder) from error
    return open_cache(folder, str(folder))


def open_cache(folder: Path, name: str) -> ImageSet:
    """Open a folder that :func:`write_cache` wrote; pixels are read when asked for.

    Raises:
        DataInvalid: See :func:`edgessl.data.cache_index.read_index`.
        FileInvalid: The file of pixels may not be read.
    """
    index = read_index(folder)
    try:
        pixels = np.memmap(folder / PIXELS, np.uint8, "r")
    except OSError as error:
        raise FileInvalid(f"{folder / PIXELS} cannot be read: {error.strerror}") from error

    def load(position: int) -> NDArray[np.uint8]:
        height, width = map(int, index.shapes[position])
        stop = int(index.ends[position])
        image = np.array(pixels[stop - height * width * 3 : stop]).reshape(height, width, 3)
        if zlib.crc32(image.data) != index.crc32[position]:
            raise ImageUnreadable(index.items[position], f"its pixels in {PIXELS} are damaged")
        return image

    return ImageSet(
        name, index.items, load, index.labels, index.class_names, index.skipped,
        f"{index.source}, which it was made of, has no labels", index.columns, known=index.known,
    )  # fmt: skip


def reduce(image_HWC: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return an image with a short side of at most ``side`` pixels, whole, aspect kept.

    The size is that of :func:`edgessl.data.decode.fit` before its crop.
    """
    height, width = image_HWC.shape[:2]
    if min(height, width) <= side:
        return image_HWC
    size = (side, int(side * height / width)) if width <= height else (
        int(side * width / height), side,
    )  # fmt: skip
    return np.asarray(Image.fromarray(image_HWC).resize(size, Image.Resampling.BILINEAR))


def _take(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise EdgeSSLError(
            f"{folder} is being written by another process", hint="wait for it to end"
        ) from error


def _write(source: ImageSet, side: int, part: Path, progress: Callable[[int], object]) -> None:
    table: dict[str, list[Any]] = {
        key: [] for key in ("item", "label", "shape", "crc32", "source_sha256", "source_size")
    }
    columns: dict[str, list[str]] = {column: [] for column in source.columns}
    skipped = list(source.skipped)
    with (part / PIXELS).open("wb") as stream:
        for start in range(0, len(source), AT_ONCE):
            stop = min(start + AT_ONCE, len(source))
            decoded = map_in_threads(lambda i, s=start: _one(source, s + i, side), stop - start)
            for position, found in enumerate(decoded, start):
                if isinstance(found, Skipped):
                    skipped.append(found)
                    continue
                image, sha, size = found
                _append(stream, table, image)
                table["item"].append(source.items[position])
                table["source_sha256"].append(sha)
                table["source_size"].append(size)
                if source.labels is not None:
                    table["label"].append(int(source.labels[position]))
                for column, values in columns.items():
                    values.append(source.columns[column][position])
            progress(stop)
        stream.flush()
        os.fsync(stream.fileno())
    if not table["item"]:
        shown = "; ".join(f"{s.item!r}: {s.reason}" for s in skipped[:3])
        raise DataInvalid(f"no image of {source.name} can be used: {shown}")
    labels = None if source.labels is None else table["label"]
    body = {
        "source": source.name,
        "side": side,
        "pixels": PIXELS,
        "class_names": None if source.labels is None else list(source.class_names),
        "columns": columns,
        "images": table | {"label": labels},
        "skipped": [{"item": s.item, "reason": s.reason} for s in skipped],
    }
    files.write_json(part / INDEX, KIND, body)


def _append(stream: BinaryIO, table: dict[str, list[Any]], image: NDArray[np.uint8]) -> None:
    image = np.ascontiguousarray(image)
    stream.write(image.data)
    table["shape"].append([image.shape[0], image.shape[1]])
    table["crc32"].append(zlib.crc32(image.data))


def _one(
    source: ImageSet, position: int, side: int
) -> Skipped | tuple[NDArray[np.uint8], str, tuple[int, int]]:
    try:
        image = source.load(position)
    except ImageUnreadable as error:
        return Skipped(source.items[position], error.reason)
    sha, size = identity(source, position, image)
    return reduce(image, side), sha, size

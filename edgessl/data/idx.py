"""IDX files, the format of MNIST and its relatives: a big-endian header and raw bytes.

Header: two zero bytes, type code (8 = unsigned byte), number of dimensions, then one 32-bit
length per dimension. Source: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.data.image_set import ImageSet

# deflate cannot shrink by more than this factor: bounds what a header may claim
MOST_COMPRESSION = 1032


def is_idx_name(path: Path) -> bool:
    """Return whether the name is that of an IDX file of images, compressed or not."""
    return re.search(r"idx3-ubyte(\.gz)?$", path.name) is not None


def open_idx(path: Path, name: str) -> ImageSet:
    """Open an IDX file of images, and the labels beside it when there are any.

    Raises:
        DataInvalid: Not IDX, truncated, longer than its header says, or labels that do not fit.
    """
    images = read_idx(path, dimensions=3)
    beside = _labels_beside(path)
    labels = None if beside is None else read_idx(beside, dimensions=1).astype(np.int64)
    if len(images) == 0 or 0 in images.shape:
        raise DataInvalid(f"{path} holds no image (shape {images.shape})")
    if labels is not None and len(labels) != len(images):
        raise DataInvalid(
            f"{beside} has {len(labels)} labels for the {len(images)} images of {path.name}",
            hint="download both files again; they must come from the same split",
        )

    def load(position: int) -> NDArray[np.uint8]:
        return np.repeat(images[position][:, :, None], 3, axis=2)

    return ImageSet(
        name=name,
        items=tuple(f"{path.name}#{i}" for i in range(len(images))),
        load=load,
        labels=labels,
        class_names=() if labels is None else tuple(map(str, range(int(labels.max()) + 1))),
        unlabelled_because=f"there is no file of labels (idx1-ubyte) beside {path.name}",
        mode=lambda _: "L",
    )


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzip-compressed if its name ends in ``.gz``.

    Returns:
        uint8, with ``dimensions`` axes.

    Raises:
        DataInvalid: Wrong magic number or number of axes, truncated, or too long.
    """
    again = "download the file again"
    room = path.stat().st_size * (MOST_COMPRESSION if path.suffix == ".gz" else 1)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if magic != bytes((0, 0, 8, dimensions)):
                raise DataInvalid(
                    f"{path} does not begin like an IDX file of unsigned bytes in {dimensions} "
                    f"dimension(s): magic {magic.hex() or 'missing'}, "
                    f"expected 000008{dimensions:02x}"
                )
            head = stream.read(4 * dimensions)
            if len(head) < 4 * dimensions:
                raise DataInvalid(f"{path} is cut inside its header", hint=again)
            shape = struct.unpack(f">{dimensions}I", head)
            size = math.prod(shape)
            body = stream.read(size + 1) if size <= room else b""
    except (OSError, EOFError, zlib.error) as error:
        raise DataInvalid(f"{path} cannot be read: {error}", hint=again) from error
    if len(body) != size:
        problem = "is truncated" if len(body) < size else "is longer than its header says"
        raise DataInvalid(f"{path} {problem}: {shape} needs {size} bytes", hint=again)
    return np.frombuffer(body, np.uint8).reshape(shape)


def _labels_beside(images: Path) -> Path | None:
    name = images.name.removesuffix(".gz").replace("idx3", "idx1")
    for label_name in (name.replace("images", "labels"), name):
        for candidate in (images.with_name(label_name), images.with_name(f"{label_name}.gz")):
            if candidate.is_file():
                return candidate
    return None

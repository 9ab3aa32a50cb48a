"""The images a bench uses: evaluation packs and golden records, checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.archives import read_npz
from edgessl.core.artifact import Artifact
from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.core.images import images_sha256
from edgessl.devices.conditions import ROTATION


@dataclass(frozen=True)
class Pack:
    """An evaluation pack: uint8 images that are resized and cropped, and what is known of them.

    Attributes:
        path: The ``.npz``.
        labels: (N,) int64; -1 where there is none.
        sha256: (N,) identity of each image.
        reference: (N, C) float32 PyTorch logits, or None.
        data_sha256: Identity of the ordered images.
    """

    path: Path
    labels: NDArray[np.int64]
    sha256: list[str]
    reference: NDArray[np.float32] | None
    data_sha256: str

    @classmethod
    def open(cls, path: Path, height: int, width: int) -> Pack:
        """Read and check a pack.

        Raises:
            DataInvalid: Not a pack, empty, or of another image size.
        """
        try:
            arrays = read_npz(path, ("images", "labels", "sha256"), optional=("reference",))
        except FileInvalid as error:
            message = f"{path} is not an evaluation pack: {error.message}"
            raise DataInvalid(message, hint=error.hint) from error
        images, labels, names = (arrays[name] for name in ("images", "labels", "sha256"))
        reference, n = arrays.get("reference"), len(images) if images.ndim else 0
        if images.dtype != np.uint8 or images.shape != (n, height, width, 3) or n == 0:
            raise DataInvalid(
                f"{path} holds {images.dtype} {images.shape}, the artifact takes uint8 images of "
                f"{height} x {width} x 3",
                hint=f"prepare the images as the artifact takes them: --set data.imgsz={height}",
            )
        plain = _is(labels, 1, "iu") and _is(names, 1, "U")
        if not plain or not (reference is None or _is(reference, 2, "f")):
            raise DataInvalid(f"{path} holds labels, names or a reference of another type or rank")
        lengths = {len(labels), len(names), n if reference is None else len(reference)}
        if lengths != {n}:
            raise DataInvalid(f"{path}: {n} images, but other arrays have {sorted(lengths)} rows")
        return cls(path, labels.astype(np.int64), names.tolist(), reference, images_sha256(images))

    def rotation(self) -> list[int]:
        """Return the positions of the first different images, twice the fewest wanted."""
        first_seen = {name: i for i, name in reversed(list(enumerate(self.sha256)))}
        return sorted(first_seen.values())[: 2 * ROTATION]


def check_golden(path: Path, artifact: Artifact) -> int:
    """Return the number of classes in a golden record, once it is known to fit the artifact.

    Raises:
        FileInvalid: Missing, malformed, of other shapes, or (if it names a seal) of another file.
    """
    try:
        arrays = read_npz(path, ("images", "reference", "expected"), optional=("seal",))
    except FileInvalid as error:
        hint = "export the model again: every export writes golden images"
        raise FileInvalid(f"{path} is not a golden record: {error.message}", hint=hint) from error
    images, reference, expected = (arrays[name] for name in ("images", "reference", "expected"))
    seal, spec = str(arrays.get("seal", artifact.seal)), artifact.input
    fits = _is(expected, 2, "fiu") and images.shape == (len(expected), *spec.side, 3)
    fits = fits and expected.size > 0 and images.dtype == np.uint8
    if seal != artifact.seal or not fits or reference.shape != expected.shape:
        raise FileInvalid(
            f"{path} does not belong to this artifact: seal {seal[:12]}, images {images.shape}",
            hint="export the model again",
        )
    return int(expected.shape[1])


def _is(array: NDArray[Any], rank: int, kinds: str) -> bool:
    return array.ndim == rank and array.dtype.kind in kinds

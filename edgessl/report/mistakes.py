"""The most confident wrong answers with their pictures, embedded in the page."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgessl.report.read import Run

SIDES = (128, 96, 64)  # pixels of an embedded picture, the largest that the room allows
ROOM = 1_000_000  # bytes of pictures in one report, all widths and runs together
MOST = 24
HASH = re.compile("[0-9a-f]{64}")  # shown by its head, as elsewhere
LARGEST = 64_000_000  # bytes that are unpacked from one file


@dataclass(frozen=True, slots=True)
class Mistake:
    """One picture as a data URI with the right and the given answer; the score in [0, 1]."""

    picture: str
    side: int
    true: str
    said: str
    score: float
    item: str


@dataclass(frozen=True, slots=True)
class Mistakes:
    """The mistakes of the net of one width; ``more`` were left out for want of room."""

    width: str
    shown: list[Mistake]
    more: int


def mistakes(run: Run, room: int = ROOM) -> list[Mistakes]:
    """Read the mistakes of each extracted net; pictures of all together stay within ``room``."""
    places = [(w, run.folder / "extract" / w / "mistakes.npz") for w in run.widths]
    places = [(w, path) for w, path in places if path.is_file()]
    found = []
    for width, path in places:
        try:
            arrays = _arrays(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
            run.notes.about(path, error)
            continue
        found.append(_mistakes(width, arrays, run.class_names, room // len(places)))
    return [m for m in found if m.shown]


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST // 1_000_000} MB")
    wanted = ("images", "label", "predicted", "score", "sha256", "item")
    with np.load(path, allow_pickle=False) as packed:
        arrays = {name: packed[name] for name in wanted if name in packed.files}
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images of shape {images.shape} and type {images.dtype}")
    if min(images.shape[1:3]) < 1:
        raise ValueError(f"images of shape {images.shape}")
    if any(array.shape != images.shape[:1] for name, array in arrays.items() if name != "images"):
        raise ValueError("its arrays differ in length")
    for name, kinds in (("label", "iu"), ("predicted", "iu"), ("score", "f")):
        if arrays[name].dtype.kind not in kinds:
            raise ValueError(f"{name} of type {arrays[name].dtype}")
    return arrays


def _mistakes(
    width: str, arrays: dict[str, NDArray[Any]], labels: Sequence[str], room: int
) -> Mistakes:
    total = len(arrays["images"])
    images = arrays["images"][:MOST]
    for side in SIDES:
        pictures = [_png(image, side) for image in images]
        if sum(map(len, pictures)) <= room:
            break
    else:
        side = SIDES[-1]
        pictures = [_png(image, side) for image in images]
    shown: list[Mistake] = []
    for index, picture in enumerate(pictures):
        room -= len(picture)
        if room < 0:
            break
        true, said = (_class(int(arrays[k][index]), labels) for k in ("label", "predicted"))
        names = (str(arrays[k][index]) for k in ("item", "sha256") if k in arrays)
        item = next((n[:12] if HASH.fullmatch(n) else n for n in names if n), "")
        score = float(arrays["score"][index])
        drawn = min(side, max(images.shape[1:3]))
        shown.append(Mistake(picture, drawn, true, said, score, item))
    return Mistakes(width, shown, total - len(shown))


def _png(image: NDArray[np.uint8], side: int) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image), "RGB")
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _class(index: int, labels: Sequence[str]) -> str:
    return labels[index] if 0 <= index < len(labels) else str(index)

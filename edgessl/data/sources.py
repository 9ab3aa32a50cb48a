"""Sources of images: a dataset by name, a folder, a list, an IDX file, or a cache."""

from __future__ import annotations

from pathlib import Path

from edgessl.core.errors import DataInvalid, nearest
from edgessl.data import SOURCES, splits_of
from edgessl.data.cache import is_cache, open_cache
from edgessl.data.folders import SUFFIXES, open_folder
from edgessl.data.idx import is_idx_name, open_idx
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped
from edgessl.data.lists import SUFFIXES as LIST_SUFFIXES
from edgessl.data.lists import open_list

__all__ = ["SUFFIXES", "ImageSet", "ImageUnreadable", "Skipped", "open_source"]


def open_source(spec: str) -> ImageSet:
    """Open what the user named, without decoding images.

    Args:
        spec: A name of :data:`edgessl.data.SOURCES`, with ``:split`` where the dataset has
            splits (write ``./name`` for a folder of that name), a folder, a ``.txt`` or
            ``.csv`` list, an IDX file of images, or a cache that ``edgessl data prepare``
            wrote.

    Raises:
        DataInvalid: There is no such thing, it holds no image, or it has no such split.
        MissingExtra: The dataset needs a package that is not installed.
    """
    base, colon, split = spec.rpartition(":")
    if spec in SOURCES.entries:
        return SOURCES.load(spec)(*splits_of(spec)[:1])
    if colon and base in SOURCES.entries and split in splits_of(base):
        return SOURCES.load(base)(split)
    path = Path(spec).expanduser()
    if spec.strip() and _exists(path):
        return _open_path(path, spec)
    if colon and base in SOURCES.entries:
        known = splits_of(base)
        raise DataInvalid(
            f"{base} has no split '{split}'",
            hint=nearest(split, known)
            if known
            else f"give {base}: it is split by class and seed; or give a folder per split",
        )
    if colon and base and _exists(Path(base).expanduser()):
        raise DataInvalid(
            f"{base} has no split '{split}'",
            hint=f"give {base}: it is split by class and seed; or give a folder per split",
        )
    raise DataInvalid(
        f"no such folder or dataset: '{spec}'",
        hint=f"{nearest(spec, SOURCES)}; or give a folder of images, a .txt or .csv list, or an "
        "IDX file",
    )


def _open_path(path: Path, spec: str) -> ImageSet:
    if path.is_dir():
        if is_cache(path):
            return open_cache(path, spec)
        return open_folder(path, spec)
    if is_idx_name(path):
        return open_idx(path, spec)
    if path.suffix.lower() in LIST_SUFFIXES:
        return open_list(path, spec)
    raise DataInvalid(
        f"{spec} is a file, and neither a list (.txt, .csv) nor an IDX file of images "
        "(*idx3-ubyte, also .gz)",
        hint="give the folder that holds the images",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or a folder that may not be entered
        return False

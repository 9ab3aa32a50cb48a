"""Sources of images: a dataset by name, a folder, or an IDX file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid, nearest
from edgessl.data import SOURCES
from edgessl.data.decode import read_image
from edgessl.data.idx import is_idx_name, open_idx
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped

__all__ = ["SUFFIXES", "ImageSet", "ImageUnreadable", "Skipped", "open_source"]

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)


def open_source(spec: str) -> ImageSet:
    """Open what the user named, without decoding images.

    Args:
        spec: A name of :data:`edgessl.data.SOURCES` (write ``./name`` for a folder of that
            name), a folder, or an IDX file of images. A folder is searched recursively; when
            its images lie in sub-folders, those of the first level are the classes. Hidden
            files and folders are passed over. ``source:split`` is reserved.

    Raises:
        DataInvalid: There is no such thing, it holds no image, or it has no such split.
        MissingExtra: The dataset needs a package that is not installed.
    """
    if spec in SOURCES.entries:
        return SOURCES.load(spec)()
    path = Path(spec).expanduser()
    if spec.strip() and _exists(path):
        if path.is_dir():
            return _open_folder(path, spec)
        if is_idx_name(path):
            return open_idx(path, spec)
        raise DataInvalid(
            f"{spec} is a file, and not an IDX file of images (*idx3-ubyte, also .gz)",
            hint="give the folder that holds the images",
        )
    base, colon, split = spec.rpartition(":")
    if colon and (base in SOURCES.entries or (base and _exists(Path(base).expanduser()))):
        raise DataInvalid(
            f"{base} has no split '{split}'",
            hint=f"give {base}: it is split by class and seed; or give a folder per split",
        )
    raise DataInvalid(
        f"no such folder or dataset: '{spec}'",
        hint=f"{nearest(spec, SOURCES)}; or give a folder of images or an IDX file",
    )


def _open_folder(root: Path, name: str) -> ImageSet:
    found: list[Path] = []
    skipped: list[Skipped] = []
    others: Counter[str] = Counter()
    for path, problem in _walk(root, (os.path.realpath(root),)):
        if problem:
            skipped.append(Skipped(_shown(path, root), problem))
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
        else:
            others["IDX" if is_idx_name(path) else path.suffix.lower() or "no suffix"] += 1
    if not found:
        raise _nothing_found(name, others, skipped)

    def load(position: int) -> NDArray[np.uint8]:
        try:
            return read_image(found[position])
        except ImageUnreadable as error:
            raise ImageUnreadable(items[position], error.reason) from error

    items = tuple(_shown(path, root) for path in found)
    classes = [path.relative_to(root).parts[0] for path in found if path.parent != root]
    labels, class_names, because = None, (), "its images do not lie in class folders"
    if len(classes) == len(found):
        # raw names sort and map; the shown ones only differ where a name is not UTF-8
        raw_names = sorted(set(classes))
        number = {c: i for i, c in enumerate(raw_names)}
        labels = np.array([number[c] for c in classes], np.int64)
        class_names = tuple(_printable(c) for c in raw_names)
    elif classes:
        loose = len(found) - len(classes)
        because = f"{loose} of {len(found)} images lie beside the class folders, not in one"
    return ImageSet(name, items, load, labels, class_names, tuple(skipped), because)


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Yield the files below ``folder`` in sorted order, each with its problem or ''.

    Links are followed, except into a folder that is being walked already (``above``: real
    paths).
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, error.strerror or str(error)
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            real = os.path.realpath(path)
            if real not in above:
                yield from _walk(path, (*above, real))
            continue
        image = path.suffix.lower() in SUFFIXES
        if entry.is_file():
            yield path, "the file is empty" if image and entry.stat().st_size == 0 else ""
        elif image and entry.is_symlink():
            yield path, "the link leads nowhere"


def _nothing_found(name: str, others: Counter[str], skipped: list[Skipped]) -> DataInvalid:
    seen = [f"{n} x {suffix}" for suffix, n in others.most_common(6)]
    seen += [f"{s.item!r}: {s.reason}" for s in skipped[:3]]
    total = others.total() + len(skipped)
    return DataInvalid(
        f"no image in {name}: {total} file(s) seen" + (f" ({', '.join(seen)})" if seen else ""),
        hint="give the IDX file of images itself"
        if others["IDX"]
        else f"images are recognised by suffix: {', '.join(sorted(SUFFIXES))}",
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (
        OSError,
        ValueError,
    ):  # a name that is too long, or a folder that may not be entered
        return False


def _shown(path: Path, root: Path) -> str:
    return _printable(path.relative_to(root).as_posix())


def _printable(name: str) -> str:
    """Escape what is not UTF-8 in a file name, so that it can stand in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")

"""A folder of images, with sub-folders as classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.data.decode import read_image, read_mode
from edgessl.data.idx import is_idx_name
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)


def open_folder(root: Path, name: str) -> ImageSet:
    """List a folder recursively; when images lie in sub-folders, the first level is the class.

    Hidden files and folders are passed over, empty files and broken links are counted.

    Raises:
        DataInvalid: It holds no image.
    """
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
    items = tuple(_shown(path, root) for path in found)
    load, mode = decoders(found, items)
    classes = [path.relative_to(root).parts[0] for path in found if path.parent != root]
    labels, class_names, because = None, (), "its images do not lie in class folders"
    if len(classes) == len(found):
        labels, class_names = numbered(classes)
    elif classes:
        loose = len(found) - len(classes)
        because = f"{loose} of {len(found)} images lie beside the class folders, not in one"
    return ImageSet(
        name, items, load, labels, class_names, tuple(skipped), because, mode=mode,
        paths=tuple(found),
    )  # fmt: skip


def decoders(
    paths: Sequence[Path], items: Sequence[str]
) -> tuple[Callable[[int], NDArray[np.uint8]], Callable[[int], str]]:
    """Return ``load`` and ``mode`` of an :class:`ImageSet` whose images are files."""

    def load(position: int) -> NDArray[np.uint8]:
        try:
            return read_image(paths[position])
        except ImageUnreadable as error:
            raise ImageUnreadable(items[position], error.reason) from error

    return load, lambda position: read_mode(paths[position])


def numbered(classes: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the number of every image's class, and the names of the classes, sorted."""
    # raw names sort and map; the shown ones only differ where a name is not UTF-8
    raw_names = sorted(set(classes))
    number = {c: i for i, c in enumerate(raw_names)}
    labels = np.array([number[c] for c in classes], np.int64)
    return labels, tuple(printable(c) for c in raw_names)


def printable(name: str) -> str:
    """Escape what is not UTF-8 in a file name, so that it can stand in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def file_problem(path: Path) -> str:
    """Return why a path cannot be an image before looking inside, '' if nothing speaks against."""
    try:
        if path.is_file():
            return "the file is empty" if path.stat().st_size == 0 else ""
        if path.is_symlink():
            return "the link leads nowhere"
        return "it is a folder" if path.is_dir() else "there is no such file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


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
            yield path, file_problem(path) if image else ""
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


def _shown(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())

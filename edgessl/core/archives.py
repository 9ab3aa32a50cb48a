"""NumPy archives (``.npz``) from elsewhere: nothing is unpacked before it was held against limits.

An ``.npz`` is a zip file of ``.npy`` files. A hostile one may declare terabytes, unpack to a
thousand times its size, leave its folder by its names, or hold pickled objects, which run code.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import FileInvalid

MAX_BYTES = 16 << 30  # of the wanted arrays together; stored, as we write them, the file's own size
MAX_ENTRIES = 64
# deflate packs blank pictures 1000 times smaller: below this size nobody is harmed by that
SMALL, MAX_RATIO = 8 << 20, 100
HEADER_BYTES = 4096  # of one .npy; ours take 128
# bool, integers, real numbers, text of at least one letter: no objects, records or dates
PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[US][1-9][0-9]{0,5})")
MAX_RANK = 8
MAX_CODE_POINT, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)
HINT = "make the file again with the edgessl command that writes it"


def read_npz(
    path: Path, names: Sequence[str], *, optional: Collection[str] = (), max_bytes: int = MAX_BYTES
) -> dict[str, NDArray[Any]]:
    """Read named arrays of an archive, once its structure is known to be harmless.

    Args:
        path: The ``.npz``.
        names: Arrays that must be there, without ``.npy``.
        optional: Arrays that are read if they are there. All others are left packed.
        max_bytes: Limit of the read arrays together, in bytes as they are declared.

    Returns:
        The arrays that are there, of plain types; writable.

    Raises:
        FileInvalid: Not a zip file, a name that leads elsewhere, encrypted, too many entries,
            too large or packed too tightly, an array that is missing, torn, of objects, or whose
            header promises other than what is there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileInvalid(f"no such file: {path}", hint=HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(path, archive)
            if missing := [name for name in names if name not in entries]:
                raise FileInvalid(f"{path} has no {', '.join(map(repr, missing))}", hint=HINT)
            wanted = [name for name in dict.fromkeys([*names, *optional]) if name in entries]
            _check_sizes(path, [entries[name] for name in wanted], max_bytes)
            return {name: _array(path, archive, entries[name]) for name in wanted}
    # zipfile raises NotImplementedError and RuntimeError for features that it lacks
    except (
        OSError, EOFError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
        NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        raise FileInvalid(f"{path} is not a readable .npz file: {error}", hint=HINT) from error


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by array name, after a look at the names and kinds of all."""
    listed = archive.infolist()
    if len(listed) > MAX_ENTRIES:
        raise FileInvalid(f"{path} has {len(listed)} entries, at most {MAX_ENTRIES} are read")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        # orig_filename: zipfile itself cuts names at a NUL
        name = entry.orig_filename
        stem = name.removesuffix(".npy")
        if not (name.isprintable() and stem and stem != name) or set(name) & set("/\\:"):
            raise FileInvalid(
                f"{path} has an entry named {name[:80]!r}: names must be plain, such as images.npy",
                hint="do not unpack this file with other tools; it may write outside its folder",
            )
        if stem in entries:
            raise FileInvalid(f"{path} has two entries named {name!r}", hint=HINT)
        if entry.flag_bits & 0x1:
            raise FileInvalid(f"{path}: {name} is encrypted", hint=HINT)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileInvalid(
                f"{path}: {name} is packed by method {entry.compress_type}; stored and deflated "
                "entries are read",
                hint=HINT,
            )
        entries[stem] = entry
    return entries


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise FileInvalid(
            f"{path} unpacks to {total} bytes, at most {max_bytes} are read", hint=HINT
        )
    room = path.stat().st_size
    for entry in entries:
        packed = entry.compress_size
        if packed > room:
            raise FileInvalid(f"{path} is cut: {entry.filename} has {packed} bytes, {room} here")
        if entry.file_size > SMALL and entry.file_size > MAX_RATIO * packed:
            raise FileInvalid(
                f"{path}: {entry.filename} unpacks from {packed} to {entry.file_size} bytes, more "
                f"than {MAX_RATIO} times; this may be a zip bomb",
                hint="store images without compression: numpy.savez",
            )


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one entry: never more bytes than it declares."""
    what = f"{path}: {entry.filename}"
    with archive.open(entry) as stream:
        head = stream.read(min(HEADER_BYTES, entry.file_size))
        shape, fortran, dtype, start = _header(what, head)
        count, size = math.prod(shape), dtype.itemsize
        if start + count * size != entry.file_size or count > entry.file_size:
            raise FileInvalid(
                f"{what} promises {dtype} {shape}, {count * size} bytes, and holds "
                f"{entry.file_size - start}",
                hint=HINT,
            )
        data = np.empty(entry.file_size - start, np.uint8)
        first = len(head) - start
        data[:first] = np.frombuffer(head, np.uint8, offset=start)
        seen = first
        while seen < len(data) and (chunk := stream.read(min(1 << 24, len(data) - seen))):
            data[seen : seen + len(chunk)] = np.frombuffer(chunk, np.uint8)
            seen += len(chunk)
        if seen < len(data) or stream.read(1):
            raise FileInvalid(f"{what} does not hold the {entry.file_size} bytes it declares")
    array = data.view(dtype).reshape(shape, order="F" if fortran else "C")
    return _text(what, array) if dtype.kind == "U" else array


def _header(what: str, head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, Fortran order, dtype and where the data begins.

    numpy's own reader is not asked: to a malformed header it answers with a dozen exceptions.
    """
    size = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(head[:8])
    if size is None:
        raise FileInvalid(f"{what} is not an .npy array of version 1 or 2", hint=HINT)
    start = 8 + size + int.from_bytes(head[8 : 8 + size], "little")
    try:
        if start > len(head):
            raise ValueError(f"a header of {start} bytes")
        fields = ast.literal_eval(head[8 + size : start].decode("ascii").strip())
        shape, fortran, descr = fields["shape"], fields["fortran_order"], fields["descr"]
    # what the parser of Python literals raises, and what is no such dictionary
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise FileInvalid(f"{what} has a header that cannot be read: {error}", hint=HINT) from error
    if not (isinstance(descr, str) and PLAIN.fullmatch(descr)) or not isinstance(fortran, bool):
        raise FileInvalid(
            f"{what} is of type {str(descr)[:80]}: plain numbers and text are read, never objects",
            hint=HINT,
        )
    sides = isinstance(shape, tuple) and len(shape) <= MAX_RANK
    if not sides or not all(type(side) is int and side >= 0 for side in shape):
        raise FileInvalid(f"{what} promises the shape {str(shape)[:80]}", hint=HINT)
    try:
        return shape, fortran, np.dtype(descr), start
    except TypeError as error:  # f3, for example
        raise FileInvalid(f"{what} is of type {descr}, which there is not", hint=HINT) from error


def _text(what: str, array: NDArray[Any]) -> NDArray[Any]:
    """Refuse code points that Python cannot hold or print."""
    points = array.astype(array.dtype.newbyteorder("="), copy=False)
    flat = np.frombuffer(points.tobytes(), np.uint32)
    low, high = SURROGATES
    if ((flat > MAX_CODE_POINT) | ((flat >= low) & (flat <= high))).any():
        raise FileInvalid(f"{what} holds text that is not Unicode", hint=HINT)
    return points

"""Files from outside: looked over in Python before a native library reads a byte of them.

Runtimes are large parsers in C++ that trust what they read. A folder that somebody else sent may
name other files, promise data that is not there, or hold shapes that ask for terabytes. What is
checked here is structure: where the bytes lie, and that every size and reference stays inside.
Whether a well-formed model computes something sensible is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from edgessl.core.errors import FileInvalid
from edgessl.exporters import check_onnx, check_openvino, check_tflite
from edgessl.exporters.check_common import HINT

MAX_BYTES = 2 << 30  # what protobuf and flatbuffers can address
MAX_XML_BYTES = 64 << 20

# what a runtime opens by itself once it is given the first one
OPENED = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "tflite": ("model.tflite",),
    "safetensors": ("model.safetensors",),
}


def check_files(format: str, folder: Path, names: Iterable[str]) -> None:
    """Refuse model files that are not what they say, before a runtime opens them.

    Nothing but the standard library reads the files here. Memory stays within a few times the
    largest file, and the work within a bound that does not depend on what the file claims.

    Args:
        format: Of the target that will open them; what the artifact says of itself is a claim.
        folder: Where the files are.
        names: As in ``Artifact.files``: those that were sealed, the one to open first.

    Raises:
        FileInvalid: A file is missing or not listed, no plain file inside ``folder``, empty, too
            large, cut, or holds a structure that a runtime must not see; says which.
    """
    if format not in OPENED:
        raise FileInvalid(
            f"{folder} holds files of the format {format!r}; known: {', '.join(OPENED)}"
        )
    names, opened = list(names), OPENED[format]
    # a runtime finds its files by fixed names, an agent by the first that the artifact lists
    if names[:1] != list(opened[:1]) or not set(opened) <= set(names):
        raise FileInvalid(
            f"{folder}: the artifact lists {', '.join(map(repr, names))[:200]}; a runtime opens "
            f"{', '.join(opened)}",
            hint=HINT,
        )
    sizes = {name: check_plain(folder, name) for name in names}
    main = opened[0]
    if format == "onnx":
        check_onnx.check(folder / main, read_plain(folder, main))
    elif format == "tflite":
        check_tflite.check(folder / main, read_plain(folder, main))
    elif format == "openvino":
        text = read_plain(folder, main, MAX_XML_BYTES)
        check_openvino.check(folder / main, text, sizes[opened[1]])


def check_plain(folder: Path, name: str, max_bytes: int = MAX_BYTES) -> int:
    """Return the size of a file of plain name that lies inside a folder.

    Raises:
        FileInvalid: A name that leads elsewhere, no regular file, a link out of the folder, no
            bytes or too many.
    """
    path = folder / name
    if not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\:"):
        raise FileInvalid(f"{folder} names a file outside its folder: {name[:80]!r}", hint=HINT)
    try:
        inside = path.resolve(strict=True).parent == folder.resolve(strict=True)
        seen = path.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise FileInvalid(f"{path} cannot be read: {error}", hint=HINT) from error
    if not inside:
        raise FileInvalid(f"{path} is a link that leads out of its folder", hint=HINT)
    if not stat.S_ISREG(seen.st_mode):
        raise FileInvalid(f"{path} is not a regular file", hint=HINT)
    if not 0 < seen.st_size <= max_bytes:
        raise FileInvalid(
            f"{path} has {seen.st_size} bytes; 1 to {max_bytes} are accepted", hint=HINT
        )
    return seen.st_size


def read_plain(folder: Path, name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file that :func:`check_plain` accepts; a pipe put in its place cannot block.

    Raises:
        FileInvalid: See :func:`check_plain`.
    """
    size = check_plain(folder, name, max_bytes)
    path = folder / name
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            data = stream.read(size + 1)
    except OSError as error:
        raise FileInvalid(f"{path} cannot be read: {error}", hint=HINT) from error
    if len(data) != size:
        raise FileInvalid(f"{path} changed while it was read")
    return data

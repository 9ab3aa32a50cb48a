"""Files that appear whole or not at all, their hashes, and JSON documents with a kind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgessl import __version__
from edgessl.core.errors import DiskFull, EdgeSSLError, FileInvalid

SCHEMA = 1
PARTIAL = ".partial"  # ends the name of a file that is not whole yet


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        DiskFull: No space is left.
        EdgeSSLError: The folder cannot be written for another reason.
    """
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent
        )
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise explain_os_error(error, path) from error


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written; nobody may be writing there now."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole (see :func:`write_bytes`)."""
    write_bytes(path, text.encode())


def write_json(path: Path, kind: str, body: dict[str, Any]) -> None:
    """Write a JSON document with ``schema``, ``kind`` and ``edgessl`` in front, whole."""
    head = {"schema": SCHEMA, "kind": kind, "edgessl": __version__}
    write_text(path, json.dumps(head | body, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a document that :func:`write_json` wrote.

    Raises:
        FileInvalid: Missing, not JSON, of another kind, or from a newer schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileInvalid(f"no such file: {path}") from error
    except (OSError, ValueError, RecursionError) as error:  # the last: nested without end
        raise FileInvalid(f"{path} is not readable JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        seen = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise FileInvalid(f"{path} holds '{seen}', expected '{kind}'")
    if not isinstance(document.get("schema"), int) or document["schema"] > SCHEMA:
        raise FileInvalid(
            f"{path} has schema {document.get('schema')!r}, this edgessl reads up to {SCHEMA}",
            hint="upgrade edgessl: pip install -U edgessl",
        )
    return document


def append_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append one JSON line per row, on a line of its own after a torn one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            if stream.tell() and not _ends_a_line(path):
                stream.write(b"\n")
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise explain_os_error(error, path) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, dropping those that a crash tore; an absent file is an empty list."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def explain_os_error(error: OSError, path: Path) -> EdgeSSLError:
    """Turn an operating-system error into one that names the path and the cure."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"no space left while writing {path}",
            hint="free space or choose another --out; what was complete is kept",
        )
    return EdgeSSLError(
        f"cannot write {path}: {error.strerror or error}", hint="choose another --out"
    )


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network and FUSE file systems cannot sync a folder
        pass
    finally:
        os.close(handle)

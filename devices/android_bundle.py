"""A Python for phones (experimental): CPython, its C library and its loader in one folder.

A stock Android has no Python, and its own C library runs none of the wheels on PyPI. What runs
them is a loader of glibc that is started by name: it needs no root and nothing outside the folder.
So the same agent and the same aarch64 wheels run as on any other board.

The packages (see ``android_pieces``) are fetched to this machine, checked by hash, and only the
files named here are taken out of them.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from edgessl.core import files
from edgessl.core.errors import DiskFull, EdgeSSLError, FileInvalid
from edgessl.devices.android_pieces import PIECES, PYTHON, Piece
from edgessl.devices.base import CommandFailed, Shell

FORM = 1  # of the folder on the phone; another one is another bundle
TIME_S, UNPACK_S = 60.0, 300.0
LOADER = "ld-linux-aarch64.so.1"
LIBRARIES = (
    LOADER, "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
    "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1", "libexpat.so.1", "libffi.so.8",
)  # fmt: skip
LEFT_OUT = ("test", "idlelib", "lib2to3", "ensurepip", "tkinter", "turtledemo", "pydoc_data")
# "--argv0": so that sys.executable is this file, and what Python starts finds its loader, too
LAUNCHER = f"""#!/system/bin/sh
here=${{0%/*}}
export PYTHONHOME="$here"
exec "$here/lib/{LOADER}" --library-path "$here/lib" --argv0 "$0" \\
    "$here/bin/python{PYTHON}" "$@"
"""
# an older bundle is of no use beside a new one; runtimes made for another Python are noticed later
OTHERS = 'cd "$1" && for old in python-*; do [ "$old" = "$2" ] || rm -rf "$old"; done'
Say = Callable[[str], None]


def cache_folder() -> Path:
    """Return where packages are kept on this machine between setups."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "edgessl" / "android"


def remote_python(home: str, pieces: Sequence[Piece] = PIECES) -> str:
    """Return where the interpreter of this bundle is on a phone, once it was brought there."""
    sums = "".join(piece.sha256 for piece in pieces)
    name = hashlib.sha256(f"{FORM} {LAUNCHER} {LIBRARIES} {LEFT_OUT} {sums}".encode()).hexdigest()
    return f"{home}/python-{name[:12]}/python"


def bring(
    shell: Shell,
    say: Say,
    pieces: Sequence[Piece] = PIECES,
    cache: Path | None = None,
) -> str:
    """Bring the bundle to a phone unless it is there; return its interpreter.

    Args:
        shell: Of the phone.
        say: Told what is being done.
        pieces: What it is made of.
        cache: Where packages are kept on this machine.

    Raises:
        BoardUnreachable: No connection, or it was lost; nothing half unpacked is ever used.
        DiskFull: The phone has no room for it.
        EdgeSSLError: A package could not be had, the phone has another processor, or the
            interpreter does not run there.
    """
    python = remote_python(shell.home, pieces)
    folder = python.rpartition("/")[0]
    if _runs(shell, python) == "":
        return python
    machine = shell.run(["uname", "-m"], timeout_s=TIME_S).strip()
    if machine != "aarch64":
        raise EdgeSSLError(
            f"{shell.where} has a {machine[:20]!r} processor; the Python for phones is made for "
            "64-bit ARM",
            hint="measure in the phone's browser instead: --device browser",
        )
    packages = fetch(pieces, cache or cache_folder(), say)
    with tempfile.TemporaryDirectory(prefix="edgessl-") as scratch:
        archive = Path(scratch) / "python.tar"
        size = build(packages, archive)
        say(f"Python {PYTHON}: pushing {size >> 20} MB")
        remote = f"{folder}.tar"
        shell.put(archive, remote)
    _unpack(shell, remote, folder)
    if reason := _runs(shell, python):
        raise EdgeSSLError(
            f"the Python for phones does not run on {shell.where}: {reason}",
            hint="this route is experimental; measure in the phone's browser (--device browser), "
            "or install Termux with Python and sshd and add it as --kind ssh",
        )
    name = folder.rpartition("/")[2]
    shell.run(["sh", "-c", OTHERS, "sh", shell.home, name], timeout_s=UNPACK_S)
    return python


def _unpack(shell: Shell, archive: str, folder: str) -> None:
    """Unpack beside the place, then rename; whatever happens, nothing half unpacked stays.

    A phone that is lost meanwhile is cleaned by the keeper of the next connection.
    """
    part = f"{folder}.part"
    try:
        shell.remove(part)
        shell.run(["mkdir", "-p", part], timeout_s=TIME_S)
        shell.run(["tar", "-xf", archive, "-C", part], timeout_s=UNPACK_S)
        shell.remove(folder)
        shell.run(["mv", part, folder], timeout_s=TIME_S)
    except CommandFailed as error:
        if "No space left" not in error.message:
            raise
        raise DiskFull(
            f"no space left on {shell.where} to unpack {folder.rpartition('/')[2]}",
            hint="free space on the phone; nothing half unpacked was left",
        ) from error
    finally:
        with suppress(EdgeSSLError):
            shell.remove(part)
            shell.remove(archive)


def _runs(shell: Shell, python: str) -> str:
    """Return why an interpreter does not run; empty when it does."""
    try:
        said = shell.run([python, "-c", "import zlib, ctypes; print('it runs')"], timeout_s=TIME_S)
    except CommandFailed as error:
        return error.message
    return "" if "it runs" in said else f"it said {said[:80]!r}"


def fetch(pieces: Sequence[Piece], cache: Path, say: Say) -> list[Path]:
    """Return the packages on this machine, fetched where they are not there already.

    Raises:
        EdgeSSLError: One could not be had whole; the hint names the file to bring by hand.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    for piece in pieces:
        path = cache / f"{piece.name}-{piece.sha256[:16]}.deb"
        if not path.is_file() or files.sha256_file(path) != piece.sha256:
            say(f"fetching {piece.name} ({piece.bytes >> 10} KiB)")
            files.write_bytes(path, _download(piece, path))
        found.append(path)
    return found


def _download(piece: Piece, path: Path) -> bytes:
    reasons = []
    for url in piece.urls:
        try:
            with urllib.request.urlopen(url, timeout=TIME_S) as answer:
                data = answer.read(piece.bytes + 1)
        except (OSError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() == piece.sha256:
            return data
        reasons.append(f"{url}: {len(data)} bytes with another hash")
    raise EdgeSSLError(
        f"{piece.name} could not be fetched: {'; '.join(reasons)}",
        hint=f"connect this machine to the network, or lay the file there as {path}",
    )


def build(packages: Sequence[Path], archive: Path) -> int:
    """Write the folder of the bundle as a tar archive; return its size in bytes.

    Raises:
        FileInvalid: A package is damaged, or lacks what is needed.
    """
    members: dict[str, bytes] = {"python": LAUNCHER.encode()}
    for package in packages:
        members.update(_wanted(package))
    needed = {f"lib/{name}" for name in LIBRARIES} | {f"bin/python{PYTHON}"}
    if missing := sorted(needed - set(members)):
        raise FileInvalid(f"the packages lack {', '.join(missing)}")
    with tarfile.open(archive, "w") as out:
        for name, content in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = (
                0o755 if name == "python" or name.startswith("bin/") or ".so" in name else 0o644
            )
            out.addfile(entry, io.BytesIO(content))
    return archive.stat().st_size


def _wanted(package: Path) -> dict[str, bytes]:
    """Return the files of a package that belong into the bundle, by their name there."""
    with tarfile.open(fileobj=io.BytesIO(_data_of(package))) as members:
        found = {}
        for entry in members:
            name = _place(entry.name)
            if name is None or not (
                entry.isreg() or (entry.issym() and name.startswith("lib/lib"))
            ):
                continue
            stream = members.extractfile(entry)  # of a link: the file beside it
            if stream is not None:
                found[name] = stream.read()
        return found


def _place(name: str) -> str | None:
    """Return where a file of a package goes; None for one that is not wanted."""
    if name == f"./usr/bin/python{PYTHON}":
        return f"bin/python{PYTHON}"
    library = re.fullmatch(r"\./(?:usr/)?lib/aarch64-linux-gnu/([\w.+-]+)", name)
    if library:
        return f"lib/{library[1]}" if library[1] in LIBRARIES else None
    module = re.fullmatch(
        rf"\./usr/(lib/python{re.escape(PYTHON)}/([\w.+-]+)(?:/[\w.+/ -]+)?)", name
    )
    if module and module[2] not in LEFT_OUT and ".." not in name.split("/"):
        return module[1]
    return None


def _data_of(package: Path) -> bytes:
    """Return the unpacked ``data.tar`` of a Debian package: an ``ar`` archive of three members."""
    for name, content in _ar(package.read_bytes()):
        if name == "data.tar.xz":
            try:
                return lzma.decompress(content)
            except lzma.LZMAError as error:
                raise FileInvalid(f"{package.name} is damaged: {error}") from error
    raise FileInvalid(f"{package.name} is no Debian package with a data.tar.xz")


def _ar(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8 if data.startswith(b"!<arch>\n") else len(data)
    while at + 60 <= len(data):
        header = data[at : at + 60]
        size = header[48:58].strip()
        if not size.isdigit():
            return
        begin = at + 60
        yield header[:16].decode("latin-1").strip().rstrip("/"), data[begin : begin + int(size)]
        at = begin + int(size) + int(size) % 2

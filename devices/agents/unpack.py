"""Unpacks a runtime on the board, beside the one in use, and swaps the two when it is known to run.

    unpack.py records HOME           what is in HOME/runtimes, one line each
    unpack.py unpack ARCHIVE FOLDER  into a new folder; the archive goes away
    unpack.py swap FOLDER TARGET     into its place, the old one goes away
    unpack.py remove TARGET

Standard library, Python 3.8 syntax. Answers are lines ``edgessl-setup {json}``; an error is one,
too. Runs in the work folder, which whatever ends the connection removes: so nothing half done
remains.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import sys
import tarfile
from typing import Any

RECORD = "edgessl.json"
LIMIT = 1 << 20


def say(fields: dict[str, Any]) -> None:
    """Print one answer."""
    print("edgessl-setup " + json.dumps(fields), flush=True)  # noqa: T201


def records(home: str) -> None:
    """Tell the record of each runtime that is there."""
    for path in sorted(glob.glob(os.path.join(home, "runtimes", "*", RECORD))):
        try:
            with open(path, encoding="utf-8") as stream:
                record = json.loads(stream.read(LIMIT))
        except (OSError, ValueError, RecursionError):
            record = {}
        say({"folder": os.path.dirname(path), "record": record})


def unpack(archive: str, folder: str) -> None:
    """Unpack regular files and folders; whatever else an archive can hold is refused."""
    os.mkdir(folder, 0o700)
    root = os.path.realpath(folder)
    count = size = 0
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            path = os.path.realpath(os.path.join(root, member.name))
            if not path.startswith(root + os.sep) or not (member.isreg() or member.isdir()):
                raise ValueError("the archive holds " + repr(member.name))
            if member.isdir():
                os.makedirs(path, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            source = members.extractfile(member)
            assert source is not None
            with open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 18)
            count, size = count + 1, size + member.size
    os.unlink(archive)
    say({"files": count, "bytes": size})


def swap(folder: str, target: str) -> None:
    """Put a folder into its place; between two renames there is none, never half of one."""
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    old = folder + ".old"
    if os.path.lexists(target):
        os.rename(target, old)
    os.rename(folder, target)
    shutil.rmtree(old, ignore_errors=True)
    say({"folder": target})


def remove(target: str) -> None:
    """Remove a runtime; absent is fine. The record goes first: what has none is not used."""
    there = os.path.isdir(target)
    if there:
        if os.path.exists(os.path.join(target, RECORD)):
            os.unlink(os.path.join(target, RECORD))
        shutil.rmtree(target)
    say({"removed": there})


def main(arguments: list[str]) -> int:
    """Run one command."""
    commands = {"records": records, "unpack": unpack, "swap": swap, "remove": remove}
    try:
        commands[arguments[0]](*arguments[1:])
    except (OSError, ValueError, tarfile.TarError, EOFError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        say({"error": "DiskFull" if full else type(error).__name__, "text": str(error)[:500]})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

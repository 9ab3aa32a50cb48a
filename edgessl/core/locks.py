"""One process at a time works in a run folder.

The lock is the kernel's (flock) on a hidden file, so it ends with the process, however that
ends. The file stays; what it says only helps the message.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from weakref import WeakValueDictionary

from edgessl.core.errors import UsageProblem
from edgessl.core.files import explain_os_error

FILE = ".lock"
# file systems without locks: better no lock than no work
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class FolderLock:
    """Held until it is closed or forgotten; use :func:`lock_folder`."""

    def __init__(self, folder: Path) -> None:
        self._handle = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise explain_os_error(error, folder) from error
        if sys.platform == "win32" or not self._taken(folder):
            return
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def _taken(self, folder: Path) -> bool:
        """Take the lock; False where the file system has none."""
        import fcntl

        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return False
            who = os.pread(self._handle, 32, 0).decode(errors="replace").strip()
            by = f" (process {who})" if who.isdecimal() else ""
            self.close()
            raise UsageProblem(
                f"another edgessl command{by} is working in {folder}",
                hint="wait until it has ended, or choose another --out",
            ) from None
        return True

    def close(self) -> None:
        """Let others in."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        self.close()


_held: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def lock_folder(folder: Path) -> FolderLock:
    """Lock a folder, made if need be, for as long as the returned object is kept.

    The same process may take it again.

    Raises:
        UsageProblem: Another process holds it.
        EdgeSSLError: The folder cannot be written.
    """
    place = folder.resolve()
    lock = _held.get(place)
    if lock is None:
        lock = _held[place] = FolderLock(folder)
    return lock

"""Programs and files on a board, over any connection that carries commands."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edgessl.core import files
from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices import keeper
from edgessl.devices.base import LARGEST_FETCHED, CommandFailed
from edgessl.devices.channel import Channel
from edgessl.devices.connection import LOST_S, NO_SPACE, Connection, Ended
from edgessl.devices.remote_stream import RemoteStream, signalled

MOVE_S, SLOWEST_LINK = 120.0, 50_000  # a transfer may take this long plus bytes / (bytes a second)
SMALL = 65536  # bytes that are sent without asking first
MOST_OUTPUT = 32 * 2**20  # bytes that `run` takes


class RemoteShell(Connection):
    """What all transports share; a transport opens channels and explains its own failures.

    Args:
        where: How messages call the board.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self._sent: set[str] = set()

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program to its end and return what it printed.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            CommandFailed: Not there (status 127), or it failed.
            EdgeSSLError: It did not end in time or printed too much; its group is killed.
        """
        deadline = time.monotonic() + timeout_s
        command = keeper.leading(keeper.RUN, self.word, self.workdir, *keeper.program(argv))
        channel = self.open(command, subprocess.DEVNULL)
        name, started, over = PurePosixPath(argv[0]).name, b"", False
        try:
            started, rest = self.hear(channel, rb"begin (\S*)", timeout_s)
            output = bytearray(rest)
            while piece := channel.read(deadline - time.monotonic()):
                output += piece
                if len(output) > MOST_OUTPUT:
                    limit = f"more than {MOST_OUTPUT >> 20} MiB"
                    raise EdgeSSLError(f"{name} on {self.where} printed {limit}")
            said, errors = self.how_it_ended(channel, "end", f"while {name} ran")
            over = channel.ended(LOST_S)
        except Ended:
            raise self._no_begin(channel, name) from None
        except TimeoutError:
            late = f"{name} on {self.where} did not end within {timeout_s:g} s"
            raise EdgeSSLError(late) from None
        finally:
            if not over:
                self.stop(started)
            channel.kill()
        if (status := signalled(said)) != 0:
            if status == 127:
                errors = f"{name} is not there: {errors}"
            text = f"{name} on {self.where} ended with status {status}: {errors or 'no word why'}"
            raise CommandFailed(text, status=status)
        return output.decode("utf-8", "replace")

    def _no_begin(self, channel: Channel, name: str) -> EdgeSSLError:
        _, errors = self.how_it_ended(channel, "end", f"before {name} began")
        return EdgeSSLError(f"{self.where} did not start {name}: {errors or 'no word why'}")

    @contextmanager
    def start(self, argv: Sequence[str]) -> Iterator[RemoteStream]:
        """Start a program; on leaving, its standard input closes, then its group is killed.

        Raises:
            BoardUnreachable: No connection.
        """
        command = keeper.leading(keeper.RUN, self.word, self.workdir, *keeper.program(argv))
        channel = self.open(command, subprocess.PIPE)
        stream = RemoteStream(self, channel, self.word, PurePosixPath(argv[0]).name)
        try:
            yield stream
        finally:
            stream.leave()

    def put(self, local: Path, remote: str) -> None:
        """Copy a file, unless one with the same content is there already.

        It gets its name once size and SHA-256 were found right on the board.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            DiskFull: No space is left on the board.
            EdgeSSLError: The board refused it, or it arrived damaged.
        """
        target, size, sha256 = _remote(remote), local.stat().st_size, files.sha256_file(local)
        # a work folder is new: only what was sent before can be there
        known = remote.startswith("/") or target in self._sent
        if size > SMALL and known and self._has(target, sha256):
            return
        arguments = (self.word, self.workdir, target, sha256, str(size))
        doing = f"while {local.name} ({size} bytes) was copied; nothing is left of it there"
        with local.open("rb") as content:
            channel = self.open(keeper.command(keeper.PUT, *arguments), content)
            said, errors = self._transfer(channel, size, doing)
        if NO_SPACE.search(errors) and said != "ok":
            raise self.full(remote, f"{local.name} has {size / 1e6:.1f} MB")
        if said != "ok":
            why = errors or said or "no word why"
            raise EdgeSSLError(f"cannot copy {local.name} to {remote} on {self.where}: {why}")
        self._sent.add(target)

    def _has(self, target: str, sha256: str) -> bool:
        arguments = (self.word, self.workdir, target, sha256)
        channel = self.open(keeper.command(keeper.CHECK, *arguments), subprocess.DEVNULL)
        try:
            self.hear(channel, rb"(have)", MOVE_S)
        except (Ended, TimeoutError):
            return False
        finally:
            channel.kill()
        return True

    def _transfer(self, channel: Channel, size: int, doing: str) -> tuple[str, str]:
        try:
            deadline = time.monotonic() + MOVE_S + size / SLOWEST_LINK
            while channel.read(deadline - time.monotonic()):
                pass
            return self.how_it_ended(channel, "done", doing)
        except TimeoutError:
            raise BoardUnreachable(f"{self.where} is stuck {doing}") from None
        finally:
            channel.kill()

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the board, whole and checked by hash, or not at all.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            DiskFull: No space is left here.
            EdgeSSLError: It is not there, or it arrived damaged.
        """
        command = keeper.command(keeper.GET, self.word, self.workdir, _remote(remote))
        channel = self.open(command, subprocess.DEVNULL)
        part = local.with_name(f"{local.name}.part")
        try:
            size, rest = self.hear(channel, rb"begin +(\d{1,15})", MOVE_S)
            if int(size) > LARGEST_FETCHED:
                raise EdgeSSLError(f"{remote} on {self.where} has {int(size)} bytes: not fetched")
            sums = hashlib.sha256()
            deadline = time.monotonic() + MOVE_S + int(size) / SLOWEST_LINK
            left = int(size)
            with part.open("wb") as content:
                while rest or (rest := channel.read(deadline - time.monotonic())):
                    left -= len(rest)
                    if left < 0:
                        break
                    content.write(rest)
                    sums.update(rest)
                    rest = b""
            if left < 0:
                raise EdgeSSLError(f"{remote} grew on {self.where} while it was copied")
            doing = f"after {int(size) - left} of {int(size)} bytes of {remote}"
            said, errors = self.how_it_ended(channel, "done", doing)
            if left or said != f"ok-{sums.hexdigest()}":
                raise EdgeSSLError(f"{remote} came damaged from {self.where}: {errors or said}")
            part.replace(local)
        except Ended:
            said, errors = self.how_it_ended(channel, "done", f"before {remote} was copied")
            why = "it is not there" if said == "missing" else errors or said
            raise EdgeSSLError(f"cannot get {remote} from {self.where}: {why}") from None
        except TimeoutError:
            raise BoardUnreachable(f"{self.where} is stuck while {remote} is copied") from None
        except OSError as error:
            raise files.explain_os_error(error, local) from error
        finally:
            channel.kill()
            part.unlink(missing_ok=True)

    def remove(self, remote: str) -> None:
        """Remove a file or a folder on the board.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            EdgeSSLError: The board refused.
        """
        command = keeper.command(keeper.REMOVE, self.word, self.workdir, _remote(remote))
        channel = self.open(command, subprocess.DEVNULL)
        said, errors = self._transfer(channel, 0, f"while {remote} was removed")
        if said != "ok":
            raise EdgeSSLError(f"cannot remove {remote} on {self.where}: {errors}")


def _remote(name: str) -> str:
    """Return a name on the board so that no program takes it for an option."""
    parts = PurePosixPath(name).parts
    if ".." in parts or not [part for part in parts if part != "/"]:
        raise EdgeSSLError(f"'{name}' does not name a file or folder of ours on the board")
    return name if name.startswith("/") else f"./{PurePosixPath(name)}"

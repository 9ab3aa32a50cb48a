"""A connection to a board over which commands run, and the one that keeps it: the keeper.

The keeper lives as long as the connection. It makes the work folder and removes it when its input
ends, so that a cut connection or a killed workstation leaves a clean board. Every command reports
its own end in words of ours; one that ends without them lost its connection.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import secrets
import threading
import time
from abc import abstractmethod
from pathlib import PurePosixPath
from typing import IO

from edgessl.core.errors import BoardUnreachable, DiskFull, EdgeSSLError
from edgessl.devices import keeper
from edgessl.devices.channel import Channel
from edgessl.devices.plain import plain

OPEN_S = 90.0  # from a connection attempt to the keeper's word, jump hosts and login files included
BEAT_S = 20.0  # signs of life to the keeper
SILENCE_S = 60  # whole seconds; the keeper ends after one to two of these without a sign
CLOSE_S = 15.0
LOST_S = 5.0  # between the loss of a command and that of its connection
NO_SPACE = re.compile("no space left|quota exceeded", re.IGNORECASE)


class Ended(Exception):
    """The output ended before the line that was waited for."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Connection:
    """What all transports share; a transport opens channels and explains its own failures.

    Args:
        where: How messages call the board.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.word = f"edgessl-{secrets.token_hex(8)}"
        self._lock, self._over = threading.RLock(), threading.Event()
        self._keeper: Channel | None = None
        self._workdir = ""

    @abstractmethod
    def _connect(self, command: str) -> Channel:
        """Open the connection and run the keeper over it."""

    @abstractmethod
    def open(self, command: str, stdin: int | IO[bytes]) -> Channel:
        """Run one more command over the same connection."""

    @abstractmethod
    def _explain(self, errors: str, said: str) -> EdgeSSLError:
        """Say why the keeper does not run, from what came on standard error and output."""

    @abstractmethod
    def _let_go(self) -> None:
        """Remove what the connection needed on this machine."""

    @property
    def workdir(self) -> str:
        """The private folder on the board.

        Raises:
            BoardUnreachable: No connection.
        """
        with self._lock:
            if self._keeper is None:
                self._begin()
            assert self._keeper is not None
            if self._keeper.ended(0):
                raise self.lost()
            return self._workdir

    @property
    def home(self) -> str:
        """The folder on the board that stays."""
        return str(PurePosixPath(self.workdir).parent)

    def _begin(self) -> None:
        if self._over.is_set():
            raise EdgeSSLError(f"the connection to {self.where} is closed")
        name = f"work-{secrets.token_hex(6)}"
        script = keeper.leading(keeper.KEEPER, self.word, name, str(SILENCE_S))
        channel, found = self._connect(script), b""
        try:
            found, _ = self.hear(channel, rb"ready (/.+/" + name.encode() + rb")", OPEN_S)
        except Ended as end:
            errors = plain(channel.errors(LOST_S))
            if NO_SPACE.search(errors):
                raise self.full("~/.edgessl", errors) from None
            raise self._explain(errors, end.said) from None
        except TimeoutError:
            raise BoardUnreachable(
                f"{self.where} took the connection, but its login shell said nothing of ours for "
                f"{OPEN_S:g} s",
                hint="look at what the login files on the board (~/.bashrc, ~/.profile) wait for",
            ) from None
        finally:
            if not found:
                channel.kill()
                self._let_go()
        self._workdir = os.fsdecode(found)
        self._keeper = channel
        atexit.register(self.close)
        threading.Thread(target=self._beat, args=(channel,), daemon=True).start()

    def _beat(self, channel: Channel) -> None:
        with contextlib.suppress(OSError):  # whoever uses the connection will notice
            while not self._over.wait(BEAT_S):
                channel.send(b"beat\n")

    def hear(self, channel: Channel, pattern: bytes, timeout_s: float) -> tuple[bytes, bytes]:
        """Read up to a line of ours; return what its group matched, and what came after it."""
        line = re.compile(rb"^" + self.word.encode() + b" " + pattern + rb"\r?\n", re.MULTILINE)
        deadline, held = time.monotonic() + timeout_s, b""
        while not (found := line.search(held)):
            piece = channel.read(deadline - time.monotonic())
            if not piece:
                raise Ended(plain(held))
            held = held[-4096:] + piece
        return found[1], held[found.end() :]

    def lost(self, doing: str = "") -> BoardUnreachable:
        """Return the error for a connection that ended by itself.

        Args:
            doing: How far it came.
        """
        errors = plain(self._keeper.errors(LOST_S)) if self._keeper else ""
        reason = errors.splitlines()[-1].strip() if errors else "it was closed without a word"
        return BoardUnreachable(
            f"the connection to {self.where} was lost{doing and f' {doing}'}: {reason}",
            hint="see that the board is powered and in reach, then run the command again; what ran "
            "there ends by itself and its work folder is removed",
        )

    def how_it_ended(self, channel: Channel, what: str, doing: str = "") -> tuple[str, str]:
        """Return the last word of a command whose output has ended, and its errors.

        Args:
            what: The kind of last word: ``end`` or ``done``.
            doing: How far it came, for the message.

        Raises:
            BoardUnreachable: There is none, as the connection was lost.
        """
        errors, words = self.errors(channel, LOST_S)
        if what in words:
            return words[what], errors
        removed = "gone" in words
        if self._keeper is None or self._keeper.ended(0.5 if removed else LOST_S):
            raise self.lost(doing)
        if removed:
            raise BoardUnreachable(f"somebody removed {self._workdir} on {self.where}")
        return "", errors

    def errors(self, channel: Channel, timeout_s: float = 0.0) -> tuple[str, dict[str, str]]:
        """Return what a command wrote to standard error, and our words in it."""
        raw = b"\n" + channel.errors(timeout_s)
        words = re.compile(rb"\n" + self.word.encode() + rb" ([a-z]+) ?(\S*)(?=\n)")
        told = {name.decode(): said.decode("ascii", "replace") for name, said in words.findall(raw)}
        begun = [found.end() for found in words.finditer(raw) if found[1] == b"begin"]
        return plain(words.sub(b"", raw[begun[0] if begun else 0 :])), told

    def stop(self, started: bytes) -> None:
        """Kill a program and its group on the board.

        Args:
            started: What its first line said; empty for one that never began.
        """
        if started and self._keeper is not None:
            with contextlib.suppress(OSError):
                self._keeper.send(b"stop " + started + b"\n")

    def full(self, remote: str, detail: str) -> DiskFull:
        """Return the error for a board without space."""
        return DiskFull(
            f"no space left on {self.where} for {remote}: {detail}",
            hint="free space in the home folder of the board; what was begun there is removed",
        )

    def close(self) -> None:
        """End the keeper, which removes the work folder; called twice is fine."""
        self._over.set()
        with self._lock:
            channel, self._keeper = self._keeper, None
        if channel is not None:
            channel.end_input()
            channel.ended(CLOSE_S)
            channel.kill()
            self._let_go()
            atexit.unregister(self.close)

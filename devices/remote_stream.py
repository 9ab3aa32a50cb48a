"""A program that runs on a board over a connection, line by line."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.base import MAX_LINE
from edgessl.devices.channel import Channel

if TYPE_CHECKING:
    from edgessl.devices.remote import RemoteShell

GRACE_S = 5.0  # between a closed standard input and a kill
MOST_HELD = 2 * MAX_LINE  # bytes kept for whoever reads on after the program ended


def signalled(said: str) -> int:
    """Return the exit status that a shell on the board reported.

    A shell says 128 + n of a program that signal n ended; here it is -n, as on this machine. No
    report from a living connection means that the shell was killed, too.
    """
    status = int(said) if said.isdecimal() else 128 + 9
    return 128 - status if 128 < status <= 192 else status


class RemoteStream:
    """A running program whose standard input stays open.

    Args:
        shell: What it runs through.
        channel: Its bytes.
        word: The session's word.
        name: The program, for messages.
    """

    def __init__(self, shell: RemoteShell, channel: Channel, word: str, name: str) -> None:
        self._shell, self._channel, self._name = shell, channel, name
        self._begin = re.compile(rb"^" + word.encode() + rb" begin (\S*)\r?\n", re.MULTILINE)
        self._held, self._started, self._begun = bytearray(), b"", False
        self._lines, self._ended = 0, False
        self._end: tuple[str, str] | None = None

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line of the program, or None at the end of its output.

        Raises:
            BoardUnreachable: The connection was lost; says after how many lines.
            EdgeSSLError: No line in time, or one without end.
        """
        deadline = time.monotonic() + timeout_s
        while (line := self._take_line()) is None:
            if self._ended:
                self._how_it_ended()
                return None
            try:
                self._receive(deadline)
            except TimeoutError:
                raise EdgeSSLError(f"{self._name} said nothing for {timeout_s:g} s") from None
        self._lines += 1
        return line

    def _receive(self, deadline: float) -> None:
        piece = self._channel.read(deadline - time.monotonic())
        self._held += piece
        self._ended = not piece

    def _take_line(self) -> str | None:
        """Take one line of the program from what has come."""
        if not self._has_begun():
            return None
        end = self._held.find(b"\n")
        if end < 0 and self._ended and self._held:
            end = len(self._held)  # the last line, without an end
        if end > MAX_LINE or (end < 0 and len(self._held) > MAX_LINE):
            limit = f"a line of more than {MAX_LINE >> 20} MiB"
            raise EdgeSSLError(f"{self._name} on {self._shell.where} sent {limit}")
        if end < 0:
            return None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line.decode("utf-8", "replace").rstrip("\r")

    def _has_begun(self) -> bool:
        """Drop what login files print, up to the line after which the program's own come."""
        if not self._begun and (found := self._begin.search(self._held)):
            self._begun, self._started = True, bytes(found[1])
            del self._held[: found.end()]
        elif not self._begun:
            del self._held[:-4096]
        return self._begun

    def _how_it_ended(self) -> tuple[str, str]:
        if self._end is None:
            lines = f"after {self._lines} lines of {self._name}"
            self._end = self._shell.how_it_ended(self._channel, "end", lines)
        return self._end

    def wait(self, timeout_s: float) -> int:
        """Return the exit status; a negative one names the signal. Lines that come are kept.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: Still running after ``timeout_s``.
        """
        if not self._drain(timeout_s):
            raise EdgeSSLError(f"{self._name} did not end within {timeout_s:g} s")
        return signalled(self._how_it_ended()[0])

    def _drain(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        try:
            while not self._ended:
                self._receive(deadline)
                del self._held[MOST_HELD:]
        except TimeoutError:
            return False
        return True

    def send(self, line: str) -> None:
        """Write one line to the program.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: The program reads no more.
        """
        try:
            self._channel.send(f"{line}\n".encode())
        except (OSError, ValueError) as error:
            # raises when the connection is lost
            self._shell.how_it_ended(self._channel, "end", f"after {self._lines} lines")
            text = f"{self._name} on {self._shell.where} reads no more"
            raise EdgeSSLError(text) from error

    @property
    def stderr_tail(self) -> str:
        """The last lines of standard error."""
        if self._end is not None:
            return self._end[1]
        return self._shell.errors(self._channel)[0]

    def leave(self) -> None:
        """Close the program's input, wait for its end, then kill it."""
        self._channel.end_input()
        if not self._drain(GRACE_S):
            self._has_begun()
            self._shell.stop(self._started)
            self._drain(GRACE_S)
        if self._ended:
            self._channel.errors(1)
            self._channel.ended(1)
        self._channel.kill()

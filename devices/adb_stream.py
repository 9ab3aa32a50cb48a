"""A program on a phone as adb's client hears it: lines, errors, and how it ended.

adb does not tell a program that ended from a connection that did: some versions end with status
0 either way. So the phone's own shell says the status last, behind a word of ours; without it
the connection was lost.
"""

from __future__ import annotations

import contextlib
import queue
import re
import subprocess
import threading
from collections import deque
from typing import IO

from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices.shell import BACKLOG, MAX_LINE, TAIL_LINES

# what a shell says of a program that died from a signal: 128 + its number
SIGNALS = frozenset((1, 2, 3, 4, 6, 7, 8, 9, 11, 13, 14, 15))


class Silent(EdgeSSLError):
    """Nothing came in time."""


class AdbStream:
    """An ``adb shell`` in mid-run.

    Args:
        process: The client, with pipes.
        mark: The word that comes before the exit status.
        where: The phone, for messages.
        name: The program, for messages.
    """

    def __init__(self, process: subprocess.Popen[bytes], mark: str, where: str, name: str) -> None:
        self._process, self._where, self._name = process, where, name
        self._mark = re.compile(re.escape(mark) + r" (\d{1,3})$")
        self._status: int | None = None
        self._lines: queue.Queue[str | EdgeSSLError | None] = queue.Queue(BACKLOG)
        self._errors: deque[str] = deque(maxlen=TAIL_LINES)
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._pump_output, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._pump_errors, args=(process.stderr,), daemon=True),
        ]
        for thread in self._readers:
            thread.start()

    def _pump_output(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                limit = f"{self._name} sent a line of more than {MAX_LINE >> 20} MiB"
                self._lines.put(EdgeSSLError(limit))
                return
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not self._ends(text):
                self._lines.put(text)
        self._lines.put(None)

    def _pump_errors(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(4096):
            text = line.decode("utf-8", "replace").rstrip()
            if text and not self._ends(text):
                self._errors.append(text)

    def _ends(self, text: str) -> bool:
        found = self._mark.search(text)
        if found:
            self._status = int(found[1])
        return found is not None

    def send(self, line: str) -> None:
        """Write one line to the program.

        Raises:
            BoardUnreachable: It reads no more, or the connection was lost.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self.lost() from None

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line, or None at the end of the output.

        Raises:
            BoardUnreachable: The connection was lost.
            Silent: Nothing came in time.
            EdgeSSLError: A line without end.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise Silent(f"{self._name} said nothing for {timeout_s:g} s") from None
        if isinstance(line, EdgeSSLError):
            raise line
        if line is None:
            self._lines.put(None)
            self._readers[1].join(1)
            if self._status is None:
                raise self.lost()
        return line

    def wait(self, timeout_s: float) -> int:
        """Return the exit status of the program; a negative one names the signal.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: Still running after ``timeout_s``.
        """
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EdgeSSLError(f"{self._name} did not end within {timeout_s:g} s") from None
        for thread in self._readers:
            thread.join(1)
        if self._status is None:
            raise self.lost()
        return signed(self._status)

    def lost(self) -> BoardUnreachable:
        """Return the error for a program whose end was not heard."""
        said = self._errors[-1] if self._errors else ""
        return BoardUnreachable(
            f"the connection to {self._where} was lost while {self._name} ran"
            + (f": {said}" if said else ""),
            hint="look at 'adb devices'; plug the phone in again, use a short cable",
        )

    @property
    def stderr_tail(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._errors)

    def close(self, grace_s: float) -> None:
        """Close its standard input, wait, then kill the client: adbd hangs up on the program."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def signed(status: int) -> int:
    """Return a shell's exit status with death by a signal as a negative number."""
    return 128 - status if status - 128 in SIGNALS else status

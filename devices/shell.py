"""The shell of this machine: programs in a private folder, killed as a group."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgessl.core.errors import DiskFull, EdgeSSLError
from edgessl.devices.base import MAX_LINE, CommandFailed

TAIL_LINES = 20
GRACE_S = 5.0  # between a closed standard input and a kill
BACKLOG = 256  # lines that wait to be read; a program that floods us must wait, too


class LocalStream:
    """A child process whose lines are read by a thread, so that waiting can time out."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process, self._name = process, name
        self._lines: queue.Queue[str | EdgeSSLError | None] = queue.Queue(BACKLOG)
        self._errors: deque[str] = deque(maxlen=TAIL_LINES)
        assert process.stdout is not None
        assert process.stderr is not None
        self._threads = [
            threading.Thread(target=self._pump_output, args=(process.stdout,), daemon=True),
            threading.Thread(target=self._pump_errors, args=(process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _pump_output(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                text = f"{self._name} sent a line of more than {MAX_LINE >> 20} MiB"
                self._lines.put(EdgeSSLError(text))
                return
            self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        self._lines.put(None)

    def _pump_errors(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(4096):
            self._errors.append(line.decode("utf-8", "replace").rstrip())

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line, or None at the end of the output.

        Raises:
            EdgeSSLError: Nothing came in time, or a line without end.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise EdgeSSLError(f"{self._name} said nothing for {timeout_s:g} s") from None
        if isinstance(line, EdgeSSLError):
            raise line
        return line

    def wait(self, timeout_s: float) -> int:
        """Return the exit status.

        Raises:
            EdgeSSLError: Still running after ``timeout_s``.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EdgeSSLError(f"{self._name} did not end within {timeout_s:g} s") from None
        self._threads[1].join(1)
        return status

    def send(self, line: str) -> None:
        """Write a line to the program.

        Raises:
            EdgeSSLError: It reads no more.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise EdgeSSLError(f"{self._name} reads no more: {error}") from error

    @property
    def stderr_tail(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._errors)


class LocalShell:
    """Runs programs on this machine, in a private folder that goes away with the shell."""

    where = "this machine"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgessl-")
        self.workdir = self._folder.name
        self.home = str(Path.home() / ".edgessl")

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program to its end and return its output.

        Raises:
            CommandFailed: Not found, or it failed (with the last lines of its errors).
            EdgeSSLError: Timed out; its whole process group is killed.
        """
        process = self._popen(argv, stdin=subprocess.DEVNULL)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise EdgeSSLError(f"{argv[0]} did not end within {timeout_s:g} s") from None
        finally:
            _kill_group(process)
        if process.returncode:
            tail = "\n".join(errors.decode("utf-8", "replace").splitlines()[-TAIL_LINES:])
            text = f"{argv[0]} ended with status {process.returncode}: {tail}"
            raise CommandFailed(text, status=process.returncode)
        return output.decode("utf-8", "replace")

    @contextmanager
    def start(self, argv: Sequence[str]) -> Iterator[LocalStream]:
        """Start a program; on leaving, its standard input closes, then its group is killed.

        Raises:
            CommandFailed: The program is not there.
        """
        process = self._popen(argv, stdin=subprocess.PIPE)
        try:
            yield LocalStream(process, Path(argv[0]).name)
        finally:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            _kill_group(process)

    def _popen(self, argv: Sequence[str], *, stdin: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.workdir,
                start_new_session=True,  # a group of its own: killed as one
            )
        except OSError as error:
            text = f"cannot start {argv[0]}: {error.strerror or error}"
            raise CommandFailed(text, status=127) from error

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the private folder, whole or not at all.

        Raises:
            DiskFull: No space is left.
        """
        target = Path(self.workdir) / remote
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        try:
            shutil.copyfile(local, part)
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left in {self.workdir} for {local.name}") from error
            raise

    def get(self, remote: str, local: Path) -> None:
        """Copy a file out of the private folder."""
        shutil.copyfile(Path(self.workdir) / remote, local)

    def remove(self, remote: str) -> None:
        """Remove a file or a folder."""
        target = Path(self.workdir) / remote
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the private folder."""
        self._folder.cleanup()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""A phone behind the adb program: commands with exit statuses, files checked by hash.

Whatever reaches the phone's shell is quoted by ``adb_scripts.quoted``. A command is a child of
that shell, which tells its status behind a word of ours (see ``adb_stream``) and, when adbd hangs
up, kills its whole group: nothing outlives a lost connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgessl.core.errors import BoardUnreachable, DiskFull, EdgeSSLError, FileInvalid
from edgessl.devices.adb_client import ask, find_adb, reach
from edgessl.devices.adb_scripts import HOME, SUM, joined, keeper, quoted
from edgessl.devices.adb_stream import AdbStream, Silent
from edgessl.devices.base import LARGEST_FETCHED, CommandFailed

PATIENCE_S = 20.0  # how long a user may take to tap "Allow" on the phone
STEP_S = 60.0  # for the small commands of our own
SLOWEST = 1 << 18  # bytes a second: a slow USB 1.1 or wireless link
GRACE_S = 5.0
OUTPUT_LIMIT = 64 << 20


class AdbShell:
    """A shell on a phone; opened on first use.

    Args:
        serial: As ``adb devices`` shows it, or a network address; None for the only phone.
        patience_s: How long an unauthorised or offline phone may take to become usable.
    """

    def __init__(self, serial: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self.where = f"adb:{serial}" if serial else "adb"
        self.home = HOME
        self._serial, self._patience_s = serial, patience_s
        self._adb = ""
        self._split = True  # statuses and errors travel apart: adb's "shell_v2"
        self._mark = f"edgessl-{secrets.token_hex(8)}"
        self._keeper: AdbStream | None = None
        self._workdir = ""

    @property
    def workdir(self) -> str:
        """A new folder on the phone; it goes away with the connection.

        Raises:
            MissingExtra: There is no adb program.
            BoardUnreachable: No phone, several, or one that is not usable.
        """
        if not self._workdir:
            self._open()
        return self._workdir

    @property
    def merged(self) -> bool:
        """Whether errors come mixed into the output, as before Android 7."""
        return bool(self.workdir) and not self._split

    def _open(self) -> None:
        self._adb = find_adb()
        self._serial = reach(self._adb, self._serial, self._patience_s)
        self.where = f"adb:{self._serial}"
        _, features = ask(self._adb, ["-s", self._serial, "features"])
        self._split = "shell_v2" in re.split(r"[\s,]+", features)
        token = secrets.token_hex(4)
        script = keeper(self.home, token, self._mark)
        stream = AdbStream(self._spawn(script, subprocess.PIPE), "no status", self.where, "sh")
        try:
            for _ in range(100):  # a login file may greet first
                line = stream.read_line(STEP_S)
                if line is not None and line.startswith(f"{self._mark} /"):
                    self._workdir = line.split(" ", 1)[1]
                    self._keeper = stream
                    return
        except EdgeSSLError as error:
            text = f"no folder could be made under {self.home} on {self.where}: {error.message}"
            raise BoardUnreachable(text, hint=error.hint) from error
        finally:
            if self._keeper is None:
                stream.close(0)
        raise BoardUnreachable(f"the shell of {self.where} does not answer as a shell does")

    def _spawn(self, script: str, stdin: int) -> subprocess.Popen[bytes]:
        assert self._serial is not None
        plain = ["-T"] if self._split else []
        try:
            return subprocess.Popen(
                [self._adb, "-s", self._serial, "shell", *plain, script],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us; we end what we started
            )
        except OSError as error:
            raise BoardUnreachable(f"cannot start {self._adb}: {error}") from error

    def _wrapped(self, command: str, stdin: str) -> str:
        channel = ">&2" if self._split else ""
        return (
            f"trap 'trap \"\" HUP; kill -9 -$$' HUP; cd {quoted(self.workdir)} || exit 73; "
            f"{command} {stdin} & wait $!; printf '\\n%s %d\\n' {self._mark} $? {channel}"
        )

    def _run(self, command: str, name: str, timeout_s: float) -> tuple[int, str, str]:
        """Run a quoted command; return status, output and the last lines of its errors."""
        process = self._spawn(self._wrapped(command, "</dev/null"), subprocess.DEVNULL)
        stream = AdbStream(process, self._mark, self.where, name)
        deadline, lines, size = time.monotonic() + timeout_s, list[str](), 0
        try:
            while (line := stream.read_line(max(0.0, deadline - time.monotonic()))) is not None:
                size += len(line)
                if size > OUTPUT_LIMIT:
                    raise EdgeSSLError(
                        f"{name} on {self.where} printed more than {OUTPUT_LIMIT >> 20} MiB"
                    )
                lines.append(line)
            status = stream.wait(GRACE_S)
        except Silent:
            raise EdgeSSLError(
                f"{name} on {self.where} did not end within {timeout_s:g} s"
            ) from None
        finally:
            stream.close(0)
        if not self._split and lines and not lines[-1]:
            lines.pop()  # the line end before the mark
        return status, "".join(f"{line}\n" for line in lines), stream.stderr_tail

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program to its end and return its output (before Android 7, with its errors).

        Raises:
            BoardUnreachable: No usable phone, or the connection was lost.
            CommandFailed: Not there (status 127), or it failed.
            EdgeSSLError: It did not end within ``timeout_s``; it is killed.
        """
        status, output, errors = self._run(joined(argv), argv[0], timeout_s)
        if status:
            told = errors if self._split else output[-2000:].strip()
            raise CommandFailed(
                f"{argv[0]} on {self.where} ended with status {status}: {told}", status=status
            )
        return output

    @contextmanager
    def start(self, argv: Sequence[str]) -> Iterator[AdbStream]:
        """Start a program; on leaving, its standard input closes, then its group is killed.

        Raises:
            BoardUnreachable: No usable phone.
        """
        quiet = "" if self._split else "stty -echo 2>/dev/null; "  # a terminal repeats its input
        # a shell gives its background commands an empty input unless they get a copy of its own
        script = f"{quiet}exec 3<&0; " + self._wrapped(joined(argv), "<&3 3<&-")
        process = self._spawn(script, subprocess.PIPE)
        stream = AdbStream(process, self._mark, self.where, argv[0].rpartition("/")[2])
        try:
            yield stream
        finally:
            stream.close(GRACE_S)

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the phone: whole, checked by hash, or not at all; folders are made.

        A file that is there with the same hash is not sent again.

        Raises:
            BoardUnreachable: No usable phone, or the connection was lost.
            DiskFull: No space is left on the phone.
            FileInvalid: What arrived is not what was sent.
        """
        target, size = self._path(remote), local.stat().st_size
        sums = _sums(local)
        folder = quoted(target.rpartition("/")[0])
        found = self._script(
            f"mkdir -p {folder} && if [ -f {quoted(target)} ]; then sum {quoted(target)}; fi", size
        )
        if found.split(" ", 1)[0] in sums:
            return
        part = f"{target}.part"
        self._transfer(["push", str(local.resolve()), part], local.name, size)
        whole = self._script(
            f"set -- $(sum {quoted(part)}); case $1 in {'|'.join(sums)}) "
            f"mv -f {quoted(part)} {quoted(target)} && echo whole;; *) rm -f {quoted(part)};; esac",
            size,
        )
        if whole != "whole":
            raise FileInvalid(
                f"{local.name} arrived changed on {self.where}", hint="use another cable or port"
            )

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the phone: whole, checked by hash, or not at all.

        Raises:
            BoardUnreachable: No usable phone, or the connection was lost.
            EdgeSSLError: It is not there.
        """
        source = self._path(remote)
        told = self._script(
            f"[ -f {quoted(source)} ] || {{ echo {quoted(source)} is no file; exit 1; }}; "
            f"wc -c <{quoted(source)} && sum {quoted(source)}",
            1 << 30,
        ).split()
        with tempfile.TemporaryDirectory(dir=local.parent, prefix=".edgessl-") as folder:
            arrived = Path(folder) / "file"
            size = int(told[0]) if told and told[0].isdigit() else 0
            if size > LARGEST_FETCHED:
                raise FileInvalid(f"{source} on {self.where} has {size} bytes: not fetched")
            self._transfer(["pull", source, str(arrived)], source, size)
            if len(told) < 2 or told[1] not in _sums(arrived):
                raise FileInvalid(f"{source} arrived changed from {self.where}")
            arrived.replace(local)

    def remove(self, remote: str) -> None:
        """Remove a file or folder on the phone; absent is fine."""
        self._script(f"rm -rf {quoted(self._path(remote))}", 0)

    def close(self) -> None:
        """Remove the work folder and let go of the phone; called twice is fine."""
        if self._keeper is not None:
            self._keeper.close(GRACE_S)
        self._keeper, self._workdir = None, ""

    def _path(self, remote: str) -> str:
        return remote if remote.startswith("/") else f"{self.workdir}/{remote}"

    def _script(self, text: str, size: int) -> str:
        """Run a line of shell of our own, with ``sum`` at hand; return its output.

        Args:
            text: The line; every name in it is quoted.
            size: Bytes that it has to read.
        """
        status, output, errors = self._run(
            f"{{ {SUM}{text}; }}", "a file command", STEP_S + size / SLOWEST
        )
        if status:
            told = (errors or output).strip()
            if "No space left" in told:
                raise DiskFull(f"no space left on {self.where}: {told}")
            raise EdgeSSLError(f"on {self.where}: {told or f'status {status}: {text}'}")
        return output.strip()

    def _transfer(self, argv: Sequence[str], name: str, size: int) -> None:
        assert self._serial is not None
        status, text = ask(self._adb, ["-s", self._serial, *argv], STEP_S + size / SLOWEST)
        if status == 0:
            return
        reasons = [line for line in text.splitlines() if "error" in line] or text.splitlines()
        told = reasons[-1].removeprefix("adb: error: ") if reasons else f"status {status}"
        if "No space left" in text:
            if argv[0] == "push":
                with contextlib.suppress(EdgeSSLError):
                    self._script(f"rm -f {quoted(argv[-1])}", 0)
            raise DiskFull(
                f"no space left on {self.where} for {name}",
                hint=f"free space on the phone, or: adb -s {self._serial} shell rm -r {HOME}",
            )
        if re.search(r"Permission denied|Read-only|does not exist|Is a directory", text):
            raise EdgeSSLError(f"adb {argv[0]} of {name} failed: {told}")
        raise BoardUnreachable(
            f"the connection to {self.where} was lost while copying {name}: {told}",
            hint="look at 'adb devices'; plug the phone in again, use a short cable",
        )


def _sums(path: Path) -> set[str]:
    """Return the hashes that a phone may tell; MD5 is only met before Android 8."""
    made = set()
    for name in ("sha256", "md5"):
        with path.open("rb") as stream:
            made.add(hashlib.file_digest(stream, name).hexdigest())
    return made

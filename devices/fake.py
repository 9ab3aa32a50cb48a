"""A scripted board, for tests of everything but the silicon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.base import CommandFailed


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scripted program does.

    Args:
        output: Everything it prints.
        status: Its exit status.
        errors: What it writes to standard error.
        hangs: It never ends after its output.
    """

    output: str = ""
    status: int = 0
    errors: str = ""
    hangs: bool = False


@dataclass
class FakeStream:
    """A scripted program in mid-run."""

    answer: Answer
    lines: deque[str]
    heard: list[str] = field(default_factory=list)

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next scripted line."""
        if self.lines:
            return self.lines.popleft()
        if self.answer.hangs:
            raise EdgeSSLError(f"the program said nothing for {timeout_s:g} s")
        return None

    def wait(self, timeout_s: float) -> int:
        """Return the scripted status."""
        if self.answer.hangs:
            raise EdgeSSLError(f"the program did not end within {timeout_s:g} s")
        return self.answer.status

    def send(self, line: str) -> None:
        """Keep the line."""
        self.heard.append(line)

    @property
    def stderr_tail(self) -> str:
        """The scripted errors."""
        return self.answer.errors


@dataclass
class FakeShell:
    """A board that follows a script, and remembers what it was asked.

    Args:
        script: From an argument list to what the program does.
        workdir: Name of the folder on the pretended board.

    Attributes:
        transcript: ("run" | "start", argv), ("put" | "get" | "remove", (remote,)), in order.
        files: What lies on the pretended board, by remote name.
    """

    script: Callable[[tuple[str, ...]], Answer]
    workdir: str = "edgessl-work"
    home: str = "/home/board/.edgessl"
    where: str = "a scripted board"
    transcript: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Return the scripted output.

        Raises:
            CommandFailed: The script says that it fails.
            EdgeSSLError: The script says that it hangs.
        """
        answer = self._ask("run", argv)
        if answer.hangs:
            raise EdgeSSLError(f"{argv[0]} did not end within {timeout_s:g} s")
        if answer.status:
            text = f"{argv[0]} ended with status {answer.status}: {answer.errors}"
            raise CommandFailed(text, status=answer.status)
        return answer.output

    @contextmanager
    def start(self, argv: Sequence[str]) -> Iterator[FakeStream]:
        """Play the scripted output line by line."""
        answer = self._ask("start", argv)
        yield FakeStream(answer, deque(answer.output.splitlines()))

    def _ask(self, verb: str, argv: Sequence[str]) -> Answer:
        self.transcript.append((verb, tuple(argv)))
        return self.script(tuple(argv))

    def put(self, local: Path, remote: str) -> None:
        """Keep the bytes of a file."""
        self.transcript.append(("put", (remote,)))
        self.files[remote] = local.read_bytes()

    def get(self, remote: str, local: Path) -> None:
        """Write the bytes of a kept file."""
        self.transcript.append(("get", (remote,)))
        local.write_bytes(self.files[remote])

    def remove(self, remote: str) -> None:
        """Forget a file, or all files of a folder."""
        self.transcript.append(("remove", (remote,)))
        for name in [n for n in self.files if n == remote or n.startswith(f"{remote}/")]:
            del self.files[name]

    def close(self) -> None:
        """Forget everything that is kept."""
        self.files.clear()

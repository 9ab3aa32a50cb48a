"""What a board is to the rest of the house: a shell, and what it can tell about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

AGENT = Path(__file__).with_name("agents") / "agent.py"


class Stream(Protocol):
    """A program that runs on the board and talks in lines; its standard input stays open."""

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line without its end, or None when the program closed its output.

        Raises:
            EdgeSSLError: No line came within ``timeout_s``.
        """
        ...

    def wait(self, timeout_s: float) -> int:
        """Return the exit status; a negative one names the signal.

        Raises:
            EdgeSSLError: It did not end within ``timeout_s``.
        """
        ...

    @property
    def stderr_tail(self) -> str:
        """The last lines the program wrote to its standard error."""
        ...


class Shell(Protocol):
    """A way to run programs on a board and to move files.

    Commands run in ``workdir``; remote names are relative to it, with ``/`` between parts.

    Attributes:
        workdir: A folder on the board that is ours alone.
    """

    workdir: str

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program with closed standard input and return what it printed.

        Raises:
            EdgeSSLError: It is not there, failed, or did not end within ``timeout_s``.
        """
        ...

    def start(self, argv: Sequence[str]) -> AbstractContextManager[Stream]:
        """Start a program with open standard input; leaving the context ends it."""
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the board; folders on the way are made."""
        ...

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the board."""
        ...

    def remove(self, remote: str) -> None:
        """Remove a file or folder on the board; absent is fine."""
        ...

    def close(self) -> None:
        """Remove ``workdir`` and let go of the board; called twice is fine."""
        ...


class Device(Protocol):
    """A board. The class is called without arguments: addresses are not in recipes yet.

    Attributes:
        kind: Name of its entry in the table of devices, set by each class of its own.
        python: The interpreter on the board that has the runtime.
        shell: How to reach it; opened on first use, so that making a device reaches nothing.
    """

    kind: str
    python: str
    shell: Shell

    @property
    def id(self) -> str:
        """Short name that stays the same between runs and is safe as a folder name."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what the agent's ``facts`` command says."""
        ...

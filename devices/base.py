"""What a board is to the rest of the house: how to reach it, and what it can tell about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edgessl.core.errors import EdgeSSLError

if TYPE_CHECKING:
    from edgessl.devices.conversation import Sources
    from edgessl.devices.events import Run
    from edgessl.devices.protocol import Finding, Preset

Progress = Callable[[str], None]
LARGEST_FETCHED = 4 * 2**30  # bytes of one file from a board: engines have some hundred MB
MAX_LINE = 8 * 2**20  # bytes in one line of a program on a board; the agent's longest have 0.5 MB


class CommandFailed(EdgeSSLError):
    """A program on the board ended with a status other than 0.

    Args:
        message: What ran and how it ended, with the last lines of its errors.
        status: Its exit status; a negative one names the signal.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Board:
    """A board as the user names it: an entry of the file of boards, or the command line.

    Attributes:
        kind: Name of an entry in the table of devices.
        address: ``ssh://user@host:port``, ``user@host``, an alias of the SSH configuration,
            ``adb``, ``adb:serial``; empty for the machine that edgessl runs on.
        name: What the user called it; empty for a board that was only addressed.
        python: The interpreter on the board; empty to look for one.
    """

    kind: str
    address: str = ""
    name: str = ""
    python: str = ""


class Stream(Protocol):
    """A program that runs on the board and talks in lines; its standard input stays open."""

    def read_line(self, timeout_s: float) -> str | None:
        """Return the next line without its end, or None when the program closed its output.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: No line came within ``timeout_s``, or it grew beyond ``MAX_LINE``.
        """
        ...

    def wait(self, timeout_s: float) -> int:
        """Return the exit status; a negative one names the signal.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: It did not end within ``timeout_s``.
        """
        ...

    def send(self, line: str) -> None:
        """Write one line to the standard input of the program; "" is a sign of life.

        Raises:
            BoardUnreachable: The connection was lost.
            EdgeSSLError: The program reads no more.
        """
        ...

    @property
    def stderr_tail(self) -> str:
        """The last lines the program wrote to its standard error."""
        ...


class Shell(Protocol):
    """A way to run programs on a board and to move files; opened on first use.

    Commands run in ``workdir``; remote names are relative to it, with ``/`` between parts, or
    absolute. Whatever ends the connection, also a kill of this process, removes ``workdir``.

    Attributes:
        where: How messages call the place: ``this machine``, ``ssh://pi@board``, ``adb:serial``.
    """

    where: str

    @property
    def workdir(self) -> str:
        """A new folder on the board that is ours alone and goes away with the shell."""
        ...

    @property
    def home(self) -> str:
        """A folder on the board that stays: runtimes of ``devices setup``, built engines."""
        ...

    def run(self, argv: Sequence[str], *, timeout_s: float) -> str:
        """Run a program with closed standard input and return what it printed.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            CommandFailed: Not there (status 127) or failed.
            EdgeSSLError: It did not end within ``timeout_s``; it is killed.
        """
        ...

    def start(self, argv: Sequence[str]) -> AbstractContextManager[Stream]:
        """Start a program with open standard input; leaving the context ends it.

        Raises:
            BoardUnreachable: No connection.
        """
        ...

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the board: whole, checked by hash, or not at all; folders are made.

        Raises:
            BoardUnreachable: No connection, or it was lost.
            DiskFull: No space is left on the board.
        """
        ...

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the board, at most ``LARGEST_FETCHED`` bytes."""
        ...

    def remove(self, remote: str) -> None:
        """Remove a file or folder on the board; absent is fine."""
        ...

    def close(self) -> None:
        """Remove ``workdir`` and let go of the board; called twice is fine."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Something the agent reads on the board as text, to be understood on the workstation.

    Attributes:
        name: Key under which the text comes back; a probe that fails is left out.
        argv: Program to run, or
        file: a file to read; a pattern of ``glob`` reads all that match, one line each,
            ``path<TAB>content``.
        when: ``ends``: before and after the timed part only; ``second``: also once a second
            between samples, for what costs a few milliseconds at most.
    """

    name: str
    argv: tuple[str, ...] = ()
    file: str = ""
    when: Literal["ends", "second"] = "ends"


@dataclass(frozen=True, slots=True)
class Fit:
    """A published line from what a sensor sees to what the whole board draws: an estimate.

    Attributes:
        slope: Watts of the board per watt of the sensor.
        offset_w: Watts that the sensor never sees.
        source: Who fitted it, on what.
    """

    slope: float
    offset_w: float
    source: str


@dataclass(frozen=True, slots=True)
class Meter:
    """A power sensor of the board, read by a process of its own while samples are taken.

    Attributes:
        scope: What it sees: ``wall``, ``usb``, ``module``, ``soc``, ``battery``, ``estimate``.
        source: The sensor in words, for the record.
        probes: What is read each time (``when`` does not matter).
        hz: Readings a second.
        watts: From the texts of one reading, by probe name, to watts; None if unreadable.
        fit: To the whole board, shown apart as an estimate; None where nobody published one.
        scale: From the watts of all readings to what each is multiplied by, or the reason why
            they cannot be believed: for a sensor whose unit only its readings tell.
    """

    scope: Literal["wall", "usb", "module", "soc", "battery", "estimate"]
    source: str
    probes: tuple[Probe, ...]
    hz: float
    watts: Callable[[Mapping[str, str]], float | None]
    fit: Fit | None = None
    scale: Callable[[Sequence[float]], float | str] = lambda _watts: 1.0


@dataclass(frozen=True, slots=True)
class Traits:
    """What is special about one kind of board; a plain Linux board has none of it.

    Attributes:
        probes: What the agent reads there beside the usual files.
        meter: From the facts of the board to its power sensor, None where there is none.
        no_meter: From the facts to the reason why there is none.
        conditions: From the runs to lines about the state of the board (throttling, power mode).
        findings: From the runs to verdicts that only this board can give; to each run an event
            ``{"k": "asked", "provider": ...}`` is added.
        runtimes: By format, the runtimes that are tried, best first; others use the default.
        mismatch: From the facts to the reason why the board is not of this kind, or "".
    """

    probes: tuple[Probe, ...] = ()
    meter: Callable[[Mapping[str, Any]], Meter | None] = lambda _facts: None
    no_meter: Callable[[Mapping[str, Any]], str] = lambda _facts: "no power sensor is known here"
    conditions: Callable[[Sequence[Run]], Iterable[str]] = lambda _runs: ()
    findings: Callable[[Sequence[Run]], Iterable[Finding]] = lambda _runs: ()
    runtimes: Mapping[str, tuple[str, ...]] | None = None
    mismatch: Callable[[Mapping[str, Any]], str] = lambda _facts: ""


class Device(Protocol):
    """A board that can be measured. Table entries are functions from a :class:`Board` to one.

    Attributes:
        kind: Name of its entry in the table of devices.
        traits: What is special about it.
    """

    kind: str
    traits: Traits

    @property
    def id(self) -> str:
        """Short name that stays the same between runs and is safe as a folder name."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """Return what the agent's ``facts`` command says; asked once.

        Raises:
            BoardUnreachable: No connection.
            EdgeSSLError: No Python on the board, or it told nothing.
        """
        ...

    def measure(
        self, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
    ) -> list[Run]:
        """Copy what is needed, run the plan once per repeat, and return the agent's events.

        Raises:
            See :func:`edgessl.devices.conversation.run_processes`.
        """
        ...

    def close(self) -> None:
        """Leave the board clean and let go of it; called twice is fine."""
        ...

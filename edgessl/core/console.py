"""What a person sees while a command works: text and progress bars on stderr, and a log.

Nothing here writes to stdout, which belongs to ``--json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Bar(Protocol):
    """A running progress bar."""

    def update(self, done: int, detail: str = "") -> None:
        """Show that ``done`` units are finished."""
        ...


class _Silent:
    def update(self, done: int, detail: str = "") -> None:
        """Show nothing."""


class Reporter:
    """Prints what a stage does and writes the same lines to ``log.txt``.

    Args:
        quiet: Print warnings only.
        verbose: Print details too.
        log: File that receives every line with a UTC time, if given.
    """

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, log: Path | None = None
    ) -> None:
        self.quiet, self.verbose, self.log = quiet, verbose, log
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        """The terminal, made on first use."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._console

    def say(self, text: str) -> None:
        """Print a line unless quiet; log it."""
        self._write(text)
        if not self.quiet:
            self.console.print(text, markup=False)

    def detail(self, text: str) -> None:
        """Print a line if verbose; log it."""
        self._write(text)
        if self.verbose:
            self.console.print(text, markup=False, style="dim")

    def warn(self, text: str) -> None:
        """Print a warning, also when quiet; log it."""
        self._write(f"warning: {text}")
        self.console.print(f"warning: {text}", markup=False, style="yellow")

    @contextmanager
    def bar(self, label: str, total: int, *, done: int = 0) -> Iterator[Bar]:
        """Show a progress bar with the time left; a plain line now and then without a terminal."""
        if self.quiet:
            yield _Silent()
        elif self.console.is_terminal:
            yield from self._rich_bar(label, total, done)
        else:
            yield _Lines(self, label, total)

    def _rich_bar(self, label: str, total: int, done: int) -> Iterator[Bar]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )  # fmt: skip

        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("{task.fields[detail]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total, completed=done, detail="")

            class Shown:
                def update(self, done: int, detail: str = "") -> None:
                    progress.update(task, completed=done, detail=detail)

            yield Shown()

    def _write(self, text: str) -> None:
        if self.log is None:
            return
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{stamp} {line}\n" for line in text.splitlines() or [""]))
        except OSError as error:  # a full disk must not hide what is being said
            path, self.log = self.log, None
            self.warn(f"{path} is not written any more: {error.strerror or error}")


class _Lines:
    """Progress for logs: a line at most every ten seconds."""

    def __init__(self, reporter: Reporter, label: str, total: int) -> None:
        self.reporter, self.label, self.total = reporter, label, total
        self._next = time.monotonic() + 10

    def update(self, done: int, detail: str = "") -> None:
        """Print a line if the last one is old enough."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 10
            print(f"{self.label} {done}/{self.total} {detail}", file=sys.stderr, flush=True)  # noqa: T201

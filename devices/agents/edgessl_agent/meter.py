"""A process of its own that reads the power sensor while the model runs.

It is forked before anything is imported, so it needs no interpreter to be found again and holds
no runtime. Where the model is bound to cores it uses the others. It reads between two commands on
a pipe, and ends at the end of that pipe: with the agent, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from typing import Any, Callable, Iterator

from .cores import step_aside
from .probes import read_all
from .reading import read

READINGS_PER_LINE = 200
ON, OFF, END = b"1", b"0", b""


class Meter:
    """The agent's hand on the process that reads; ``None`` for the plan makes it do nothing.

    Args:
        plan: ``hz`` and ``probes``.
        path: File that the readings are written to.
        others: Descriptors of the agent that the process must not keep open.
    """

    def __init__(self, plan: dict[str, Any] | None, path: str, others: list[int]) -> None:
        self.path, self._pipe, self._child = path, -1, 0
        if plan is None:
            return
        commands, self._pipe = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                step_aside()
                nothing = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(nothing, descriptor)
                for descriptor in [self._pipe, *others]:
                    os.close(descriptor)
                _read_until_end(plan, path, commands)
            finally:
                os._exit(0)
        os.close(commands)

    def on(self) -> None:
        """Begin to read."""
        self._tell(ON)

    def off(self) -> None:
        """Read no more for now."""
        self._tell(OFF)

    def _tell(self, command: bytes) -> None:
        if self._child:
            with contextlib.suppress(BrokenPipeError):  # it has died: its readings are missing
                os.write(self._pipe, command)

    def cpu_seconds(self) -> float:
        """Return what reading has cost so far, with the programs that were run for it."""
        words = read("/proc/%d/stat" % self._child).rpartition(")")[2].split()
        if not self._child or len(words) < 15:
            return 0.0
        return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Let the process end and wait for it; its file is whole then."""
        if self._child:
            os.close(self._pipe)
            os.waitpid(self._child, 0)
            self._child = 0

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the readings, some to an event: ``at_ns`` and texts by probe; None is missing."""
        if not os.path.exists(self.path):
            return
        with open(self.path, encoding="utf-8") as stream:
            chunk: list[dict[str, Any]] = []
            for line in stream:
                if not line.endswith("\n"):
                    break  # cut off where the disk was full
                chunk.append(json.loads(line))
                if len(chunk) == READINGS_PER_LINE:
                    yield _together(chunk)
                    chunk = []
        if chunk:
            yield _together(chunk)


def _together(readings: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted({name for reading in readings for name in reading["values"]})
    values = {name: [reading["values"].get(name) for reading in readings] for name in names}
    return {"at_ns": [reading["at_ns"] for reading in readings], "values": values}


def _read_until_end(
    plan: dict[str, Any], path: str, commands: int, clock: Callable[[], int] = time.monotonic_ns
) -> None:
    period = int(1e9 / plan["hz"])
    reading, due = False, 0
    with open(path, "w", encoding="utf-8") as stream:
        while True:
            wait_s = max(0.0, (due - clock()) / 1e9) if reading else None
            if select.select([commands], [], [], wait_s)[0]:
                command = os.read(commands, 1)
                if command == END:
                    return
                reading, due = command == ON, clock()
                continue
            begin = clock()
            values = read_all(plan["probes"])
            # a reading takes time: the middle of it is its moment
            line = {"at_ns": (begin + clock()) // 2, "values": values}
            stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            due = max(due + period, clock())

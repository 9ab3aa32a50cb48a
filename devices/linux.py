"""A Linux board: a shell, the Python on it, and what is special about its kind."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.agent_file import agent_file, agent_name
from edgessl.devices.agent_lines import Listener
from edgessl.devices.base import Board, CommandFailed, Progress, Shell, Traits
from edgessl.devices.conversation import Sources, run_processes
from edgessl.devices.plain import slug

if TYPE_CHECKING:
    from edgessl.devices.events import Run
    from edgessl.devices.protocol import Preset

# The slowest boards and an emulated one take seconds to start Python the first time.
FACTS_TIMEOUT_S = 120.0
OLDEST_PYTHON = (3, 8)
ASK_VERSION = "import sys; print('edgessl-python', *sys.version_info[:2], sys.executable)"


class LinuxDevice:
    """A board with a POSIX shell and Python 3.8 or newer; this machine is one, too.

    Args:
        board: What the user said about it.
        shell: How to reach it.
        traits: What is special about its kind.
    """

    def __init__(self, board: Board, shell: Shell, traits: Traits | None = None) -> None:
        self.board, self.shell = board, shell
        self.kind, self.traits = board.kind, traits or Traits()
        self._bound: list[str] = []  # how a program is bound to cores while it is measured

    @property
    def id(self) -> str:
        """Processor, cores and six digits that tell equal boards apart."""
        return device_id(self.facts())

    def facts(self) -> Mapping[str, Any]:
        """Return what the agent sees; asked once.

        Raises:
            BoardUnreachable: No connection.
            EdgeSSLError: No Python 3.8 or newer, or the agent told nothing.
        """
        return self._facts

    def measure(
        self, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
    ) -> list[Run]:
        """Run the plan in fresh processes on the board; see ``conversation.run_processes``."""
        if cores := plan.get("cores"):
            self._bound = ["taskset", mask_of(cores)]
        try:
            return list(run_processes(self, plan, sources, preset, say))
        finally:
            self._bound = []

    def close(self) -> None:
        """Remove the work folder and close the connection."""
        self.shell.close()

    def command(self, runtime: str = "") -> list[str]:
        """Return how Python is started on the board, so that it finds a runtime.

        While it is measured it is bound to the cores that were asked for.

        Args:
            runtime: One that ``edgessl devices setup`` may have put there; "" for none.
        """
        private = self.runtimes.get(runtime)
        found = ["env", f"PYTHONPATH={private}"] if private else []
        return [*self._bound, *found, self.python]

    @cached_property
    def python(self) -> str:
        """The interpreter on the board.

        Raises:
            EdgeSSLError: There is none, or it is too old.
        """
        if not self.board.address:
            return self.board.python or sys.executable
        wanted = self.board.python or "python3"
        try:
            said = self.shell.run([wanted, "-c", ASK_VERSION], timeout_s=FACTS_TIMEOUT_S)
        except CommandFailed as error:
            raise EdgeSSLError(
                f"no Python on {self.shell.where}: {error.message}",
                hint="install Python 3.8 or newer on the board, or name its path: "
                "edgessl devices add NAME ... --python /path/to/python3",
            ) from error
        found = re.search(r"edgessl-python (\d+) (\d+) (.*)", said)
        if found is None:
            raise EdgeSSLError(f"{wanted} on {self.shell.where} is not Python: {said[:80]!r}")
        if (int(found[1]), int(found[2])) < OLDEST_PYTHON:
            raise EdgeSSLError(
                f"{wanted} on {self.shell.where} is Python {found[1]}.{found[2]}; 3.8 or newer is "
                "needed",
                hint="name a newer one: edgessl devices add NAME ... --python /path/to/python3",
            )
        return found[3].strip() or wanted

    @cached_property
    def runtimes(self) -> dict[str, str]:
        """Private runtimes on the board: name to absolute folder; this machine needs none."""
        if not self.board.address:
            return {}
        listing = (
            "import glob, os, sys; print(*('edgessl-runtime ' + p for p in "
            "glob.glob(os.path.join(sys.argv[1], '*', 'edgessl.json'))), sep='\\n')"
        )
        folder = f"{self.shell.home}/runtimes"
        said = self.shell.run([self.python, "-c", listing, folder], timeout_s=FACTS_TIMEOUT_S)
        paths = re.findall(r"^edgessl-runtime (.+)/edgessl\.json$", said, re.MULTILINE)
        return {path.rsplit("/", 1)[1]: path for path in paths}

    def prepare(self, say: Progress) -> None:
        """Bring what a runtime needs on this kind of board; most boards have a Python."""

    def refresh(self) -> None:
        """Forget what the board told, because its software has changed."""
        for name in ("runtimes", "_facts"):
            self.__dict__.pop(name, None)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        # with all private runtimes, so that their versions are told, too
        folders = ":".join(self.runtimes.values())
        private = ["env", f"PYTHONPATH={folders}"] if folders else []
        return ask_facts(self.shell, [*private, self.python])


def ask_facts(shell: Shell, command: Sequence[str], *options: str) -> dict[str, Any]:
    """Run the agent's ``facts`` on a board.

    Args:
        shell: How to reach it.
        command: How Python is started there.
        options: ``--runtimes`` to import each runtime, too.

    Raises:
        EdgeSSLError: The agent told nothing.
    """
    remote = agent_name()  # stays until the shell is closed: a bench needs it next
    shell.put(agent_file(), remote)
    text = shell.run([*command, remote, "facts", *options], timeout_s=FACTS_TIMEOUT_S)
    listener = Listener(shell.where)
    for line in text.splitlines():
        event = listener.take(line)
        if event is not None and event["k"] == "facts":
            return {name: value for name, value in event.items() if name not in ("k", "t")}
    raise EdgeSSLError(f"the agent on {shell.where} told no facts: {text[:200]!r}")


def mask_of(cores: Iterable[int]) -> str:
    """Return cores as the mask that ``taskset`` takes, in hexadecimal digits."""
    return f"{sum(1 << core for core in set(cores)):x}"


def device_id(facts: Mapping[str, Any]) -> str:
    """Return ``cpu-model-4c-1a2b3c``: safe as a folder name, without host or user name."""
    noise = r"\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*$"
    model = re.sub(noise, " ", str(facts["board"] or facts["cpu"]), flags=re.IGNORECASE)
    name = f"{slug(model, 32) or 'machine'}-{facts['cores']}c-{facts['host_hash']}"
    return slug(name, 80)

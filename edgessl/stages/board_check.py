"""What a board is, what runs there, and what is missing, for ``edgessl devices check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError
from edgessl.devices import DEVICES, setup
from edgessl.devices.base import Board, CommandFailed, Device
from edgessl.devices.linux import LinuxDevice, ask_facts
from edgessl.devices.plain import shown
from edgessl.devices.runtimes import RUNTIMES


def check(board: Board, reporter: Reporter) -> dict[str, Any]:
    """Look at a board; every text in the answer can be printed.

    Raises:
        BoardUnreachable: It did not answer.
        EdgeSSLError: No Python on it.
    """
    device: Device = DEVICES.load(board.kind)(board)
    head = {"name": board.name or None, "kind": board.kind, "address": board.address or None}
    try:
        if board.kind == "browser":
            from edgessl.stages.browser_setup import look

            return head | look()
        assert isinstance(device, LinuxDevice)
        reporter.say(f"reaching {device.shell.where}")
        facts = dict(device.facts())
        reporter.say("trying the runtimes there")
        # a phone tells what it is without a Python, too
        found = _runtimes(device, board) if facts.get("python") else _none(board)
        return head | {
            "id": device.id, "mismatch": shown(device.traits.mismatch(facts), 200) or None,
            "facts": printable(facts), "runtimes": found, "formats": _formats(found),
            "not_observable": printable(facts.get("not_observable", [])),
        }  # fmt: skip
    finally:
        device.close()


def summary(facts: Mapping[str, Any]) -> str:
    """Return one line: what the board is."""
    python = f"Python {facts.get('python')}" if facts.get("python") else "no Python yet"
    parts = (facts.get("board") or facts.get("product") or facts.get("cpu"), facts.get("os"),
             python, facts.get("machine"))  # fmt: skip
    return ", ".join(shown(str(part)) for part in parts if part)


def printable(value: Any) -> Any:
    """Return JSON values of a board with texts that can be printed."""
    if isinstance(value, str):
        return shown(value, 200)
    if isinstance(value, Mapping):
        return {shown(str(key)): printable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [printable(part) for part in value]
    return value


def _none(board: Board) -> list[dict[str, Any]]:
    """Return the rows of a board without a Python: nothing runs there."""
    return [_row(name, board, {}, "nowhere") for name in RUNTIMES if name != "tensorrt"]


def _runtimes(device: LinuxDevice, board: Board) -> list[dict[str, Any]]:
    """Import every runtime of a board, each private one on its own, and say what came of it."""
    private = setup.installed(device)
    try:
        said = ask_facts(device.shell, [device.python], "--runtimes").get("opened")
        crash = ""
    except CommandFailed as error:  # native code that dies at import takes the agent with it
        said, crash = {}, shown(error.message, 200)
    packages = device.facts().get("runtimes", {})
    rows = []
    for name, runtime in RUNTIMES.items():
        told = said.get(name) if isinstance(said, Mapping) else None
        told, where = told if isinstance(told, Mapping) else {}, "system"
        if name in private:
            where = "private"
            try:
                told = setup.opened(device, name, private[name].folder)
            except EdgeSSLError as error:
                told = {"error": error.message}
        elif crash and any(package in packages for package in runtime.packages):
            told = {"error": crash}
        if told or name != "tensorrt" or board.kind == "jetson":  # comes with JetPack only
            rows.append(_row(name, board, told, where))
    return rows


def _row(name: str, board: Board, told: Mapping[str, Any], where: str) -> dict[str, Any]:
    problem = shown(str(told.get("error", "")), 200)
    runs = bool(told) and not problem
    return {
        "runtime": name, "formats": list(RUNTIMES[name].formats), "runs": runs,
        "version": shown(str(told.get("version"))) if runs else None,
        "where": where if told else None,
        "providers": printable(told.get("providers", []))[:20] if runs else [],
        "problem": problem or None,
        "fix": None if runs else _fix(name, board),
    }  # fmt: skip


def _fix(runtime: str, board: Board) -> str:
    if runtime == "tensorrt":
        return "on the Jetson: sudo apt-get install nvidia-jetpack"
    if not board.address:
        return f"pip install 'edgessl[{RUNTIMES[runtime].extra}]'"
    return f"edgessl devices setup {board.name or 'NAME'} --runtime {runtime}"


def _formats(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the runtimes that run each format on the board."""
    formats = dict.fromkeys(form for row in rows for form in row["formats"])
    return {
        form: [row["runtime"] for row in rows if form in row["formats"] and row["runs"]]
        for form in formats
    }

"""The boards of the user: which there are, and what is brought to them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError, UsageProblem
from edgessl.devices import DEVICES, boards, setup
from edgessl.devices.base import Board, Device
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.plain import shown
from edgessl.devices.runtimes import RUNTIMES
from edgessl.devices.wheels import NoWheel
from edgessl.stages.board_check import summary

# what `devices setup` brings without being asked for more; OpenVINO is large and seldom the fastest
USUAL = ("onnxruntime", "litert")


def add(board: Board, *, check: bool, reporter: Reporter) -> dict[str, Any]:
    """Write a board into the file of boards, after having reached it.

    Raises:
        UsageProblem: A wrong name, kind or address, or a board of another kind.
        BoardUnreachable: It did not answer; nothing is written.
    """
    boards.check_name(board.name)
    DEVICES[board.kind]
    boards.refuse_address(board)
    if board.name in boards.added_boards():
        raise UsageProblem(
            f"a board called '{board.name}' is there already",
            hint=f"choose another name, or first: edgessl devices remove {board.name}",
        )
    here = boards.needs_no_address(board.kind) or boards.is_this_machine(board.kind)
    if not board.address and not here:
        raise UsageProblem(
            f"where is the board? A board of the kind '{board.kind}' has an address",
            hint=boards.add_line(board.kind, board.name),
        )
    device: Device = DEVICES.load(board.kind)(board)  # reads the address, reaches nothing
    facts: Mapping[str, Any] = {}
    identity = ""
    try:
        if check and isinstance(device, LinuxDevice):
            reporter.say(f"reaching {device.shell.where}")
            facts, identity = device.facts(), device.id
            if reason := device.traits.mismatch(facts):
                raise UsageProblem(
                    f"this is not a board of the kind '{board.kind}': {shown(reason, 200)}",
                    hint=f"{boards.add_line('ssh', board.name)} (or --no-check)",
                )
    finally:
        device.close()
    boards.add_board(board)
    return {
        "board": asdict(board), "file": str(boards.boards_file()), "reached": bool(facts),
        "id": identity or None, "is": summary(facts) if facts else None,
    }  # fmt: skip


def listed() -> dict[str, Any]:
    """Return the added boards, and the kinds that there are; nothing is reached."""
    kinds = [
        {"kind": name, "summary": entry.summary, "address": entry.facts.get("address", "")}
        for name, entry in DEVICES.entries.items()
    ]
    found = [asdict(board) for board in boards.added_boards().values()]
    return {"boards": found, "kinds": kinds, "file": str(boards.boards_file())}


def remove(name: str) -> dict[str, Any]:
    """Forget a board; what is on it stays there."""
    return {"board": asdict(boards.remove_board(name)), "file": str(boards.boards_file())}


def chosen(name: str | None) -> Board:
    """Return the board that a command is about: the one named, else the only one, else this.

    Raises:
        UsageProblem: No such board, or several to choose from.
    """
    if name is not None:
        return boards.resolve(name)
    added = list(boards.added_boards().values())
    if len(added) > 1:
        raise UsageProblem(
            f"{len(added)} boards were added: {', '.join(b.name for b in added)}",
            hint=f"name one: edgessl devices check {added[0].name}",
        )
    return added[0] if added else boards.resolve("local")


def bring(
    name: str,
    runtimes: Sequence[str],
    *,
    given: Sequence[Path] = (),
    upgrade: bool = False,
    reporter: Reporter,
) -> tuple[dict[str, Any], list[EdgeSSLError]]:
    """Bring runtimes to a board.

    Args:
        name: Board or kind.
        runtimes: Their names; empty for those that are usual and not there.
        given: Wheels of the user.
        upgrade: Look for newer wheels of what is there.
        reporter: Told what is being done.

    Returns:
        What was done for each, and what could not be; a runtime that was not asked for by name
        and that nobody publishes for the board is no error, if another one is there.
    """
    board = boards.resolve(name)
    if board.kind == "browser":
        from edgessl.stages.browser_setup import bring as bring_to_browser

        return bring_to_browser(reporter), []
    device: Device = DEVICES.load(board.kind)(board)
    rows: list[dict[str, Any]] = []
    errors: list[EdgeSSLError] = []
    try:
        assert isinstance(device, LinuxDevice)
        device.prepare(reporter.say)
        wanted = runtimes or _of_wheels(given) or _usual(board, device)
        for runtime in wanted:
            began = time.monotonic()
            try:
                made, new = setup.set_up(
                    device, runtime, given=given, upgrade=upgrade, say=reporter.say
                )
            except NoWheel as error:
                errors.append(error)
                rows.append(
                    {"runtime": runtime, "state": "no wheel", "problem": error.message,
                     "next": error.hint}
                )  # fmt: skip
                continue
            seconds = round(time.monotonic() - began, 1)
            state = "new" if new else "was there"
            rows.append(asdict(made) | {"state": state, "seconds": seconds})
        on_board = [] if rows else sorted(device.facts().get("runtimes", {}))
    finally:
        device.close()
    if not runtimes and any(row["state"] != "no wheel" for row in rows):
        errors = []
    result = {"board": asdict(board), "runtimes": rows, "on_the_system": on_board}
    return result, errors


def take_away(name: str, runtimes: Sequence[str]) -> dict[str, Any]:
    """Remove private runtimes from a board; all of them where none is named."""
    board = boards.resolve(name)
    device: Device = DEVICES.load(board.kind)(board)
    try:
        if not isinstance(device, LinuxDevice) or not board.address:
            raise UsageProblem(
                f"nothing was set up on '{name}' that could be removed",
                hint="packages of this machine are removed with pip",
            )
        wanted = list(runtimes) or sorted(setup.installed(device))
        rows = [
            {"runtime": r, "state": "removed" if setup.remove(device, r) else "was not there"}
            for r in wanted
        ]
    finally:
        device.close()
    return {"board": asdict(board), "runtimes": rows}


def check_runtimes(names: Sequence[str]) -> None:
    """Refuse names of runtimes that are not in the table."""
    for name in names:
        if name not in RUNTIMES:
            raise UsageProblem(f"unknown runtime '{name}'", hint=f"known: {', '.join(RUNTIMES)}")


def _usual(board: Board, device: LinuxDevice) -> list[str]:
    """Return what is worth having on a board and neither installed nor brought already."""
    packages = device.facts().get("runtimes", {})
    there = setup.installed(device)
    usual = USUAL[:1] if board.kind == "jetson" else USUAL
    return [
        name for name in usual
        if name in there or not any(p in packages for p in RUNTIMES[name].packages)
    ]  # fmt: skip


def _of_wheels(given: Sequence[Path]) -> list[str]:
    """Return the runtimes that given wheels belong to.

    Raises:
        UsageProblem: None of them is one of a runtime.
    """
    from edgessl.devices.wheels import distribution

    names = {distribution(path) for path in given}
    found = [r for r, runtime in RUNTIMES.items() if names & set(runtime.packages)]
    if given and not found:
        raise UsageProblem(
            f"none of the wheels is a runtime: {', '.join(path.name for path in given)}",
            hint="name one of a runtime, for example onnxruntime_gpu-*.whl",
        )
    return found

"""The Python API of ``edgessl devices``; part of :mod:`edgessl.api`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgessl.api_light import Finding
from edgessl.core.console import Reporter
from edgessl.core.errors import UsageProblem

__all__ = ["devices_add", "devices_check", "devices_list", "devices_remove", "devices_setup"]


def devices_add(
    name: str,
    *,
    kind: str,
    address: str = "",
    python: str = "",
    check: bool = True,
    reporter: Reporter | None = None,
) -> Finding:
    """Write a board into the file of boards, after having reached it.

    Args:
        name: What it is called from now on: small letters, digits, ``.``, ``_``, ``-``.
        kind: See ``edgessl list devices``.
        address: ``ssh://user@board``, ``user@board``, an alias of the SSH configuration, ``adb``,
            ``adb:serial``.
        python: The interpreter on the board; empty looks for one.
        check: Reach it first; an unreachable board is not written then.
        reporter: Speaks to the user.

    Raises:
        UsageProblem: A wrong name, kind or address, or a board of another kind.
        BoardUnreachable: It did not answer.
    """
    from edgessl.devices.base import Board
    from edgessl.stages import boards

    board = Board(kind, address, name, python)
    result = boards.add(board, check=check, reporter=reporter or Reporter())
    return Finding("devices add", result, f"edgessl devices check {name}")


def devices_list() -> Finding:
    """Return the boards that were added; nothing is reached."""
    from edgessl.devices.boards import add_line
    from edgessl.stages import boards

    result = boards.listed()
    first = next(iter(result["boards"]), None)
    after = f"edgessl devices check {first['name']}" if first else add_line("ssh")
    return Finding("devices list", result, after)


def devices_remove(name: str) -> Finding:
    """Forget a board; what was brought to it stays there.

    Raises:
        UsageProblem: No such board.
    """
    from edgessl.stages import boards

    return Finding("devices remove", boards.remove(name), "edgessl devices list")


def devices_check(name: str | None = None, *, reporter: Reporter | None = None) -> Finding:
    """Look at a board: what it is, what runs there, what is missing.

    Args:
        name: Name or kind; None is the only board that was added, else this machine.
        reporter: Speaks to the user.

    Raises:
        UsageProblem: No such board, or several to choose from.
        BoardUnreachable: It did not answer.
        EdgeSSLError: No Python on it.
    """
    from edgessl.stages.board_check import check
    from edgessl.stages.boards import chosen

    result = check(chosen(name), reporter or Reporter())
    runs = any(row["runs"] for row in result["runtimes"])
    named = result["name"] or result["kind"]
    fixes = [row["fix"] for row in result["runtimes"] if row["fix"]]
    after = f"edgessl bench last --device {named}" if runs or not fixes else fixes[0]
    return Finding("devices check", result, after)


def devices_setup(
    name: str,
    *,
    runtimes: Sequence[str] = (),
    wheels: Sequence[Path] = (),
    upgrade: bool = False,
    remove: bool = False,
    reporter: Reporter | None = None,
) -> Finding:
    """Bring runtimes into a private folder on a board, or take them away again.

    The wheels are fetched on this machine, by its pip; the board needs no network.

    Args:
        name: Name or kind.
        runtimes: ``onnxruntime``, ``litert``, ``openvino``; empty means the usual ones.
        wheels: Wheels of your own, taken before those of the package index.
        upgrade: Look for newer wheels of what is there.
        remove: Take away instead: those named, else all that were brought.
        reporter: Speaks to the user.

    Returns:
        ``errors`` holds a NoWheel for each runtime that nobody publishes for the board.

    Raises:
        UsageProblem: No such board or runtime.
        BoardUnreachable: No connection, or it was lost.
        DiskFull: The board has no room.
        EdgeSSLError: Fetching failed, or a runtime does not run there.
    """
    from edgessl.stages import boards

    boards.check_runtimes(runtimes)
    if remove:
        if wheels or upgrade:
            raise UsageProblem(
                "--remove goes with neither --wheel nor --upgrade",
                hint=f"edgessl devices setup {name} --remove",
            )
        return Finding(
            "devices setup", boards.take_away(name, runtimes), f"edgessl devices check {name}"
        )
    result, errors = boards.bring(
        name, runtimes, given=wheels, upgrade=upgrade, reporter=reporter or Reporter()
    )
    after = f"edgessl devices check {name}"
    return Finding("devices setup", result, after, tuple(errors))

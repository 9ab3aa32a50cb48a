"""Any Linux board behind SSH."""

from __future__ import annotations

from edgessl.devices.base import Board
from edgessl.devices.linux import LinuxDevice


def open_board(board: Board) -> LinuxDevice:
    """Return a board about which nothing is known but its address, or this machine.

    Raises:
        UsageProblem: The address is not one.
    """
    from edgessl.devices.address import open_shell

    return LinuxDevice(board, open_shell(board))

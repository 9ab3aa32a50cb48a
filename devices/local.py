"""The workstation as a board: the same agent, in the same fresh processes."""

from __future__ import annotations

from edgessl.devices.base import Board
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.shell import LocalShell


def open_board(board: Board) -> LinuxDevice:
    """Return the machine that edgessl runs on, with the Python that runs it."""
    return LinuxDevice(board, LocalShell())

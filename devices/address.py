"""Addresses of boards, and the shell that reaches each."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
from dataclasses import dataclass

from edgessl.core.errors import UsageProblem
from edgessl.devices.base import Board, Shell

SPELLINGS = (
    "write user@host, ssh://user@host:2222, a Host of your ~/.ssh/config, adb, or adb:SERIAL"
)
USER = r"[A-Za-z0-9_.][A-Za-z0-9_.$+-]*"
NAME = r"[^\s@:/\\\[\]'\"`$;&|<>()*?!#{}-][^\s@:/\\\[\]'\"`$;&|<>()*?!#{}]*"
PLAIN = re.compile(rf"(?:(?P<user>{USER})@)?(?P<host>\[[^\]@\s]+\]|{NAME})(?::(?P<port>\d+))?/?")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """A board behind SSH.

    Attributes:
        host: Name, number, or a ``Host`` of the user's SSH configuration.
        user: Empty for what the configuration says.
        port: 0 for what the configuration says.
    """

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        at = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{at}{host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class AdbAddress:
    """A phone behind adb.

    Attributes:
        serial: As ``adb devices`` prints it; None for the only one there.
    """

    serial: str | None = None


def parse(text: str) -> SshAddress | AdbAddress:
    """Read an address.

    Args:
        text: ``user@host``, ``host``, ``ssh://user@host:port``, IPv6 in brackets where a port or
            ``ssh://`` stands, ``adb``, ``adb:serial``.

    Raises:
        UsageProblem: None of these; the hint has the spelling that is meant, where it is known.
    """
    if text == "adb":
        return AdbAddress()
    if text.startswith("adb:"):
        serial = text.removeprefix("adb:").removeprefix("//")
        if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.:%\[\]-]*", serial):
            raise UsageProblem(f"'{text}' names no phone", hint="adb:SERIAL, as in `adb devices`")
        return AdbAddress(serial)
    return _ssh(text)


def _ssh(text: str) -> SshAddress:
    is_url = text.startswith("ssh://")
    rest = text.removeprefix("ssh://")
    user, _, host = rest.rpartition("@")
    if not is_url and _is_ipv6(host):
        rest = f"{user}@[{host}]" if user else f"[{host}]"  # as ssh itself takes it
    found = PLAIN.fullmatch(rest)
    hint = SPELLINGS
    if found is None:
        if re.match(r"[^@/]*:[^@]*@", rest):
            text = re.sub(r":[^:@/][^@]*@", ":...@", text)
            hint = "passwords are not taken: let a key in once with ssh-copy-id USER@HOST"
        elif path := re.fullmatch(r"([^:/\s]+)(?::(?!//)|/)\D\S*", rest):
            hint = f"a folder is not part of an address: {path[1]}"
        raise UsageProblem(f"'{_printable(text)}' is not the address of a board", hint=hint)
    port = int(found["port"] or 0)
    host = found["host"].strip("[]")
    if found["host"].startswith("[") and not _is_ipv6(host):
        raise UsageProblem(f"'{_printable(text)}': {host} is not an IPv6 address", hint=hint)
    if found["port"] and not is_url:
        right = SshAddress(host, found["user"] or "", port)
        raise UsageProblem(f"'{text}' has a port, and ssh takes none there", hint=f"write {right}")
    if found["port"] and not 0 < port < 65536:
        raise UsageProblem(f"'{text}': port {port} is not between 1 and 65535", hint=hint)
    return SshAddress(host, found["user"] or "", port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def open_shell(board: Board) -> Shell:
    """Return the shell that reaches a board; it connects on first use.

    ``EDGESSL_SSH`` is ``openssh`` or ``asyncssh`` to have that one; otherwise the ``ssh`` program
    where there is one.

    Raises:
        UsageProblem: The address is not one.
        MissingExtra: Neither an ``ssh`` program nor asyncssh is installed here.
    """
    if not board.address:
        from edgessl.devices.shell import LocalShell

        return LocalShell()
    address = parse(board.address)
    if isinstance(address, AdbAddress):
        from edgessl.devices.adb import AdbShell

        return AdbShell(address.serial)
    wanted = os.environ.get("EDGESSL_SSH") or ("openssh" if shutil.which("ssh") else "asyncssh")
    if wanted == "openssh":
        from edgessl.devices.openssh import OpenSshShell

        return OpenSshShell(address)
    if wanted == "asyncssh":
        from edgessl.devices.ssh_async import AsyncSshShell

        return AsyncSshShell(address)
    raise UsageProblem(f"EDGESSL_SSH is '{wanted}'", hint="openssh or asyncssh, or leave it unset")

"""The adb program of the workstation: where it is, which phones it sees, and why it sees none.

Nothing here stops or restarts the adb server: it may be the user's, with work of their own.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgessl.core.errors import BoardUnreachable, MissingExtra
from edgessl.devices.plain import shown

ANSWER_S = 20.0  # adb itself gives up on a silent network address after 10 s
POLL_S = 0.5
DEFAULT_PORT = 5555
# states that may turn into "device" by themselves, or by a tap on the phone
PASSING = ("unauthorized", "authorizing", "connecting", "offline")
LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Phone:
    """One line of ``adb devices -l``.

    Attributes:
        serial: How adb tells it from others.
        state: ``device`` when it can be used; ``unauthorized``, ``offline``, ...
        model: As the phone says, "" when it does not yet.
    """

    serial: str
    state: str
    model: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.serial, self.model, f"({self.state})") if part)


def find_adb(environment: Mapping[str, str] = os.environ) -> str:
    """Return the adb program: of the PATH, of the Android SDK, or inside the package adbutils.

    Raises:
        MissingExtra: It is nowhere.
    """
    if found := shutil.which("adb", path=environment.get("PATH")):
        return found
    name = "adb.exe" if os.name == "nt" else "adb"
    folders = [
        Path(root, "platform-tools")
        for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT")
        if (root := environment.get(variable))
    ]
    package = importlib.util.find_spec("adbutils")  # found, not imported: only its file is used
    if package and package.origin:
        folders.append(Path(package.origin).parent / "binaries")
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    raise MissingExtra(
        "the program adb is neither in the PATH nor under ANDROID_HOME",
        hint="pip install 'edgessl[android]' (brings one), or: sudo apt install adb, "
        "or: brew install android-platform-tools",
    )


def ask(adb: str, argv: Sequence[str], timeout_s: float = ANSWER_S) -> tuple[int, str]:
    """Run adb; return its exit status and everything it printed, without control characters.

    Raises:
        BoardUnreachable: It did not end within ``timeout_s``; it is killed.
    """
    try:
        done = subprocess.run(
            [adb, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise BoardUnreachable(
            f"'adb {' '.join(argv)}' did not end within {timeout_s:g} s",
            hint="unplug the phone and plug it in again",
        ) from None
    except OSError as error:
        raise BoardUnreachable(f"cannot start {adb}: {error.strerror or error}") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return done.returncode, "\n".join(shown(line, LONGEST_LINE) for line in lines)


def start_server(adb: str) -> None:
    """Start the adb server unless one runs.

    A server keeps the descriptors of whoever started it, so that waiting for the end of its
    output would never end: it gets none.

    Raises:
        BoardUnreachable: It did not start.
    """
    quiet = subprocess.DEVNULL
    try:
        status = subprocess.run(
            [adb, "start-server"],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            timeout=ANSWER_S,
            check=False,
            start_new_session=True,
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardUnreachable(f"the adb server did not start: {error}") from error
    if status:
        raise BoardUnreachable(
            f"the adb server did not start (status {status})",
            hint="see what 'adb start-server' prints; another program may hold port 5037",
        )


def phones(adb: str) -> list[Phone]:
    """Return what the adb server sees."""
    _, text = ask(adb, ["devices", "-l"])
    found = []
    for line in text.splitlines():
        # a state is one word but for "no permissions (...); see [...]"
        match = re.match(r"(\S+) +(no permissions|\S+)(.*)", shown(line, LONGEST_LINE))
        if match and not line.startswith(("List of", "*", "adb")):
            model = re.search(r"\bmodel:(\S+)", match[3])
            found.append(Phone(match[1], match[2], model[1] if model else ""))
    return found


def network_address(serial: str) -> str | None:
    """Return ``host:port`` for a serial that names a network address, else None."""
    if re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^:\s]+):\d{1,5}", serial):
        return serial
    try:
        address = ipaddress.ip_address(serial)
    except ValueError:
        return None
    return f"[{serial}]:{DEFAULT_PORT}" if address.version == 6 else f"{serial}:{DEFAULT_PORT}"


def reach(
    adb: str,
    serial: str | None,
    patience_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return the serial of a phone that can be used.

    Args:
        adb: The program.
        serial: The phone; None when there is only one. A network address is connected to first.
        patience_s: How long an unauthorised or offline phone may take to become usable.
        sleep: Called between two looks.

    Raises:
        BoardUnreachable: None, several, or one that did not become usable; the hint says which
            tap, plug or command helps.
    """
    start_server(adb)
    if serial and (address := network_address(serial)):
        serial = address
        if not any(p.serial == serial and p.state == "device" for p in phones(adb)):
            _connect(adb, serial)
    phone = Phone(serial or "", "not there")
    for _ in range(max(1, round(patience_s / POLL_S))):
        phone = _choose(phones(adb), serial)
        if phone.state == "device":
            return phone.serial
        if phone.state not in PASSING:
            break
        sleep(POLL_S)
    raise unusable(phone)


def _connect(adb: str, address: str) -> None:
    # its exit status is 0 on a refusal too: only the text tells
    _, text = ask(adb, ["connect", address])
    if not re.search(r"connected to|failed to authenticate", text):
        reason = text.splitlines()[-1] if text else "adb said nothing"
        raise BoardUnreachable(
            f"no connection to adb:{address}: {reason}",
            hint="on the phone: Developer options > Wireless debugging shows the address and "
            "port; the first time also: adb pair HOST:PORT",
        )


def _choose(seen: Sequence[Phone], serial: str | None) -> Phone:
    if serial is not None:
        for phone in seen:
            if phone.serial == serial:
                return phone
        others = "; adb sees " + ", ".join(map(str, seen)) if seen else "; adb sees no phone"
        raise BoardUnreachable(f"no phone adb:{serial}{others}", hint=PLUG)
    if not seen:
        raise BoardUnreachable("adb sees no phone", hint=PLUG)
    usable = [phone for phone in seen if phone.state == "device"]
    if len(usable or seen) > 1:
        raise BoardUnreachable(
            f"adb sees {len(seen)} phones: {', '.join(map(str, seen))}",
            hint="name one: " + " or ".join(f"--address adb:{p.serial}" for p in usable or seen),
        )
    return (usable or seen)[0]


PLUG = (
    "plug the phone in, turn on Settings > Developer options > USB debugging (tap the build "
    "number seven times if there are no developer options), and look at 'adb devices'"
)
ADVICE = {
    "unauthorized": "unlock the phone and tap 'Allow' under 'Allow USB debugging?'; if it does "
    "not ask: Developer options > Revoke USB debugging authorizations, then plug it in again",
    "authorizing": "unlock the phone and plug it in again",
    "offline": "plug the phone in again; over a network: adb disconnect, then once more",
    "no permissions": "this user may not open the USB device: sudo apt install "
    "android-sdk-platform-tools-common, add yourself to the group plugdev, log in again",
}  # fmt: skip


def unusable(phone: Phone) -> BoardUnreachable:
    """Return the error for a phone that adb sees and cannot use."""
    advice = ADVICE.get(phone.state, "start the phone normally and unlock it")
    return BoardUnreachable(f"adb:{phone.serial} is '{phone.state}'", hint=advice)

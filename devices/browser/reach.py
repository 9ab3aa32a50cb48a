"""How the browser gets to the page: on this machine, over the network, or through adb."""

from __future__ import annotations

import io
import ipaddress
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from edgessl.core.errors import BoardUnreachable, UsageProblem
from edgessl.devices.adb import AdbShell
from edgessl.devices.adb_client import ask, find_adb, reach
from edgessl.devices.browser.certificate import Certificate, make_certificate
from edgessl.devices.browser.heard import text_of
from edgessl.devices.browser.server import PageServer

Tell = Callable[[str], None]
SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
SYNTAX = "addresses of a browser: none (this machine), lan, lan:192.168.1.5, adb, adb:serial"
PATIENCE_S = 20.0  # how long a user may take to allow the connection on the phone
ADB_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Place:
    """Where the browser is.

    Attributes:
        kind: ``here``, ``lan`` or ``adb``.
        detail: The address of this machine on the network, or the serial of the phone; empty for
            the only one.
    """

    kind: str
    detail: str = ""


def place_of(address: str) -> Place:
    """Read the address of a board of kind ``browser``.

    Raises:
        UsageProblem: It means nothing.
    """
    kind, _, detail = address.partition(":")
    if address == "":
        return Place("here")
    if kind == "adb" and (detail == "" or SERIAL.fullmatch(detail)) and address != "adb:":
        return Place("adb", detail)
    if address == "lan":
        return Place("lan")
    if kind == "lan":
        try:
            return Place("lan", str(ipaddress.IPv4Address(detail)))
        except ValueError:
            pass
    raise UsageProblem(f"{address!r} is not an address of a browser", hint=SYNTAX)


def own_address() -> str:
    """Return the address of this machine on its network; nothing is sent to find it.

    Raises:
        UsageProblem: There is no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documents; only the route is looked up
            found = str(probe.getsockname()[0])
        except OSError:
            found = "127.0.0.1"
    if found.startswith(("127.", "0.")):
        raise UsageProblem(
            "this machine has no address on a network that could be found",
            hint="name it: --address lan:192.168.1.5, or use a cable: --address adb",
        )
    return found


class Visit:
    """A server, and the way to it; closing undoes both.

    Args:
        place: Where the browser is.
        tell: Gets the lines that the user must see.

    Raises:
        BoardUnreachable: The address is not one of this machine, or adb does not reach the phone.
        MissingExtra: Nothing here can make a certificate.
    """

    def __init__(self, place: Place, tell: Tell) -> None:
        if place == Place("lan"):
            place = Place("lan", own_address())
        self.place = place
        self._undo: tuple[str, list[str]] | None = None
        certificate = make_certificate(place.detail) if place.kind == "lan" else None
        host = place.detail if place.kind == "lan" else "127.0.0.1"
        try:
            self.server = PageServer(host, certificate)
        except OSError as error:
            raise BoardUnreachable(
                f"this machine cannot serve a page at {host}: {error.strerror or error}",
                hint="name an address of this machine: --address lan:192.168.1.5",
            ) from error
        try:
            self._announce(tell, certificate)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server, and take back what adb was told."""
        self.server.close()
        if self._undo:
            with suppress(BoardUnreachable):  # a phone that was unplugged has forgotten it itself
                ask(*self._undo)

    def _announce(self, tell: Tell, certificate: Certificate | None) -> None:
        if self.place.kind == "adb":
            url = self._through_adb()
            tell("the page opens in the browser of the phone; if not, open this address there:")
            tell(f"  {url}")
            return
        url = self.server.url()
        if certificate is None:
            tell("open this address in a browser on this machine:")
            tell(f"  {url}")
            return
        tell("open this address in the browser of a phone or computer on this network:")
        tell(f"  {url}")
        tell(
            "the browser warns that it does not know the certificate, which was made for this run;"
        )
        tell("go on only if the SHA-256 fingerprint that it shows is")
        half = len(certificate.fingerprint) // 2 + 1
        tell(f"  {certificate.fingerprint[:half]}")
        tell(f"  {certificate.fingerprint[half:]}")
        tell(qr_code(url))

    def _through_adb(self) -> str:
        """Lead a port of the phone to this machine and open the page there; return its address."""
        adb = find_adb()
        serial = reach(adb, self.place.detail or None, PATIENCE_S)
        # 0: any port that is free on the phone; adb says which
        ports = ["tcp:0", f"tcp:{self.server.server_port}"]
        status, said = ask(adb, ["-s", serial, "reverse", *ports])
        if status or not said.strip().isdigit():
            raise BoardUnreachable(
                f"adb:{serial} leads no port to this machine: {said.strip()[-200:]}",
                hint="adb reverse needs Android 5 or newer; over a network use --address lan",
            )
        port = int(said)
        self._undo = adb, ["-s", serial, "reverse", "--remove", f"tcp:{port}"]
        url, shell = self.server.url("localhost", port), AdbShell(serial)
        try:
            view = ["am", "start", "-a", "android.intent.action.VIEW", "-d", url]
            opened = shell.run(view, timeout_s=ADB_TIMEOUT_S)
        finally:
            shell.close()
        if "Error" in opened:
            raise BoardUnreachable(
                f"the phone opened no browser: {text_of(opened)[-200:]}",
                hint="unlock it, and install a browser",
            )
        return url


def qr_code(text: str) -> str:
    """Return a QR code of block characters, or what to install for one."""
    try:
        import segno
    except ModuleNotFoundError:
        return "(pip install 'edgessl[browser]' shows a code here that a phone can read)"
    drawn = io.StringIO()
    segno.make(text, error="l").terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")

"""The web server of one run: the page and its files to one browser, and what that browser says.

Everything lies below a secret part of the address that is made anew for each run. Names are looked
up in a table, never in a folder, so there is no path to leave it by.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from edgessl.devices.browser.certificate import Certificate
from edgessl.devices.browser.line import Line, Refused

MAX_POST = 4 << 20
MAX_CONNECTIONS = 32
IDLE_S = 30.0  # of one connection
CHUNK = 1 << 20
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    # both make the page isolated: threads, and a clock with fine steps
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})")


class PageServer(ThreadingHTTPServer):
    """Serves until it is closed.

    Args:
        host: Address to listen on; the port is any free one.
        certificate: For HTTPS; None for HTTP.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS
    line: Line

    def __init__(self, host: str, certificate: Certificate | None = None) -> None:
        self.token = secrets.token_urlsafe(18)
        self.line = Line()
        self.files: dict[str, Path | bytes] = {}
        self.certificate = certificate
        self._open: set[socket.socket] = set()
        super().__init__((host, 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def url(self, host: str = "", port: int = 0) -> str:
        """Return the address of the page, with its secret part; as seen elsewhere, if given."""
        scheme = "https" if self.certificate else "http"
        place = f"{host or self.server_address[0]}:{port or self.server_port}"
        return f"{scheme}://{place}/{self.token}/"

    def offer(self, name: str, content: Path | bytes) -> str:
        """Serve a file under a name below the secret part; return the name."""
        self.files[name] = content
        return name

    def withdraw(self, names: Iterable[str]) -> None:
        """Serve these no more."""
        for name in names:
            self.files.pop(name, None)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self.shutdown()
        self.server_close()
        for connection in self._open.copy():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; its handshake waits for the thread of its own."""
        connection, address = self.socket.accept()
        connection.settimeout(IDLE_S)
        if self.certificate is not None:
            connection = self.certificate.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Refuse connections beyond what one browser needs."""
        return len(self._open) < MAX_CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over what a browser's own hanging up raises; answers have their own errors."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgessl", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        self._answer(self._file)

    def do_POST(self) -> None:
        self._answer(self._talk)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent: the address is a secret."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with words instead of the base class's page."""
        self.close_connection = True
        self._send(code, (message or explain or "refused").encode(), "text/plain; charset=utf-8")

    def _answer(self, what: Any) -> None:
        try:
            what()
        except Refused as refusal:
            self.send_error(refusal.status, str(refusal))
        except (OSError, ssl.SSLError):
            self.close_connection = True  # the browser hung up

    def _name(self) -> str:
        """Return what is asked for below the secret part."""
        secret, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        server = cast("PageServer", self.server)
        if not slash or not hmac.compare_digest(secret.encode(), server.token.encode()):
            raise Refused(404, "This address is not valid, or not any more.")
        return name

    def _file(self) -> None:
        name = self._name() or "index.html"
        content = cast("PageServer", self.server).files.get(name)
        if content is None:
            raise Refused(404, "no such file")
        mime = TYPES.get(Path(name).suffix, "application/octet-stream")
        if isinstance(content, bytes):
            self._send(200, content, mime)
            return
        with content.open("rb") as stream:
            size = content.stat().st_size
            begin, end = self._range(size)
            status = 200 if (begin, end) == (0, size) and "Range" not in self.headers else 206
            more = {"Content-Range": f"bytes {begin}-{end - 1}/{size}"} if status == 206 else {}
            self._head(status, end - begin, mime, more)
            stream.seek(begin)
            while begin < end and (piece := stream.read(min(CHUNK, end - begin))):
                self.wfile.write(piece)
                begin += len(piece)

    def _range(self, size: int) -> tuple[int, int]:
        asked = self.headers.get("Range")
        if asked is None:
            return 0, size
        match = RANGE.fullmatch(asked)
        begin, last = (int(match[1]), int(match[2])) if match else (1, 0)
        if not begin <= last < size:
            raise Refused(416, "no such range")
        return begin, last + 1

    def _talk(self) -> None:
        if self._name() != "talk":
            raise Refused(404, "no such place")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or len(length) > 15:
            raise Refused(411, "how long?")
        if int(length) > MAX_POST:
            raise Refused(413, f"at most {MAX_POST >> 20} MiB at once")
        answer = cast("PageServer", self.server).line.take(self.rfile.read(int(length)))
        self._send(200, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, body: bytes, mime: str) -> None:
        self._head(status, len(body), mime, {})
        self.wfile.write(body)

    def _head(self, status: int, length: int, mime: str, more: Mapping[str, str]) -> None:
        self.send_response(status)
        headers = HEADERS | {"Content-Type": mime, "Content-Length": str(length)} | dict(more)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

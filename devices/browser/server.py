"""The web server of one run: the page and its files to one browser, and what that browser says.

Everything lies below a secret part of the address that is made anew for each run. Names are looked
up in a table, never in a folder, so there is no path to leave it by.
"""

from __future__ import annotations

import hmac
import json
import queue
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from edgessl.devices.browser.certificate import Certificate

MAX_POST = 4 << 20
MAX_EVENTS = 5000  # in one post
MAX_WAITING = 64  # posts
MAX_CONNECTIONS = 32
IDLE_S = 30.0  # of one connection
FETCH_S = 3.0
QUIET_S = 90.0  # after that the browser is taken to be gone
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
CLIENT = re.compile(r"[0-9a-f]{16,64}")
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})")


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Line:
    """What goes back and forth with the one browser; used by many threads.

    Attributes:
        posts: The events of each of its posts, in order.
        order: What it is to do; it fetches the one that stands, by its number.
        fetched: Number of the last order that it was given.
    """

    posts: queue.Queue[list[dict[str, Any]]] = field(default_factory=queue.Queue)
    order: dict[str, Any] | None = None
    fetched: int = 0
    _client: str = ""
    _number: int = -1
    _heard: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def silent(self) -> bool:
        """Whether nothing was heard of the browser for so long that it must be gone."""
        return time.monotonic() - self._heard > QUIET_S

    @property
    def connected(self) -> bool:
        """Whether a browser is there."""
        return bool(self._client) and not self.silent

    def say(self, order: dict[str, Any]) -> int:
        """Give the browser something to do; return the number of the order."""
        with self._lock:
            number = (self.order or {}).get("id", 0) + 1
            self.order = order | {"id": number}
            return number

    def wait_until_fetched(self, number: int) -> None:
        """Wait until the browser has an order, but not long: it asks once a second."""
        until = time.monotonic() + FETCH_S
        while self.connected and self.fetched < number and time.monotonic() < until:
            time.sleep(0.05)

    def take(self, body: bytes) -> dict[str, Any]:
        """Take a post of the browser and return the answer to it.

        Raises:
            Refused: Malformed, or from another browser than the first.
        """
        client, number, events = _parsed(body)
        with self._lock:
            if self._client != client and self.connected:
                raise Refused(409, "another browser is connected")
            if self.posts.qsize() >= MAX_WAITING:
                raise Refused(429, "too much at once")
            if self._client != client:
                self._client, self._number = client, -1
            self._heard = time.monotonic()
            if number > self._number:  # else it came before, and its answer was lost
                self._number = number
                if events:
                    self.posts.put(events)
                if any(event["k"] == "bye" for event in events):
                    self._client = ""
            self.fetched = (self.order or {}).get("id", 0)
            return {"job": self.order}


def _parsed(body: bytes) -> tuple[str, int, list[dict[str, Any]]]:
    def refuse(text: str) -> Any:
        raise ValueError(f"the number {text}")

    try:
        post = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"not JSON: {str(error)[:200]}") from error
    if not isinstance(post, dict):
        raise Refused(400, "not an object")
    client, number, events = (post.get(name) for name in ("client", "number", "events"))
    if not isinstance(client, str) or not CLIENT.fullmatch(client):
        raise Refused(400, "no client")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
        raise Refused(400, "no number")
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise Refused(400, f"no list of at most {MAX_EVENTS} events")
    if not all(isinstance(e, dict) and isinstance(e.get("k"), str) for e in events):
        raise Refused(400, "an event without a kind")
    return client, number, events


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

    def url(self, host: str = "") -> str:
        """Return the address of the page, with its secret part."""
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{host or self.server_address[0]}:{self.server_port}/{self.token}/"

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

"""What goes back and forth between the server and the one browser; all of it is untrusted."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

MAX_EVENTS = 5000  # in one post
MAX_WAITING = 64  # posts
FETCH_S = 3.0
QUIET_S = 90.0  # after that the browser is taken to be gone
CLIENT = re.compile(r"[0-9a-f]{16,64}")


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

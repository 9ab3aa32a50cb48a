"""What the agent says and what ends it: JSON lines out, a heartbeat in."""

from __future__ import annotations

import json
import os
import select
import threading
import time
from typing import Any

START = time.monotonic()


class Failed(Exception):
    """A failure with a type that the workstation knows."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """JSON lines on a private descriptor; native code that prints to 1 lands on 2."""

    def __init__(self) -> None:
        self.descriptor = os.dup(1)
        os.dup2(2, 1)

    def send(self, kind: str, fields: dict[str, Any]) -> None:
        """Write one line."""
        event = {"k": kind, "t": round(time.monotonic() - START, 6)}
        event.update(fields)
        data = (json.dumps(event, separators=(",", ":")) + "\n").encode()
        while data:
            data = data[os.write(self.descriptor, data) :]


def end_with_input(silence_s: float | None) -> None:
    """End the process at end of file on descriptor 0, whatever native code is doing.

    Args:
        silence_s: End, too, when nothing was read for so long: a connection can be cut without
            anybody closing it. None waits for ever.
    """

    def watch() -> None:
        while select.select([0], [], [], silence_s)[0] and os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

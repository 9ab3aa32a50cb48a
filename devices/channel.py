"""One program on the far side of a connection: bytes in, bytes out, errors, and an end."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from typing import IO, Protocol

CHUNK = 65536
BACKLOG = 64  # chunks read ahead; more waits on the board
TAIL_BYTES = 32768


class Channel(Protocol):
    """What a transport gives for one command."""

    def send(self, data: bytes) -> None:
        """Write to standard input.

        Raises:
            OSError: Nobody reads any more.
        """
        ...

    def end_input(self) -> None:
        """Close standard input; called twice is fine."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Return the next piece of standard output, ``b""`` at its end.

        Raises:
            TimeoutError: Nothing came in time.
        """
        ...

    def errors(self, timeout_s: float = 0.0) -> bytes:
        """Return the last of standard error; waits that long for its end."""
        ...

    def ended(self, timeout_s: float) -> bool:
        """Say whether the transport has let go of the program, waiting that long."""
        ...

    def kill(self) -> None:
        """Let go of the program at once."""
        ...


class Tail:
    """The last bytes of a flow, safe to read while it is written."""

    def __init__(self) -> None:
        self._held, self._lock = bytearray(), threading.Lock()
        self.over = threading.Event()

    def add(self, data: bytes) -> None:
        """Append, and forget what is older than ``TAIL_BYTES``."""
        with self._lock:
            self._held += data
            del self._held[:-TAIL_BYTES]

    def read(self, timeout_s: float) -> bytes:
        """Return what is held, waiting for the end of the flow."""
        self.over.wait(timeout_s)
        with self._lock:
            return bytes(self._held)


class Pieces:
    """Standard output between the thread that receives and the one that reads."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue(BACKLOG)
        self._over, self._dropped = False, threading.Event()

    def add(self, data: bytes) -> None:
        """Hand over a piece, ``b""`` at the end; waits while the reader is behind."""
        while not self._dropped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(data, timeout=1)
                return

    def offer(self, data: bytes) -> bool:
        """Hand over a piece if there is room; false if not."""
        if not self._dropped.is_set():
            try:
                self._queue.put_nowait(data)
            except queue.Full:
                return False
        return True

    def take(self, timeout_s: float) -> bytes:
        """Return the next piece; the end comes again and again.

        Raises:
            TimeoutError: Nothing came in time.
        """
        if self._over:
            return b""
        if timeout_s < 0:  # also when there is more: a flow without end must not win
            raise TimeoutError
        try:
            piece = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        self._over = not piece
        return piece

    def drop(self) -> None:
        """Take no more, so that whoever hands over is never stuck."""
        self._dropped.set()


class ProcessChannel:
    """A client program (``ssh``) as a channel.

    Args:
        argv: The client and its arguments.
        stdin: ``subprocess.PIPE`` or ``DEVNULL``, or an open file whose content is sent.
    """

    def __init__(self, argv: list[str], stdin: int | IO[bytes]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we end it in order
        )
        self._pieces, self._tail = Pieces(), Tail()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for pump, pipe in (
            (self._pump_output, self._process.stdout),
            (self._pump_errors, self._process.stderr),
        ):
            threading.Thread(target=pump, args=(pipe,), daemon=True).start()

    def _pump_output(self, pipe: IO[bytes]) -> None:
        with pipe:
            while piece := pipe.read1(CHUNK):  # type: ignore[attr-defined]
                self._pieces.add(piece)
        self._pieces.add(b"")

    def _pump_errors(self, pipe: IO[bytes]) -> None:
        with pipe:
            while piece := pipe.read1(CHUNK):  # type: ignore[attr-defined]
                self._tail.add(piece)
        self._tail.over.set()

    def send(self, data: bytes) -> None:
        """Write to the client.

        Raises:
            OSError: It has ended.
        """
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise BrokenPipeError
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Close the client's standard input."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def read(self, timeout_s: float) -> bytes:
        """Return the next piece of output, ``b""`` at the end.

        Raises:
            TimeoutError: Nothing came in time.
        """
        return self._pieces.take(timeout_s)

    def errors(self, timeout_s: float = 0.0) -> bytes:
        """Return the last errors of the program and of the client itself."""
        return self._tail.read(timeout_s)

    def ended(self, timeout_s: float) -> bool:
        """Say whether the client ended, waiting that long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the client at once."""
        self._pieces.drop()
        self.end_input()
        self._process.kill()
        self._process.wait()

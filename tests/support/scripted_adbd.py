"""An adbd in Python that misbehaves on purpose; what it runs, it runs on this machine.

The protocol as in AOSP's ``packages/modules/adb/protocol.txt``, ``SERVICES.TXT`` and ``SYNC.TXT``:
24-byte headers, one WRTE in flight for each stream, ``shell,v2`` packets, the first version of the
sync service. Paths under ``/data/local/tmp`` lie in a folder of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little")
    for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
ON_PHONE = b"/data/local/tmp"
BLOCK = 64 * 1024


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        accepted_after_s: The user taps "Allow" so long after the question; None for never.
        asks: Whether the phone asks at all.
        shell_v2: Whether exit codes and standard error travel apart, as since Android 7.
        hang_on: A command with this text is never answered.
        drop_on: A command with this text runs, and the connection goes after its first output.
        drop_push_after: The connection goes after so many bytes of one pushed file.
        silent: Connections are taken and nothing is ever said.
    """

    accepted_after_s: float | None = 0.0
    asks: bool = False
    shell_v2: bool = True
    hang_on: bytes = b""
    drop_on: bytes = b""
    drop_push_after: int | None = None
    silent: bool = False


class Connection:
    """One adb server at the other end."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        faults: Faults,
        folder: Path,
    ) -> None:
        self.reader, self.writer, self.faults, self.folder = reader, writer, faults, folder
        self.streams: dict[int, Service] = {}
        self.last_id = 0

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        check = sum(data) & 0xFFFFFFFF
        header = struct.pack("<6I", command, first, second, len(data), check, command ^ 0xFFFFFFFF)
        self.writer.write(header + data)

    def drop(self) -> None:
        self.writer.transport.abort()

    async def serve(self) -> None:
        try:
            while True:
                header = await self.reader.readexactly(24)
                command, first, second, length, _, _ = struct.unpack("<6I", header)
                data = await self.reader.readexactly(length)
                if not self.faults.silent:
                    await self.handle(command, first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for service in self.streams.values():
                service.end()
            self.writer.close()

    async def handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            if self.faults.asks:
                self.send(AUTH, TOKEN, 0, os.urandom(20))
            else:
                self.welcome()
        elif command == AUTH and first == SIGNATURE:
            self.send(AUTH, TOKEN, 0, os.urandom(20))  # not a key that this phone knows
        elif command == AUTH and first == PUBLIC_KEY:
            if self.faults.accepted_after_s is not None:
                asyncio.get_running_loop().call_later(self.faults.accepted_after_s, self.welcome)
        elif command == OPEN:
            self.last_id += 1
            service = Service(self, self.last_id, first, data.rstrip(b"\0"))
            self.streams[self.last_id] = service
            self.send(OKAY, self.last_id, first)
            service.task = asyncio.create_task(service.run())
        elif command == WRTE and second in self.streams:
            self.streams[second].incoming.put_nowait(data)
            self.send(OKAY, second, first)
        elif command == OKAY and second in self.streams:
            self.streams[second].ready.set()
        elif command == CLSE and second in self.streams:
            self.streams.pop(second).end()

    def welcome(self) -> None:
        features = "shell_v2,cmd,fixed_push_mkdir" if self.faults.shell_v2 else "cmd"
        banner = f"device::ro.product.name=redfin;ro.product.model=Pixel 5;features={features}"
        self.send(CNXN, 0x01000001, 256 * 1024, banner.encode())


class Service:
    """One stream: a command, or the file service."""

    task: asyncio.Task[None]

    def __init__(self, connection: Connection, own: int, other: int, name: bytes) -> None:
        self.connection, self.own, self.other, self.name = connection, own, other, name
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.ready.set()
        self.buffer = b""
        self.process: subprocess.Popen[bytes] | None = None
        self.transport: asyncio.SubprocessTransport | None = None

    def end(self) -> None:
        """What adbd does when the other end goes: hang up on the program."""
        self.task.cancel()
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGHUP)
        for number in (STDIN, STDOUT, STDERR) if self.transport else ():
            if pipe := self.transport.get_pipe_transport(number):
                pipe.close()

    async def write(self, data: bytes) -> None:
        await self.ready.wait()
        self.ready.clear()
        self.connection.send(WRTE, self.own, self.other, data)

    async def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.buffer += await self.incoming.get()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def run(self) -> None:
        kind, _, command = self.name.partition(b":")
        if kind == b"sync":
            await self.sync()
        elif self.connection.faults.hang_on and self.connection.faults.hang_on in command:
            await asyncio.Event().wait()
        elif kind.startswith(b"shell"):
            here = self.here(command)
            await (self.shell(here) if b"v2" in kind else self.terminal(here))
        await self.ready.wait()
        self.connection.send(CLSE, self.own, self.other)

    def here(self, text: bytes) -> bytes:
        return text.replace(ON_PHONE, os.fsencode(self.connection.folder))

    def there(self, text: bytes) -> bytes:
        return text.replace(os.fsencode(self.connection.folder), ON_PHONE)

    def drop_if_asked(self, output: bytes) -> None:
        wanted = self.connection.faults.drop_on
        if output and wanted and wanted in self.name:
            self.connection.drop()

    async def shell(self, command: bytes) -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", command, stdin=-1, stdout=-1, stderr=-1, start_new_session=True
        )
        self.transport = process._transport  # type: ignore[attr-defined]
        self.process = self.transport._proc
        pumps = [
            asyncio.create_task(self.pump(STDOUT, process.stdout)),
            asyncio.create_task(self.pump(STDERR, process.stderr)),
        ]
        feed = asyncio.create_task(self.feed(process.stdin))
        await asyncio.gather(*pumps)
        status = await process.wait()
        feed.cancel()
        await self.write(struct.pack("<BIB", EXIT, 1, status if status >= 0 else 128 - status))

    async def pump(self, kind: int, pipe: asyncio.StreamReader | None) -> None:
        assert pipe is not None
        while data := self.there(await pipe.read(BLOCK)):
            await self.write(struct.pack("<BI", kind, len(data)) + data)
            self.drop_if_asked(data)

    async def feed(self, pipe: asyncio.StreamWriter | None) -> None:
        assert pipe is not None
        while True:
            kind, length = struct.unpack("<BI", await self.read(5))
            data = await self.read(length)
            if kind == CLOSE_STDIN:
                pipe.close()
            elif kind == STDIN:
                pipe.write(data)

    async def terminal(self, command: bytes) -> None:
        """A command as before Android 7: a terminal, no status, carriage returns."""
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        output: asyncio.Queue[bytes] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                data = os.read(ours, BLOCK)
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(ours)
            output.put_nowait(data)

        async def feed() -> None:
            while True:
                os.write(ours, await self.read(1))

        loop.add_reader(ours, readable)
        feeding = asyncio.create_task(feed())
        try:
            while data := self.there(await output.get()):
                await self.write(data)
                self.drop_if_asked(data)
        finally:
            feeding.cancel()
            loop.remove_reader(ours)
            os.close(ours)

    async def sync(self) -> None:
        while True:
            kind, length = struct.unpack("<4sI", await self.read(8))
            path = Path(os.fsdecode(self.here(await self.read(length))))
            if kind == b"QUIT":
                return
            if kind == b"STAT":
                found = path.stat() if path.exists() else None
                mode, size = (found.st_mode, found.st_size) if found else (0, 0)
                await self.write(struct.pack("<4s3I", b"STAT", mode, size, 0))
            elif kind == b"SEND":
                await self.receive_file(Path(str(path).rpartition(",")[0]))
            elif kind == b"RECV":
                await self.send_file(path)

    async def receive_file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        taken, limit = 0, self.connection.faults.drop_push_after
        with path.open("wb") as stream:
            while True:
                kind, length = struct.unpack("<4sI", await self.read(8))
                if kind == b"DONE":
                    break
                stream.write(await self.read(length))
                taken += length
                if limit is not None and taken >= limit:
                    self.connection.drop()
        await self.write(struct.pack("<4sI", b"OKAY", 0))

    async def send_file(self, path: Path) -> None:
        if not path.is_file():
            reason = b"No such file or directory"
            await self.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                await self.write(struct.pack("<4sI", b"DATA", len(block)) + block)
        await self.write(struct.pack("<4sI", b"DONE", 0))


@contextmanager
def scripted_adbd(folder: Path, faults: Faults) -> Iterator[str]:
    """Serve on a free loopback port, in a thread; yields the serial ``127.0.0.1:port``."""
    loop = asyncio.new_event_loop()
    connections: list[Connection] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, faults, folder)
        connections.append(connection)
        await connection.serve()

    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:

        async def finish() -> None:
            server.close()
            for connection in connections:
                connection.drop()
            await asyncio.sleep(0.05)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(finish(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

"""Boards behind SSH where there is no ``ssh`` program: the same, through asyncssh.

It reads the user's configuration, keys, agent, jump hosts and known hosts itself. Unlike ssh it
never learns a host key, whatever ``StrictHostKeyChecking`` says; the line to add by hand is told.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.core.registry import missing_extra
from edgessl.devices.address import SshAddress
from edgessl.devices.channel import CHUNK, Channel, Pieces, Tail
from edgessl.devices.openssh import TEST_KEY
from edgessl.devices.plain import last_words, plain
from edgessl.devices.remote import RemoteShell

if TYPE_CHECKING:
    import asyncssh

CONNECT_S = 15.0
ALIVE_S, ALIVE_COUNT = 15, 4
DO_S = 60.0  # for what the loop does without the board
Result = TypeVar("Result")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop that all connections live in; its thread ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="edgessl-ssh", daemon=True).start()
    return loop


def _do(task: Coroutine[Any, Any, Result], timeout_s: float = DO_S) -> Result:
    future = asyncio.run_coroutine_threadsafe(task, _loop())
    try:
        return future.result(timeout_s)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise


class AsyncChannel:
    """One command over an asyncssh connection; made inside the loop."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], source: IO[bytes] | None) -> None:
        self._process, self._pieces, self._tail = process, Pieces(), Tail()
        self._over = threading.Event()
        self._tasks = [asyncio.create_task(self._watch(source))]

    async def _watch(self, source: IO[bytes] | None) -> None:
        pumps = [self._output(), self._errors(), *([self._feed(source)] if source else [])]
        done = await asyncio.gather(*pumps, return_exceptions=True)
        for problem in done:  # how the connection was lost, in asyncssh's words
            if isinstance(problem, Exception) and not isinstance(problem, BrokenPipeError):
                self._tail.add(f"\n{problem}\n".encode())
        with contextlib.suppress(Exception):
            await self._process.wait_closed()
        self._tail.over.set()
        self._over.set()
        await self._hand(b"")

    async def _output(self) -> None:
        while piece := await self._process.stdout.read(CHUNK):
            await self._hand(piece)

    async def _hand(self, piece: bytes) -> None:
        while not self._pieces.offer(piece):
            await asyncio.sleep(0.01)

    async def _errors(self) -> None:
        while piece := await self._process.stderr.read(CHUNK):
            self._tail.add(piece)

    async def _feed(self, source: IO[bytes]) -> None:
        while piece := source.read(CHUNK):
            self._process.stdin.write(piece)
            await self._process.stdin.drain()
        self._process.stdin.write_eof()

    def send(self, data: bytes) -> None:
        """Write to the program.

        Raises:
            OSError: It reads no more.
        """

        async def write() -> None:
            if self._process.stdin.is_closing():
                raise BrokenPipeError
            self._process.stdin.write(data)
            await self._process.stdin.drain()

        try:
            _do(write())
        except OSError:
            raise
        except Exception as error:
            raise BrokenPipeError(str(error)) from error

    def end_input(self) -> None:
        """Close the program's standard input."""

        async def close() -> None:
            self._process.stdin.write_eof()

        with contextlib.suppress(Exception):
            _do(close())

    def read(self, timeout_s: float) -> bytes:
        """Return the next piece of output, ``b""`` at the end.

        Raises:
            TimeoutError: Nothing came in time.
        """
        return self._pieces.take(timeout_s)

    def errors(self, timeout_s: float = 0.0) -> bytes:
        """Return the last errors of the program, and how the connection was lost."""
        return self._tail.read(timeout_s)

    def ended(self, timeout_s: float) -> bool:
        """Say whether the command's channel is closed, waiting that long."""
        return self._over.wait(timeout_s)

    def kill(self) -> None:
        """Close the command's channel at once."""
        self._pieces.drop()

        async def close() -> None:
            self._process.close()

        with contextlib.suppress(Exception):
            _do(close())


class AsyncSshShell(RemoteShell):
    """A board reached by asyncssh; one connection carries all commands."""

    def __init__(self, address: SshAddress) -> None:
        super().__init__(str(address))
        self._address = address
        self._connection: asyncssh.SSHClientConnection | None = None

    def _connect(self, command: str) -> Channel:
        try:
            import asyncssh
        except ImportError:
            raise missing_extra("SSH without an ssh program", "asyncssh", "ssh") from None
        shown: list[tuple[str, str, int, asyncssh.SSHKey]] = []
        known: list[Any] = []

        class Witness(asyncssh.SSHClient):
            """Remembers the key that is not known."""

            def validate_host_public_key(
                self, host: str, addr: str, port: int, key: asyncssh.SSHKey
            ) -> bool:
                shown.append((host, addr, port, key))
                return False

        a, config = self._address, os.environ.get("EDGESSL_SSH_CONFIG")

        async def connect() -> asyncssh.SSHClientConnection:
            settings = {
                "client_factory": Witness,
                "connect_timeout": CONNECT_S,
                "login_timeout": 2 * CONNECT_S,
                "keepalive_interval": ALIVE_S,
                "keepalive_count_max": ALIVE_COUNT,
                **({"config": [config]} if config else {}),
                **({"port": a.port} if a.port else {}),
                **({"username": a.user} if a.user else {}),
            }
            options = asyncssh.SSHClientConnectionOptions(host=a.host, **settings)
            if options.known_hosts is None:  # "UserKnownHostsFile none" would trust any key
                raise EdgeSSLError(
                    f"the SSH configuration turns host-key checking off for {a.host}",
                    hint="name a UserKnownHostsFile there",
                )
            known.append(options.known_hosts or str(Path("~/.ssh/known_hosts").expanduser()))
            return await asyncssh.connect(a.host, **settings)

        try:
            self._connection = _do(connect(), 6 * CONNECT_S)
        except EdgeSSLError:
            raise
        except Exception as error:  # noqa: BLE001  (asyncssh lets many kinds through)
            if isinstance(error, asyncssh.HostKeyNotVerifiable) and shown:
                raise self._distrusted(known[0], *shown[-1]) from None
            raise self._refused(error) from None
        return self.open(command, subprocess.PIPE)

    def open(self, command: str, stdin: int | IO[bytes]) -> Channel:
        """Run one more command over the connection."""

        async def create() -> AsyncChannel:
            assert self._connection is not None
            process = await self._connection.create_process(command, encoding=None)
            if stdin == subprocess.DEVNULL:
                process.stdin.write_eof()
            return AsyncChannel(process, None if isinstance(stdin, int) else stdin)

        try:
            return _do(create())
        except Exception as error:  # noqa: BLE001
            raise self.lost(f"before a command began ({plain(str(error).encode())})") from None

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None

        async def close() -> None:
            if connection is not None:
                connection.abort()
                await connection.wait_closed()

        with contextlib.suppress(Exception):
            _do(close(), 5)

    def _refused(self, error: Exception) -> BoardUnreachable:
        import asyncssh

        seen = plain(str(error).encode()) or type(error).__name__
        for kinds, problem, hint in (
            (
                asyncssh.PermissionDenied,
                "refused the login",
                "log in with a key: put yours there once with ssh-copy-id; if it has a "
                "passphrase, an SSH agent must hold it",
            ),
            (
                (asyncssh.KeyImportError, asyncssh.ConfigParseError, PermissionError),
                "cannot be tried with this configuration or key",
                "see ~/.ssh/config and the keys it names; a key with a passphrase needs an agent",
            ),
            (
                asyncssh.HostKeyNotVerifiable,
                "is behind a host whose key is not known",
                "connect to the jump host alone first: its key is told then",
            ),
            (socket.gaierror, "is no known name", "check the spelling and the network"),
            (
                ConnectionRefusedError,
                "runs no SSH server on that port",
                "start it on the board, or give the port: ssh://user@host:PORT",
            ),
            (
                (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError),
                "does not answer",
                "see that the board is powered and on this network",
            ),
        ):
            if isinstance(error, kinds):
                return BoardUnreachable(f"{self.where} {problem}: {seen}", hint=hint)
        return BoardUnreachable(
            f"no connection to {self.where}: {seen}", hint="see that the board is on this network"
        )

    def _distrusted(
        self, known: Any, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> BoardUnreachable:
        import asyncssh

        name = host if port == 22 else f"[{host}]:{port}"
        seen = f"{key.get_algorithm()} {key.get_fingerprint()}"
        line = shlex.quote(f"{name} {key.export_public_key('openssh').decode().strip()}")
        changed = False
        with contextlib.suppress(OSError, ValueError):
            changed = bool(asyncssh.match_known_hosts(known, host, addr, port)[0])
        if changed:
            return BoardUnreachable(
                f"the host key of {self.where} ({name}) is not the one this machine knows; it now "
                f"shows {seen}",
                hint="if the board was not set up anew, somebody may stand between: do not go on. "
                f"If it was, and shows this key for `{TEST_KEY}`, put this in place of its line in "
                f"~/.ssh/known_hosts: {line}",
            )
        return BoardUnreachable(
            f"the host key of {self.where} ({name}) is not known on this machine: {seen}",
            hint=f"compare it with what the board prints for `{TEST_KEY}`, then accept it once: "
            f"echo {line} >> ~/.ssh/known_hosts",
        )

    def _explain(self, errors: str, said: str) -> EdgeSSLError:
        return BoardUnreachable(
            f"{self.where} did not run /bin/sh: {last_words(said, errors)}",
            hint="the login shell and the login files on the board must let commands through",
        )

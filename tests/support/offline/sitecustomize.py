"""Loaded by every Python process of a test: notes who started, notes and refuses the network.

An audit hook sees every socket of the process, whatever library opened it, and cannot be taken
off again. Loopback and Unix sockets are let through: nothing leaves the machine by them.
"""

import os
import sys

FILE = os.environ.get("EDGESSL_TEST_NETWORK", "")
WITH_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
WITH_NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
HERE = {"127.0.0.1", "::1", "localhost", "", None}


def _note(what: str, detail: object) -> None:
    line = f"{what}\t{' '.join(sys.orig_argv[1:7])}\t{detail!r}\n"
    handle = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.replace("\n", " ").encode(errors="replace") + b"\n")
    os.close(handle)


def _refuse(event: str, arguments: tuple) -> None:
    if event in WITH_ADDRESS:
        address = arguments[1]
        # a connected socket sends without an address, a Unix socket has a path for one
        if not isinstance(address, tuple) or address[0] in HERE:
            return
    elif event in WITH_NAME:
        address = arguments[0]
        if address in HERE:
            return
    else:
        return
    _note(event, address)
    raise OSError(101, "the network is off in tests")


if FILE:
    _note("started", sys.flags.isolated)
    sys.addaudithook(_refuse)

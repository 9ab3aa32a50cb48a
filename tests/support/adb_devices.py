"""Phones for tests: the real adbd of the stand-in, and a private adb server for every test run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STANDIN = Path(os.environ.get("EDGESSL_STANDINS", "/var/lib/edgessl-standins")) / "adbd"
SHELL_USER = 2000
# in a mount and process space of its own: the kernel's files, and a storage for each test
START = """
set -e
mount --bind "$1/etc/cpuinfo" "$1/proc/cpuinfo"
mount --bind "$2" "$1/data/local/tmp"
mkdir -p "$2/small"
mount -t tmpfs -o size=256k,mode=777 none "$1/data/local/tmp/small"
mount -t tmpfs -o mode=755 none "$1/dev"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$1/dev/"; done
exec env -i PATH=/system/bin ADBD_PORT="$3" \
    /usr/sbin/chroot --userspec=2000:2000 --groups= "$1" /system/bin/adbd
"""


def missing() -> str:
    """Return why the real adbd cannot be used here; empty when it can."""
    if os.geteuid() != 0:
        return "the adbd stand-in needs root"
    if not (STANDIN / "root/system/bin/adbd").exists() or not shutil.which("adb"):
        return "run tests/standins/adbd"
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        return "run tests/standins/adbd (qemu is not registered)"
    return ""


def free_port() -> int:
    """Return a loopback port that nobody holds at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def private_server(folder: Path) -> Iterator[dict[str, str]]:
    """Give adb a server and keys of its own: the user's are never touched.

    Yields:
        Environment variables.
    """
    variables = {
        "ANDROID_ADB_SERVER_PORT": str(free_port()),
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",  # it shall not look for emulators
        "ADB_MDNS": "0",
        "ADB_MDNS_AUTO_CONNECT": "0",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    try:
        yield variables
    finally:
        subprocess.run(
            ["adb", "kill-server"],
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )


@contextmanager
def real_adbd(storage: Path) -> Iterator[str]:
    """Run the real adbd as the phone's shell user.

    Args:
        storage: Becomes /data/local/tmp; every folder above it must be open to others.

    Yields:
        The serial, ``127.0.0.1:port``.
    """
    storage.mkdir(parents=True, exist_ok=True)
    os.chown(storage, SHELL_USER, SHELL_USER)
    root, port = STANDIN / "root", free_port()
    log = storage.with_name(f"{storage.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child",
                f"--mount-proc={root}/proc",
                "bash", "-c", START, "adbd", root, storage, str(port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # a phone hears SIGHUP; below nohup it would not
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
    try:
        _await_port(process, port, log)
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"adbd did not start: {log.read_text(errors='replace')[-2000:]}")

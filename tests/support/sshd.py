"""A real OpenSSH server on loopback, with keys, users and home folders of its own.

Nothing of the machine's own SSH is touched: the client is pointed at a configuration by
``EDGESSL_SSH_CONFIG``, and ``~/.ssh`` is neither read nor written. tests/standins/ssh installs it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

BASE = Path(os.environ.get("EDGESSL_STANDINS", "/var/lib/edgessl-standins")) / "ssh"
USERS = tuple(f"edgessl-{shell}" for shell in ("sh", "bash", "ash", "fish", "csh"))
DROPBEAR = "edgessl-dropbear"


def require_sshd() -> None:
    """Skip the test where there is no server, or no right to start one."""
    if os.geteuid() != 0 or not BASE.exists() or not Path("/usr/sbin/sshd").exists():
        pytest.skip("needs an OpenSSH server: run tests/standins/ssh as root, then this as root")


class Sshd:
    """A server, the home folder of its board, and a client configuration with these hosts:

    ``board`` (also ``USER`` of :data:`USERS`, and ``root``), ``by-jump`` (through the server
    itself), ``stranger`` (same server, its key is not known), ``refused`` (a key it does not take).
    """

    server = "sshd"

    def __init__(self) -> None:
        require_sshd()
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=BASE))  # short, and open to users
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.config, self.known = self.folder / "client", self.folder / "known_hosts"
        for name in ("host", "user", "other"):
            self.new_key(name)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.port = free_port()
        self.environment: dict[str, str] = {}  # of the board, from the next start on
        self._process: subprocess.Popen[bytes] | None = None
        self.new_home()
        self.start()

    def new_key(self, name: str) -> None:
        """Make a key pair, in place of the one of that name."""
        for suffix in ("", ".pub"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]
        subprocess.run([*words, str(self.folder / name)], check=True)

    def new_home(self, owner: str = "edgessl-sh") -> Path:
        """Empty the home folder of the board and give it to a user."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        self.give(owner)
        return self.home

    def new_folder(self, name: str) -> Path:
        """Make an empty folder, with a path that is short enough for a socket."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        return self.folder / name

    def give(self, owner: str) -> None:
        """Make a user the owner of the home folder and of what is in it."""
        user = pwd.getpwnam(owner)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)

    def start(self) -> None:
        """Start the server, with today's host key, and write what the client needs."""
        settings = self.folder / "server"
        settings.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host\n"
            f"PidFile {self.folder}/pid\nAuthorizedKeysFile {self.folder}/user.pub\n"
            f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            + "SetEnv "
            + " ".join(f"{k}={v}" for k, v in {"HOME": self.home, **self.environment}.items())
            + "\n"
        )
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(settings)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        wait_for(lambda: listens(self.port))
        self.write_config()

    def write_config(self, port: int = 0) -> None:
        """Write the client's configuration; ``port`` puts something between."""
        key = " ".join((self.folder / "host.pub").read_text().split()[:2])
        ports = {self.port, port or self.port}
        self.known.write_text("".join(f"[127.0.0.1]:{p} {key}\n" for p in ports))
        empty = self.folder / "empty"
        empty.touch()
        # of two values for one setting the first holds
        hosts = [
            ("board", "edgessl-sh", ""),
            *((user, user, "") for user in (*USERS, DROPBEAR, "root")),
        ]
        hosts += [
            ("stranger", "edgessl-sh", f"UserKnownHostsFile {empty}"),
            ("refused", "edgessl-sh", f"IdentityFile {self.folder}/other"),
            ("nowhere", "edgessl-sh", "HostName nowhere.invalid"),
            ("jump", "edgessl-bash", ""),
            ("by-jump", "edgessl-sh", "ProxyJump jump"),
        ]
        self.config.write_text(
            "".join(f"Host {host}\n  User {user}\n  {more}\n" for host, user, more in hosts)
            + f"Host * !refused\n  IdentityFile {self.folder}/user\n"  # they add up
            + f"Host *\n  HostName 127.0.0.1\n  Port {port or self.port}\n  IdentitiesOnly yes\n"
            + f"  UserKnownHostsFile {self.known}\n  GlobalKnownHostsFile /dev/null\n"
        )
        (self.folder / "user").chmod(0o600)

    def sessions(self) -> list[int]:
        """Return the server's processes, the listening one left out."""
        assert self._process is not None
        return children_of(self._process.pid, named=self.server)

    def programs(self) -> list[str]:
        """Return the command lines of what runs on the board, none when all is quiet."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"HOME={self.home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    state = (folder / "stat").read_text().rpartition(") ")[2][0]
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
                    if state != "Z":
                        found.append(f"{folder.name} {line}")
        return found

    def kill_all(self) -> None:
        """Kill what runs on the board, also what one of them starts while they are listed."""
        while programs := self.programs():
            for line in programs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.split()[0]), signal.SIGKILL)

    def work_folders(self) -> list[str]:
        """Return the work folders on the board."""
        return sorted(p.name for p in (self.home / ".edgessl").glob("work-*"))

    def is_clean(self) -> bool:
        """Whether nothing of ours runs or lies on the board, now or within some seconds."""
        return wait_for(lambda: not self.programs() and not self.work_folders(), quiet=True)

    def cut(self) -> None:
        """End all connections at once, as a network that goes away for good."""
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop listening, end all sessions."""
        assert self._process is not None
        self.cut()
        self._process.terminate()
        self._process.wait()

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Dropbear(Sshd):
    """The small server of many boards; the home folder is that of its only user."""

    server = "dropbear"

    def new_home(self, owner: str = DROPBEAR) -> Path:
        """Empty the home folder but for the key that may log in."""
        self.home = Path(pwd.getpwnam(DROPBEAR).pw_dir)
        for path in self.home.iterdir():
            shutil.rmtree(path)
        (self.home / ".ssh").mkdir(mode=0o700)
        shutil.copyfile(self.folder / "user.pub", self.home / ".ssh" / "authorized_keys")
        self.give(owner)
        return self.home

    def start(self) -> None:
        """Start the server with a host key of its own."""
        key = self.folder / "dropbear_host"
        key.unlink(missing_ok=True)
        make = ["dropbearkey", "-t", "ed25519", "-f", str(key)]
        told = subprocess.run(make, check=True, capture_output=True, text=True).stdout
        public = next(line for line in told.splitlines() if line.startswith("ssh-ed25519 "))
        (self.folder / "host.pub").write_text(public)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dropbear", "-F", "-E", "-s", "-r", str(key), "-P", str(self.folder / "pid"),
                 "-p", f"127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: listens(self.port))
        self.write_config()


class Wire:
    """What lies between client and server: counts what the client sends, and can be cut."""

    def __init__(self, port: int) -> None:
        self._to, self._most, self.sent = port, 0, 0
        self._ears = socket.create_server(("127.0.0.1", 0))
        self.port = self._ears.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._ears.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for source, target, counts in ((near, far, True), (far, near, False)):
                    threading.Thread(
                        target=self._carry, args=(source, target, counts), daemon=True
                    ).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                self.sent += len(data) if counts else 0
                if self._most and self.sent >= self._most:
                    break
                target.sendall(data)
        self.cut()

    def cut_at(self, sent: int) -> None:
        """Cut once the client has sent so many bytes in all."""
        self._most = sent

    def cut(self) -> None:
        """Reset what is open."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Cut, and listen no more."""
        self._ears.close()
        self.cut()


def children_of(pid: int, named: str = "") -> list[int]:
    """Return all processes below one."""
    parents: dict[int, list[int]] = {}
    names = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
            names[int(folder.name)] = name
            parents.setdefault(int(rest.split()[1]), []).append(int(folder.name))
    found, below = [], [pid]
    while below:
        some = parents.get(below.pop(), [])
        below += some
        found += [p for p in some if names[p] == named or not named]
    return found


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as ears:
        return ears.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(so: object, seconds: float = 20, *, quiet: bool = False) -> bool:
    """Wait until ``so()`` is true."""
    assert callable(so)
    end = time.monotonic() + seconds
    while not so():
        if time.monotonic() > end:
            if quiet:
                return False
            raise TimeoutError
        time.sleep(0.05)
    return True

"""The arm64 stand-in (tests/standins/arm64) as boards: reached over SSH, a home for each test."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import command_line
import pytest
from sshd import Sshd, listens, wait_for
from stub_wheels import only_these

from edgessl.core.errors import EdgeSSLError
from edgessl.devices import setup, wheels
from edgessl.devices.wheel_target import Target

HERE = Path(os.environ.get("EDGESSL_STANDINS", "/var/lib/edgessl-standins")) / "arm64"
ACCOUNT = "edgessl-board"
BOOT_S = 120.0
# what runs there, as the agent on it tells; a test compares
BOOKWORM = Target((3, 11), "aarch64", "glibc", (2, 36))
BULLSEYE = Target((3, 9), "aarch64", "glibc", (2, 31))
ADDRESS = f"ssh://{ACCOUNT}@board"


class Userland(Sshd):
    """An emulated board: this machine's sshd, its shell and its Python in an arm64 file system.

    Args:
        suite: ``bookworm`` (Python 3.11, a Pi 4 by its kernel's files) or ``bullseye`` (3.9).
        cpu: Processor that is emulated, as qemu names it.
        disk_mb: Size of the disk that the home folder is on; None for that of this machine.
    """

    def __init__(self, suite: str, cpu: str = "cortex-a72", disk_mb: int | None = None) -> None:
        self.root, self._cpu, self._disk_mb = root_of(suite), cpu, disk_mb
        self.inside = f"/home/t-{secrets.token_hex(4)}"
        super().__init__()

    def new_home(self, owner: str = ACCOUNT) -> Path:
        """Make the home folder of the board, on a disk of its own if asked."""
        self.home = self.root / self.inside.lstrip("/")
        self.home.mkdir()
        if self._disk_mb is not None:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={self._disk_mb}m,mode=0755", "tmpfs"]
            subprocess.run([*mount, str(self.home)], check=True)
        self.give(owner)
        return self.home

    def start(self) -> None:
        """Start the server; its users find themselves in the userland."""
        settings = self.folder / "server"
        settings.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder}/host\n"
            f"PidFile {self.folder}/pid\nAuthorizedKeysFile {self.folder}/user.pub\n"
            f"Subsystem sftp internal-sftp\nChrootDirectory {self.root}\n{self.settings}"
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(settings)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: listens(self.port))
        self.write_config()

    @property
    def settings(self) -> str:
        """What the server is told, but for where it listens and where its keys are."""
        return (
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n"
            f"KbdInteractiveAuthentication no\nSetEnv HOME={self.inside} QEMU_CPU={self._cpu}\n"
        )

    def programs(self) -> list[str]:
        """Return the command lines of what runs on the board, none when all is quiet."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(") ")[2][0]
                if f"HOME={self.inside}".encode() in environment and state != "Z":
                    found.append((folder / "cmdline").read_bytes().decode(errors="replace")[:200])
        return found

    def runtimes(self) -> list[str]:
        """Return the private runtimes on the board."""
        return sorted(p.name for p in (self.home / ".edgessl/runtimes").glob("*"))

    def lay_out(self, house: Path, runtime: str, target: Target) -> None:
        """Put a runtime where ``devices setup`` would: pushing it through an emulated sshd takes
        minutes.
        """
        tree = self.home / ".edgessl/runtimes" / runtime
        found = sorted(house.glob("*.whl"))
        wheels.unpack(found, target, tree)
        setup.write_record(runtime, tree, found, target, str(tree))
        self.give(ACCOUNT)

    def close(self) -> None:
        """Stop and remove everything."""
        super().close()
        if self._disk_mb is not None:
            subprocess.run(["umount", "--lazy", str(self.home)], check=True)
        shutil.rmtree(self.home, ignore_errors=True)


class VirtualMachine(Userland):
    """The userland of a Pi with an arm64 kernel of its own, in qemu-system-aarch64."""

    def __init__(self) -> None:
        if not (HERE / "vm/initramfs").exists() or not shutil.which("qemu-system-aarch64"):
            pytest.skip("needs the arm64 virtual machine: run tests/standins/arm64 as root")
        super().__init__("bookworm")

    def start(self) -> None:
        """Boot; the server answers some seconds later."""
        (self.folder / "server").write_text(
            "Port 22\nHostKey /run/test/host\nPidFile none\n"
            f"AuthorizedKeysFile /run/test/user.pub\n{self.settings}"
        )
        words = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2"]
        words += ["-m", "1024", "-nographic", "-no-reboot", "-kernel", str(HERE / "vm/vmlinuz")]
        words += ["-initrd", str(HERE / "vm/initramfs")]
        words += ["-append", "console=ttyAMA0 quiet panic=-1"]
        for name, path in (("root", self.root), ("test", self.folder)):
            words += ["-fsdev", f"local,id={name},path={path},security_model=passthrough"]
            words += ["-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]
        # without "romfile=" it wants a file of another package
        words += ["-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=n,romfile="]
        with (self.folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        wait_for(self._greets, BOOT_S)
        self.write_config()

    def _greets(self) -> bool:
        """Whether the server says who it is; qemu itself accepts connections from the start."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "console").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as near:
                return near.recv(4) == b"SSH-"
        except OSError:
            return False


def know(patch: pytest.MonkeyPatch, board: Userland, folder: Path, *houses: Path) -> None:
    """Make commands know the client's configuration and boards, and pip only some wheels.

    Args:
        patch: Takes it back.
        board: The one to reach.
        folder: Holds the file of boards.
        houses: Folders of wheels; none leaves pip without any.
    """
    only_these(patch, " ".join(map(str, houses or (folder,))))
    patch.setenv("EDGESSL_SSH_CONFIG", str(board.config))
    patch.setenv("EDGESSL_BOARDS", str(folder / "boards.toml"))
    for name, value in os.environ.items():
        if name.startswith(("EDGESSL_SSH", "EDGESSL_BOARDS", "PIP_")):
            patch.setitem(command_line.ENVIRONMENT, name, value)


def wheelhouse(target: Target, runtime: str) -> Path:
    """Return a folder with the wheels that the package index has for a board, fetched once.

    Fetched by the code under test; the tests themselves then need no network.
    """
    name = f"{runtime}-{target.python_text}-{target.libc_version[1]}"
    place = HERE / "wheels" / name
    if not place.is_dir():
        place.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            wheels.fetch(runtime, target, fresh)
        except EdgeSSLError as error:
            shutil.rmtree(fresh)
            pytest.skip(f"needs the package index once, for the wheels of the board: {error}")
        fresh.chmod(0o755)
        with contextlib.suppress(OSError):  # somebody else was faster
            fresh.rename(place)
    return place


def root_of(suite: str) -> Path:
    """Return the file system of a userland, or skip and say what makes it."""
    root = HERE / suite
    registered = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    if os.geteuid() != 0 or not registered or not (root / "proc/self").exists():
        pytest.skip("needs the arm64 userland: run tests/standins/arm64 as root, then this as root")
    assert pwd.getpwnam(ACCOUNT)
    return root

"""Brings a runtime to a board: fetched and laid out here, pushed, unpacked and tried there.

On the board it is a private folder, ``~/.edgessl/runtimes/<runtime>``: no root, no pip and no
network there, nothing of the system is changed.
"""

from __future__ import annotations

import gzip
import json
import signal
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.errors import DiskFull, EdgeSSLError, FileInvalid, NativeCrash, UsageProblem
from edgessl.devices import wheels
from edgessl.devices.base import CommandFailed
from edgessl.devices.linux import LinuxDevice, ask_facts
from edgessl.devices.plain import shown
from edgessl.devices.runtimes import RUNTIMES
from edgessl.devices.wheel_target import Target

UNPACK = Path(__file__).with_name("agents") / "unpack.py"
RECORD = "edgessl.json"  # in the folder of a runtime; one without it is not used
MARK = "edgessl-setup "
SHORT_S, LONG_S = 120.0, 1800.0  # an emulated board unpacks 150 MB in minutes
SPARE_MB = 64
MB = 2**20
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """A runtime in a private folder of a board.

    Attributes:
        runtime: Name as in ``RUNTIMES``.
        folder: Absolute, on the board.
        packages: Versions by package.
        python: Version of Python that it was made for, as in ``3.11``.
        machine: Processor that it was made for.
        sha256: Of each wheel, by file name.
        bytes: On the disk of the board.
        providers: What the runtime said that it can run on, when it was tried.
    """

    runtime: str
    folder: str
    packages: Mapping[str, str]
    python: str
    machine: str
    sha256: Mapping[str, str]
    bytes: int
    providers: tuple[str, ...] = ()

    def fits(self, target: Target) -> bool:
        """Whether it was made for this board as it is now."""
        return (self.python, self.machine) == (target.python_text, target.machine)


def installed(device: LinuxDevice) -> dict[str, Installed]:
    """Return the private runtimes on a board by name.

    Raises:
        BoardUnreachable: No connection.
        EdgeSSLError: No Python there.
    """
    if not device.board.address:
        return {}
    found = {}
    for answer in _board(device, "records", device.shell.home):
        folder, record = str(answer.get("folder", "")), answer.get("record")
        name = folder.rsplit("/", 1)[-1]
        if name in RUNTIMES and isinstance(record, dict):
            size = record.get("bytes")
            found[name] = Installed(
                name, folder, _texts(record.get("packages")), shown(str(record.get("python"))),
                shown(str(record.get("machine"))), _texts(record.get("sha256")),
                size if isinstance(size, int) else 0,
            )  # fmt: skip
    return found


def set_up(
    device: LinuxDevice,
    runtime: str,
    *,
    given: Sequence[Path] = (),
    upgrade: bool = False,
    say: Say = lambda _text: None,
) -> tuple[Installed, bool]:
    """Bring a runtime to a board, unless it is there and runs.

    Args:
        device: A board with an address.
        runtime: ``onnxruntime``, ``litert`` or ``openvino``.
        given: Wheels of the user, taken before those of the package index.
        upgrade: Look for newer wheels though one is there.
        say: Told what is being done.

    Returns:
        What is there now, and whether it is new.

    Raises:
        NoWheel: None is published; the hint is the exact next step.
        DiskFull: The board has no room for it.
        BoardUnreachable: No connection, or it was lost; the board is as it was.
        EdgeSSLError: Fetching failed, or the runtime does not run there.
    """
    if not device.board.address:
        extra = RUNTIMES[runtime].extra if runtime in RUNTIMES else "onnx"
        raise UsageProblem(
            "this machine needs no setup: it runs with the Python that runs edgessl",
            hint=f"pip install 'edgessl[{extra}]'",
        )
    device.prepare(say)
    target = Target.of(device.facts())
    there = installed(device).get(runtime)
    if there is not None and there.fits(target) and not upgrade and not given:
        told = opened(device, runtime, there.folder)
        return _with_providers(there, told), False
    name = device.board.name or "NAME"
    with tempfile.TemporaryDirectory(prefix="edgessl-setup-") as scratch:
        folder, tree = Path(scratch) / "wheels", Path(scratch) / "tree"
        folder.mkdir()
        say(f"{runtime}: looking for wheels for {target.words}")
        found = wheels.fetch(runtime, target, folder, given, name)
        say(f"{runtime}: {', '.join(path.name for path in found)}")
        wheels.unpack(found, target, tree)
        made = write_record(runtime, tree, found, target, f"{device.shell.home}/runtimes/{runtime}")
        archive = Path(scratch) / f"{runtime}.tar.gz"
        _pack(tree, archive)
        _check_room(device, made.bytes + archive.stat().st_size, name)
        megabytes = archive.stat().st_size / MB
        say(f"{runtime}: pushing {megabytes:.0f} MB, {made.bytes / MB:.0f} MB unpacked")
        device.shell.put(archive, archive.name)
    told = _install(device, made, archive.name, say)
    device.refresh()
    return _with_providers(made, told), True


def remove(device: LinuxDevice, runtime: str) -> bool:
    """Remove a private runtime from a board; return whether it was there.

    Raises:
        BoardUnreachable: No connection.
        EdgeSSLError: It could not be removed.
    """
    if runtime not in RUNTIMES or not device.board.address:
        return False
    answer = _board(device, "remove", f"{device.shell.home}/runtimes/{runtime}", time_s=LONG_S)[0]
    device.refresh()
    return bool(answer.get("removed"))


def _install(device: LinuxDevice, made: Installed, archive: str, say: Say) -> dict[str, Any]:
    """Unpack in the work folder, try it there, and only then put it into its place."""
    fresh = f"{device.shell.workdir}/{made.runtime}.new"
    try:
        _board(device, "unpack", archive, fresh, time_s=LONG_S)
        say(f"{made.runtime}: trying it on the board")
        told = opened(device, made.runtime, fresh)
        _board(device, "swap", fresh, made.folder, time_s=LONG_S)
    except EdgeSSLError:
        with suppress(EdgeSSLError):  # of a board that is gone, the first error says why
            device.shell.remove(archive)
            device.shell.remove(fresh)
        raise
    return told


def opened(device: LinuxDevice, runtime: str, folder: str) -> dict[str, Any]:
    """Import a runtime on the board, by the agent that will use it.

    Raises:
        NativeCrash: The import was killed by a signal.
        EdgeSSLError: The import failed; the message is that of the runtime.
    """
    try:
        facts = ask_facts(
            device.shell, ["env", f"PYTHONPATH={folder}", device.python], "--runtimes"
        )
    except CommandFailed as error:
        number = -error.status if error.status < 0 else error.status - 128
        if 0 < number < 65:
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            lacks = "the processor lacks instructions that this release uses; "
            raise NativeCrash(
                f"{runtime} crashed on the board when it was tried: {name}",
                hint=f"{lacks if number == signal.SIGILL else ''}nothing was changed there; "
                "another release can be given with --wheel FILE",
            ) from error
        raise
    everything = facts.get("opened")
    told = everything.get(runtime) if isinstance(everything, dict) else None
    if not isinstance(told, dict) or "error" in told:
        cause = told.get("error") if isinstance(told, dict) else "it was not found there"
        raise EdgeSSLError(
            f"{runtime} does not run on the board: {shown(str(cause), 300)}",
            hint="nothing was changed there; another release can be given with --wheel FILE",
        )
    return told


def _with_providers(record: Installed, told: Mapping[str, Any]) -> Installed:
    names = told.get("providers")
    plain = tuple(shown(str(name)) for name in names[:20]) if isinstance(names, list) else ()
    return replace(record, providers=plain)


def write_record(
    runtime: str, tree: Path, found: Sequence[Path], target: Target, folder: str
) -> Installed:
    """Write the record of a runtime into its folder and return it.

    Args:
        runtime: Its name.
        tree: The folder, on this machine.
        found: The wheels that it was laid out from.
        target: The board.
        folder: Where it will be on the board.
    """
    packages = {wheels.distribution(path): wheels.version(path) for path in found}
    hashes = {path.name: files.sha256_file(path) for path in found}
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    made = Installed(
        runtime, folder, packages, target.python_text, target.machine, hashes, size
    )  # fmt: skip
    body = {
        "runtime": runtime, "packages": packages, "python": made.python, "machine": made.machine,
        "sha256": hashes, "bytes": size,
    }  # fmt: skip
    files.write_json(tree / RECORD, "board-runtime", body)
    return made


def _pack(tree: Path, archive: Path) -> None:
    """Write a folder as a tar archive that depends on its content only."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (entry.isreg() or entry.isdir()):
            raise FileInvalid(f"a wheel holds '{entry.name}', which is neither file nor folder")
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as members,
    ):
        for path in sorted(tree.rglob("*")):
            members.add(path, path.relative_to(tree).as_posix(), recursive=False, filter=plain)


def _check_room(device: LinuxDevice, needed: int, name: str) -> None:
    """Refuse before anything is pushed.

    Raises:
        DiskFull: Less is free on the board than will be written, and a little to spare.
    """
    free = device.facts().get("disk_free_mb")
    wanted = needed / MB + SPARE_MB
    if isinstance(free, int | float) and free < wanted:
        raise DiskFull(
            f"{free:.0f} MB are free on {device.shell.where}, {wanted:.0f} MB are needed",
            hint=f"free space there, or remove a runtime: edgessl devices setup {name} "
            "--runtime R --remove",
        )


def _board(device: LinuxDevice, *arguments: str, time_s: float = SHORT_S) -> list[dict[str, Any]]:
    """Run a command of ``agents/unpack.py`` on the board and return its answers."""
    program = f"unpack-{files.sha256_file(UNPACK)[:16]}.py"
    device.shell.put(UNPACK, program)
    said = device.shell.run([device.python, program, *arguments], timeout_s=time_s)
    answers: list[dict[str, Any]] = []
    for line in said.splitlines():
        if not line.startswith(MARK):
            continue  # a greeting of the login shell
        try:
            answer = json.loads(line[len(MARK) :])
        except (ValueError, RecursionError):
            continue
        if isinstance(answer, dict):
            answers.append(answer)
    for answer in answers:
        if "error" in answer:
            text = shown(str(answer.get("text")), 300)
            if answer["error"] == "DiskFull":
                raise DiskFull(
                    f"no space is left on {device.shell.where}: {text}",
                    hint="free space there; nothing half done was left",
                )
            raise EdgeSSLError(f"{arguments[0]} failed on {device.shell.where}: {text}")
    if not answers and arguments[0] != "records":
        raise EdgeSSLError(f"{device.shell.where} did not answer as it should: {said[:200]!r}")
    return answers


def _texts(value: object) -> dict[str, str]:
    """Return a table of short texts, whatever the board sent."""
    if not isinstance(value, dict):
        return {}
    return {shown(str(k)): shown(str(v)) for k, v in list(value.items())[:20]}

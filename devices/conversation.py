"""Talking with the agent: what travels to the board, the plan, the events that come back."""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import (
    DataInvalid,
    DiskFull,
    EdgeSSLError,
    FileInvalid,
    MissingExtra,
    NativeCrash,
    OutOfMemory,
)
from edgessl.core.registry import missing_extra
from edgessl.devices import events
from edgessl.devices.agent_file import agent_file, agent_name
from edgessl.devices.agent_lines import Listener, printable
from edgessl.devices.base import Progress, Shell, Stream
from edgessl.devices.protocol import Preset
from edgessl.devices.runtimes import RUNTIMES

if TYPE_CHECKING:
    from edgessl.devices.linux import LinuxDevice

PROTO = 2
# A board may load a model for minutes before the next line comes; TensorRT builds for longer.
SILENCE_S = 600.0
BUILD_SILENCE_S = 3 * 3600.0
END_S = 30.0
HEARTBEAT_S = 15.0
# The agent ends after this long without a sign of life: six that were lost.
DEAF_S = 90.0


@dataclass(frozen=True, slots=True)
class Sources:
    """What travels to the device, and where what is built there comes to.

    Attributes:
        folder: Export stage folder.
        artifact: What is in it.
        golden: Golden record.
        pack: Evaluation pack.
        engines: Folder on this machine for the engine that the board builds; None leaves it there.
    """

    folder: Path
    artifact: Artifact
    golden: Path
    pack: Path
    engines: Path | None = None

    def put(self, device: LinuxDevice, remote: str) -> dict[str, str]:
        """Copy under names that carry the content hash; return the plan's file names.

        Agent and pack stay until the shell is closed, because the next model needs the same.
        """
        agent, pack = agent_name(), f"pack-{files.sha256_file(self.pack)[:16]}.npz"
        golden = f"{remote}/golden-{files.sha256_file(self.golden)[:16]}.npz"
        for local, name in ((agent_file(), agent), (self.pack, pack), (self.golden, golden)):
            device.shell.put(local, name)
        # runtimes find weights by their name beside the graph: names stay, the folder is hashed
        model = f"{remote}/model-{self.artifact.seal[:16]}"
        for file in self.artifact.files:
            device.shell.put(self.folder / file, f"{model}/{file}")
        return {"golden": golden, "pack": pack, "model": f"{model}/{self.artifact.main_file}"}


def run_processes(
    device: LinuxDevice, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
) -> list[list[events.Event]]:
    """Copy everything, run the agent once per repeat, return its events, clean up.

    Ends after the first process whose answers are wrong. Layers are profiled in a further process,
    whose ``layers`` event is added to those of the first.

    Args:
        plan: What the agent is to do, without file names and timing.

    Raises:
        BoardUnreachable: No connection, or it was lost.
        MissingExtra: The runtime is not installed on the device.
        FileInvalid, DataInvalid: The agent refused the model or the pack.
        NativeCrash, OutOfMemory, DiskFull, EdgeSSLError: The agent died, fell silent, or said what
            it cannot have.
    """
    remote = f"bench-{secrets.token_hex(4)}"
    runs: list[list[events.Event]] = []
    try:
        everywhere = {"home": device.shell.home, "heartbeat_s": DEAF_S, "profile": False}
        placed = plan | everywhere | sources.put(device, remote)
        for repeat in range(1, preset.repeats + 1):
            timing = timing_of(preset, runs)
            say(f"process {repeat} of {preset.repeats} on {device.id}")
            full = placed | {"timing": timing, "score": repeat == 1}
            runs.append(_process(device, full, f"{remote}/process-{repeat}", say))
            if _answered_wrongly(runs[-1]):
                break  # wrong once is wrong; timing it again says nothing
        if sources.engines is not None:
            fetch_engine(device.shell, runs[0], sources.engines, say)
        if plan.get("profile") and not _answered_wrongly(runs[-1]):
            say(f"profiling the layers on {device.id}")
            alone = {"profile": True, "score": False, "idle_s": 0, "meter": None, "fps": None}
            full = placed | alone | {"timing": timing_of(preset, [])}
            found = _process(device, full, f"{remote}/profile", say)
            runs[0] += events.of_kind(found, "layers")
    finally:
        with suppress(EdgeSSLError, OSError):  # an unreachable board must not hide the cause
            device.shell.remove(remote)
    return runs


def fetch_engine(shell: Shell, run: events.Run, folder: Path, say: Progress) -> None:
    """Copy the engine that a run used, and its timing cache, from the board.

    What cannot be copied stays on the board; the figures do not need it.

    Args:
        shell: How to reach the board.
        run: Its events.
        folder: Gets ``model.engine`` and ``timing.cache``; made if there is something for it.
        say: Gets one line.
    """
    built = events.last(run, "built")
    if not built.get("sha256"):
        return
    kept = PurePosixPath(shell.home) / "engines"
    for name, place in (("path", "model.engine"), ("timing_cache", "timing.cache")):
        remote = PurePosixPath(built.get(name) or ".")
        if kept not in remote.parents or ".." in remote.parts:
            continue  # nothing else on the board is ours to copy
        folder.mkdir(parents=True, exist_ok=True)
        local = folder / place
        try:
            shell.get(str(remote), local)
        except (EdgeSSLError, OSError) as error:
            local.unlink(missing_ok=True)
            say(f"{remote.name} stays on the board: {error}")
            continue
        if name == "path" and files.sha256_file(local) != built["sha256"]:
            local.unlink()
            say(f"{remote.name} stays on the board: its hash is not the one that was told")


def timing_of(preset: Preset, runs: Sequence[events.Run]) -> dict[str, Any]:
    """Return the timing part of the plan; a repeat cools down to where the first began."""
    start = events.telemetry(runs[0], "before").get("temp_c") if runs else None
    cool_to_c = max(start.values()) + preset.cooldown_within_c if start else None
    return asdict(preset) | {"cool_to_c": cool_to_c}


def _process(
    device: LinuxDevice, plan: dict[str, Any], remote: str, say: Progress
) -> list[events.Event]:
    """Run the agent once, in a folder of its own on the board."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "plan.json"
        local.write_text(json.dumps(plan), encoding="utf-8")
        device.shell.put(local, f"{remote}/plan.json")
    argv = [*device.command(plan["runtime"]), agent_name(), "bench", "--plan"]
    with device.shell.start([*argv, f"{remote}/plan.json"]) as stream, _alive(stream):
        return _listen(stream, device, plan, say)


@contextmanager
def _alive(stream: Stream) -> Iterator[None]:
    """Send a sign of life now and then: an agent that hears nothing ends."""
    over = threading.Event()

    def beat() -> None:
        with suppress(EdgeSSLError):  # who reads the lines will notice, and say it better
            while not over.wait(HEARTBEAT_S):
                stream.send("")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1)


def _answered_wrongly(run: events.Run) -> bool:
    return any(not golden["ok"] for golden in events.of_kind(run, "golden"))


def _listen(
    stream: Stream, device: LinuxDevice, plan: dict[str, Any], say: Progress
) -> list[events.Event]:
    listener = Listener(device.id, plan.get("images") if plan["score"] else None)
    patience_s = SILENCE_S
    while (line := stream.read_line(patience_s)) is not None:
        event = listener.take(line)
        if event is None:
            continue
        if event["k"] == "error":
            raise _explain(event, device, plan["runtime"])
        patience_s = BUILD_SILENCE_S if event["k"] == "building" else SILENCE_S
        _report(event, say)
    status, seen = stream.wait(END_S), listener.seen
    if events.last(seen, "done"):
        return seen
    # a shell between us and the program says 128 + n for signal n
    number = -status if status < 0 else status - 128 if 128 < status < 160 else 0
    phase = seen[-1]["k"] if seen else "start"
    cause = f"signal {number}" if number else f"status {status}"
    raise (NativeCrash if number else EdgeSSLError)(
        f"the agent on {device.id} ended with {cause} after '{phase}': "
        f"{printable(stream.stderr_tail) or 'it wrote no error'}",
        hint="signal 9 is most often the system running out of memory" if number == 9 else "",
    )


def _explain(event: events.Event, device: LinuxDevice, runtime: str) -> EdgeSSLError:
    kind, text = event["type"], event["msg"]
    if kind == "MissingRuntime" and not device.board.address:
        asked = RUNTIMES[runtime]
        return missing_extra(f"the bench on {device.id}", asked.package, asked.extra)
    if kind in ("MissingRuntime", "BrokenRuntime"):
        failed = MissingExtra if kind == "MissingRuntime" else EdgeSSLError
        return failed(
            f"{device.id} cannot run '{runtime}': {text}", hint=f"{setup_line(device)} (or --setup)"
        )
    hints = {
        "MemoryError": "use a smaller model",
        "DiskFull": f"make room on {device.shell.where}",
    }
    known = {
        "InputMismatch": FileInvalid,
        "PackInvalid": DataInvalid,
        "MemoryError": OutOfMemory,
        "DiskFull": DiskFull,
    }
    message = f"the agent on {device.id} failed: {kind}: {text}"
    return known.get(kind, EdgeSSLError)(message, hint=hints.get(kind, ""))


def setup_line(device: LinuxDevice) -> str:
    """Return the command that puts runtimes on a board."""
    board = device.board
    if board.name:
        return f"edgessl devices setup {board.name}"
    return (
        f"edgessl devices add NAME --kind {board.kind} --address {board.address}, then "
        "edgessl devices setup NAME"
    )


def _report(event: events.Event, say: Progress) -> None:
    if event["k"] == "tel" and event["phase"] == "cooldown":
        say("cooling down")
    elif event["k"] == "building":
        say("preparing the runtime; an engine takes minutes to build the first time")
    elif event["k"] == "built" and event["path"]:
        done = "used again" if event.get("reused") else f"built in {event['s']:.0f} s"
        say(f"engine {done}, on the board: {event['path'][:300]}")
    elif event["k"] == "warmup":
        say(f"warm-up: {event['runs']} runs, {event['s']:.0f} s")
    elif event["k"] == "lat":
        say(f"timed: {event['first'] + len(event['at_us'])} inferences")
    elif event["k"] == "acc":
        say(f"answered: {event['first'] + len(event['rows']['predicted'])} images")

"""Talking with the agent: what travels to the board, the plan, the events that come back."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import (
    DataInvalid,
    EdgeSSLError,
    FileInvalid,
    NativeCrash,
    OutOfMemory,
)
from edgessl.core.registry import missing_extra
from edgessl.devices import events
from edgessl.devices.base import AGENT, Progress, Stream
from edgessl.devices.protocol import Preset

if TYPE_CHECKING:
    from edgessl.devices.linux import LinuxDevice

PROTO = 1
# A board may compile a graph for minutes before the next line comes.
SILENCE_S = 600.0
END_S = 30.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a format: the default provider, its precision, and what to install."""

    provider: str
    precision: str | None
    package: str
    extra: str


RUNTIMES = {
    "onnxruntime": Runtime("CPUExecutionProvider", None, "onnxruntime", "onnx"),
    # bfloat16 is its own choice on many processors: asked for float32, and checked
    "openvino": Runtime("CPU", "f32", "openvino", "openvino"),
    "litert": Runtime("XNNPACK", None, "ai-edge-litert", "tflite"),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """What travels to the device."""

    folder: Path
    artifact: Artifact
    golden: Path
    pack: Path

    def put(self, device: LinuxDevice, remote: str) -> dict[str, str]:
        """Copy under names that carry the content hash; return the plan's file names."""
        agent, golden, pack = (
            (path, f"{remote}/{path.stem}-{files.sha256_file(path)[:16]}{path.suffix}")
            for path in (AGENT, self.golden, self.pack)
        )
        for local, name in (agent, golden, pack):
            device.shell.put(local, name)
        # runtimes find weights by their name beside the graph: names stay, the folder is hashed
        model = f"{remote}/model-{self.artifact.seal[:16]}"
        for file in self.artifact.files:
            device.shell.put(self.folder / file, f"{model}/{file}")
        main = f"{model}/{self.artifact.main_file}"
        return {"agent": agent[1], "golden": golden[1], "pack": pack[1], "model": main}


def run_processes(
    device: LinuxDevice, plan: dict[str, Any], sources: Sources, preset: Preset, say: Progress
) -> list[list[events.Event]]:
    """Copy everything, run the agent once per repeat, return its events, clean up.

    Ends after the first process whose answers are wrong.

    Args:
        plan: What the agent is to do, without file names and timing.

    Raises:
        MissingExtra: The runtime is not installed on the device.
        FileInvalid, DataInvalid: The agent refused the model or the pack.
        NativeCrash, OutOfMemory, EdgeSSLError: The agent died or fell silent.
    """
    remote = f"bench-{secrets.token_hex(4)}"
    runs: list[list[events.Event]] = []
    try:
        placed = sources.put(device, remote)
        for repeat in range(1, preset.repeats + 1):
            timing = timing_of(preset, runs)
            full = plan | placed | {"timing": timing, "score": repeat == 1}
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder) / "plan.json"
                local.write_text(json.dumps(full), encoding="utf-8")
                device.shell.put(local, f"{remote}/plan-{repeat}.json")
            argv = [
                *device.command(plan["runtime"]),
                placed["agent"],
                "bench",
                "--plan",
                f"{remote}/plan-{repeat}.json",
            ]
            say(f"process {repeat} of {preset.repeats} on {device.id}")
            with device.shell.start(argv) as stream:
                runs.append(_listen(stream, device, plan["runtime"], say))
            if any(not golden["ok"] for golden in events.of_kind(runs[-1], "golden")):
                break  # wrong once is wrong; timing it again says nothing
    finally:
        with suppress(EdgeSSLError, OSError):  # an unreachable board must not hide the cause
            device.shell.remove(remote)
    return runs


def timing_of(preset: Preset, runs: Sequence[events.Run]) -> dict[str, Any]:
    """Return the timing part of the plan; a repeat cools down to where the first began."""
    start = events.telemetry(runs[0], "before").get("temp_c") if runs else None
    cool_to_c = max(start.values()) + preset.cooldown_within_c if start else None
    return asdict(preset) | {"cool_to_c": cool_to_c}


def _listen(stream: Stream, device: LinuxDevice, runtime: str, say: Progress) -> list[events.Event]:
    seen: list[events.Event] = []
    while (line := stream.read_line(SILENCE_S)) is not None:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a shell's greeting; the agent's own lines are always whole
        if not isinstance(event, dict) or "k" not in event:
            continue
        if event["k"] == "error":
            raise _explain(event, device, runtime)
        seen.append(event)
        _report(event, say)
    status = stream.wait(END_S)
    if events.last(seen, "done"):
        return seen
    phase = seen[-1]["k"] if seen else "start"
    cause = f"signal {-status}" if status < 0 else f"status {status}"
    kind = NativeCrash if status < 0 else EdgeSSLError
    raise kind(
        f"the agent on {device.id} ended with {cause} after '{phase}': "
        f"{stream.stderr_tail or 'it wrote no error'}",
        hint="signal 9 is most often the system running out of memory" if status == -9 else "",
    )


def _explain(event: events.Event, device: LinuxDevice, runtime: str) -> EdgeSSLError:
    kind, text = event["type"], event["msg"]
    if kind == "MissingRuntime":
        asked = RUNTIMES[runtime]
        return missing_extra(f"the bench on {device.id}", asked.package, asked.extra)
    if kind == "MemoryError":
        return OutOfMemory(f"{device.id} ran out of memory: {text}", hint="use a smaller model")
    known = {"InputMismatch": FileInvalid, "PackInvalid": DataInvalid}
    return known.get(kind, EdgeSSLError)(f"the agent on {device.id} failed: {kind}: {text}")


def _report(event: events.Event, say: Progress) -> None:
    if event["k"] == "tel" and event["phase"] == "cooldown":
        say("cooling down")
    elif event["k"] == "warmup":
        say(f"warm-up: {event['runs']} runs, {event['s']:.0f} s")
    elif event["k"] == "lat":
        say(f"timed: {event['first'] + len(event['at_us'])} inferences")
    elif event["k"] == "acc":
        say(f"answered: {event['first'] + len(event['rows']['predicted'])} images")

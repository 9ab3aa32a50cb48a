"""One bench: an export stage folder and a pack of images in, ``result.json`` and raw samples out.

The agent runs in fresh processes on the device; everything goes through its shell, so a board
over a network is measured by the same lines as this machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from edgessl import __version__
from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid, InvalidInput, UsageProblem
from edgessl.core.measurement import Accuracy, BenchResult
from edgessl.devices import events, protocol, record
from edgessl.devices.agent_file import agent_sha256
from edgessl.devices.base import Device, Meter, Probe, Progress
from edgessl.devices.choice import Asked, asked_values, runtime_for
from edgessl.devices.conversation import PROTO, Sources
from edgessl.devices.energy import IDLE_S, energy_of
from edgessl.devices.pack import Pack, check_golden
from edgessl.devices.power_csv import read_power_csv
from edgessl.devices.profile import write_profile
from edgessl.devices.protocol import Preset
from edgessl.devices.runtimes import RUNTIMES

DEFAULT_TOLERANCE = 1e-3  # float32: relative to the largest absolute logit


def bench_artifact(
    device: Device,
    folder: Path,
    pack: Path,
    out: Path,
    *,
    asked: Asked,
    modules: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure one exported artifact on a device and write the records into ``out``.

    Args:
        device: Where to run.
        folder: Export stage folder: ``artifact.json``, its sealed files, ``golden.npz``.
        pack: Evaluation pack (see :class:`Pack`).
        out: Gets ``samples.jsonl``, ``telemetry.csv``, ``predictions.csv`` (if answers were
            taken), ``power.csv`` and ``profile.json`` (if asked for), ``engine/`` (if
            the board built one) and, last, ``result.json``.
        asked: Preset, runtime, threads and what else is to be measured.
        modules: From names in the file to PyTorch modules, for the profile of its layers.
        progress: Called with one short line now and then.

    Raises:
        FileInvalid: The seal is broken, or golden images are missing or of another artifact.
        DataInvalid: The pack does not fit.
        UsageProblem: The runtime cannot open this format, ``threads`` < 1, or
            ``fixed_performance`` on a board that is no phone.
        BoardUnreachable: No connection, or it was lost.
        MissingExtra: The runtime is not installed on the device.
        NativeCrash, OutOfMemory, EdgeSSLError: The agent died or fell silent.
    """
    started, began = datetime.now(UTC), time.monotonic()
    say = progress or (lambda _line: None)
    artifact = Artifact.load(folder)
    if asked.threads < 1:
        raise UsageProblem(f"threads must be at least 1, got {asked.threads}")
    if asked.fixed_performance and device.kind != "android":
        raise UsageProblem(
            f"fixed-performance mode is a mode of Android phones, and the device is of kind "
            f"'{device.kind}'",
            hint="bench without --fixed-performance",
        )
    if artifact.input.batch != 1:
        raise InvalidInput(
            f"the artifact takes batches of {artifact.input.batch}; latency is taken at batch 1",
            hint="export it with batch 1",
        )
    golden = folder / "golden.npz"
    classes = check_golden(golden, artifact)
    images = Pack.open(pack, *artifact.input.side)
    name, provider = runtime_for(artifact, asked, device.traits, device.facts())
    precision = _precision(name, provider, artifact)
    meter = device.traits.meter(device.facts()) if asked.energy else None
    metered = meter is not None or asked.power_csv is not None
    if asked.power_csv is not None and not asked.power_csv.is_file():
        raise FileInvalid(
            f"{asked.power_csv} is not there: the external meter must be writing before the bench",
            hint="start its log first, then the bench",
        )
    # without a meter there is no reason to wait for what only it needs
    preset = asked.floors if metered else asked.preset
    plan = {
        "proto": PROTO,
        "runtime": name,
        "provider": provider,
        "precision": precision,
        "threads": asked.threads,
        "cores": list(asked.cores),
        "fixed_performance": asked.fixed_performance,
        "fps": asked.fps,
        "idle_s": IDLE_S if metered else 0.0,
        "profile": asked.profile,
        "probes": [_probe(probe) for probe in device.traits.probes],
        "meter": _meter(meter),
        "seal": artifact.seal,
        "input": artifact.input.model_dump(mode="json") | {"shape": artifact.input.shape},
        "output": artifact.output.model_dump(mode="json"),
        "tolerance": tolerance_of(artifact, name),
        "images": len(images.labels),
        "rotation": images.rotation(),
        "has_reference": images.reference is not None,
    }
    sources = Sources(folder, artifact, golden, pack, out / "engine")
    runs = device.measure(plan, sources, preset, say)
    judged = protocol.judge(
        runs, preset, provider=provider, precision=precision, traits=device.traits
    )
    found = record.answers(runs[0])
    latency = record.latencies(runs)
    infer = latency.get("infer")
    facts = _bare(events.last(runs[0], "facts"))
    accuracy = record.accuracy(found, images.labels, images.reference, classes)
    finished = datetime.now(UTC)
    result = BenchResult(
        run={
            "started": started.isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1),
            "edgessl": __version__,
            "agent_sha256": agent_sha256(),
        },
        model={
            "seal": artifact.seal,
            "format": artifact.format,
            "files": artifact.files,
            "bytes": sum((folder / f).stat().st_size for f in artifact.files),
            "classes": classes,
            "input": artifact.input.model_dump(mode="json"),
            "facts": artifact.facts,
        },
        data={
            "data_sha256": images.data_sha256,
            "pack_sha256": files.sha256_file(pack),
            "golden_sha256": files.sha256_file(golden),
            "n": len(images.labels),
        },
        device={"kind": device.kind, "id": device.id} | facts,
        runtime=_runtime_facts(runs, name, plan),
        protocol=_protocol_facts(runs, preset, asked),
        latency_ms=latency,
        throughput_fps=1000 / infer.p50 if infer and infer.p50 else None,
        memory_mb=record.memory_mb(runs),
        energy=_energy(device, runs, meter, asked, accuracy) if asked.energy else None,
        accuracy=accuracy,
        parity=record.parity(runs, found, images.reference),
        verdicts=judged.verdicts,
        reasons=judged.reasons,
        conditions=judged.conditions,
        result_kind=_kind(facts),
    )
    record.write_samples(out / "samples.jsonl", runs)
    record.write_telemetry(out / "telemetry.csv", runs)
    if found:
        record.write_predictions(out / "predictions.csv", images.sha256, images.labels, found)
    if asked.profile:
        write_profile(out / "profile.json", runs, modules or {}, artifact.seal)
    body = result.model_dump(mode="json", by_alias=True)
    files.write_json(out / "result.json", "bench-result", body)
    return result


def tolerance_of(artifact: Artifact, runtime: str) -> float:
    """Return the tolerance of the golden check from ``facts["tolerance"]``.

    A number, or numbers by runtime; 1e-3 of the largest logit where nothing is said.
    """
    stored = artifact.facts.get("tolerance", DEFAULT_TOLERANCE)
    if isinstance(stored, Mapping):
        stored = stored.get(runtime, DEFAULT_TOLERANCE)
    return float(stored)


def _bare(event: events.Event) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("k", "t")}


def _precision(runtime: str, provider: str, artifact: Artifact) -> str | None:
    """Return the arithmetic that is asked for; TensorRT's provider takes float16 only if told."""
    if "tensorrt" in provider.lower() and runtime == "onnxruntime":
        return "f16" if artifact.facts.get("quantize") == "fp16" else None
    return RUNTIMES[runtime].precision


def _energy(
    device: Device,
    runs: Sequence[events.Run],
    meter: Meter | None,
    asked: Asked,
    accuracy: Accuracy | None,
) -> dict[str, Any]:
    """Return the energy of an inference; a log that cannot be read costs the energy only."""
    absent, log = device.traits.no_meter(device.facts()), None
    if asked.power_csv is not None:
        meter = None
        try:
            log = read_power_csv(asked.power_csv, asked.power_scope)
        except FileInvalid as error:
            absent = error.message
    return energy_of(
        runs, meter, absent=absent, log=log, top1=accuracy.top1 if accuracy else None,
        fps=asked.fps, battery_wh=asked.battery_wh,
    )  # fmt: skip


def _kind(facts: Mapping[str, Any]) -> Literal["measured", "browser", "emulated"]:
    if facts.get("browser"):
        return "browser"
    return "emulated" if facts.get("emulated") else "measured"


def _probe(probe: Probe) -> dict[str, Any]:
    how = {"argv": list(probe.argv)} if probe.argv else {"file": probe.file}
    return {"name": probe.name, "when": probe.when} | how


def _meter(meter: Meter | None) -> dict[str, Any] | None:
    if meter is None:
        return None
    return {"hz": meter.hz, "probes": [_probe(probe) for probe in meter.probes]}


def _runtime_facts(
    runs: Sequence[events.Run], name: str, plan: Mapping[str, Any]
) -> dict[str, Any]:
    run = runs[0]
    hello, loaded = _bare(events.last(run, "hello")), _bare(events.last(run, "loaded"))
    return {
        "name": name,
        "version": hello["runtime"],
        "python": hello["python"],
        "numpy": hello["numpy"],
        "asked": {key: plan[key] for key in ("provider", "precision", "threads")},
        "used": {key: loaded[key] for key in ("providers", "precision", "threads", "input")},
        "batch": 1,
        "built": record.built(runs),
    }


def _protocol_facts(runs: Sequence[events.Run], preset: Preset, asked: Asked) -> dict[str, Any]:
    infer = [events.samples_ms(run).get("infer", []) for run in runs]
    return {
        "preset": asdict(preset) | {"shown": list(preset.shown)},
        "asked": asked_values(asked),
        "throughput_from": "1000 / p50 of infer (ms), batch 1, one after the other",
        "warmup": [_bare(events.last(run, "warmup")) for run in runs],
        "timed": [_bare(events.last(run, "timed")) for run in runs],
        "outliers": [len(events.outliers(values)) for values in infer],
        "bins": [events.bin_medians(run, preset.bin_s) for run in runs] if preset.bin_s else [],
    }

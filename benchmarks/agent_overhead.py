"""What the agent adds to a figure: its ``infer`` beside a bare loop around the runtime.

Same file, same inputs, same options, one thread, MobileNetV3-large at 224 px with random weights.
A round is three fresh processes in turning order: the agent; a bare loop over inputs that were
prepared before; and a bare loop that prepares each input between two inferences, as the agent
does, which shows how much of a difference is the caches that preparing has emptied. Each process
gives its median of ``--runs`` inferences after 1 s of warm-up. As rounds of seconds say little on a
machine with other work, the agent's sample and the bare call are also taken in turn, one by one, in
one process. Then the agent times a net that does nothing: what is left is its own.

    python benchmarks/agent_overhead.py [--rounds 24] [--runs 150] [--save]

Prints one JSON document: medians over rounds in milliseconds, their ratios agent / bare with a
95 % interval (bootstrap over rounds, 10,000 draws), and the agent's own microseconds; ``--save``
also writes it to benchmarks/results/agent_overhead.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.images import image_sha256, to_model_input
from edgessl.devices import events
from edgessl.devices.base import Board
from edgessl.devices.conversation import PROTO, Sources
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import Preset
from edgessl.devices.runtimes import RUNTIMES
from edgessl.devices.shell import LocalShell

RESULT = Path(__file__).parent / "results" / "agent_overhead.json"
TARGETS = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}
SIDE, IMAGES, WARM_S, DRAWS, PAIRS = 224, 64, 1.0, 10_000, 600
PACKAGES = ("numpy", "onnxruntime", "openvino", "ai-edge-litert")
NOTHING = """
import numpy as np
class SessionOptions:
    intra_op_num_threads = 1
class Node:
    name, shape, type = "input", [1, 3, 8, 8], "tensor(float)"
class InferenceSession:
    def __init__(self, path, options, **choices): self.y = [np.zeros((1, 10), np.float32)]
    def get_inputs(self): return [Node]
    def get_providers(self): return ["CPUExecutionProvider"]
    def get_session_options(self): return SessionOptions
    def run(self, names, feeds): return self.y
"""


def opened(runtime: str, path: str) -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """Return what gives an input to the runtime, and what runs it; options as the agent's."""
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name, feed = session.get_inputs()[0].name, {}
        return lambda x: feed.update({name: x}), lambda: session.run(None, feed)
    if runtime == "openvino":
        import openvino

        core = openvino.Core()
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                  "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}  # fmt: skip
        request = core.compile_model(path, "CPU", config).create_infer_request()
        tensor = request.get_input_tensor()
        return lambda x: np.copyto(tensor.data, x), request.infer
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(path, num_threads=1)
    net.allocate_tensors()
    index = net.get_input_details()[0]["index"]
    return lambda x: net.set_tensor(index, x), net.invoke


def bare(runtime: str, path: str, images: str, layout: str, runs: int, *, between: bool) -> float:
    """Return the median milliseconds of a loop with nothing around the runtime.

    Args:
        runtime: Name as in ``RUNTIMES``.
        path: Model file.
        images: ``.npy`` of uint8 images.
        layout: ``NCHW`` or ``NHWC``.
        runs: Inferences that are timed.
        between: Prepare each input just before its inference.
    """
    give, run = opened(runtime, path)
    pixels = np.load(images)
    spec = InputSpec.square(SIDE).with_layout("NHWC" if layout == "NHWC" else "NCHW")
    prepare = lambda i: np.ascontiguousarray(to_model_input(pixels[i : i + 1], spec))  # noqa: E731
    inputs = None if between else [prepare(i) for i in range(len(pixels))]
    took: list[int] = []
    begin, turn = time.monotonic(), 0
    while len(took) < runs:
        i = turn % len(pixels)
        give(inputs[i] if inputs is not None else prepare(i))
        start = time.perf_counter_ns()
        run()
        end = time.perf_counter_ns()
        turn += 1
        if time.monotonic() - begin > WARM_S:
            took.append(end - start)
    return median(took) / 1e6


def in_turn(plan: dict[str, Any], images: str, n: int) -> dict[str, Any]:
    """Alternate the agent's own sample with a bare call, each on a session of its own.

    Args:
        plan: As the agent's.
        images: ``.npy`` of uint8 images.
        n: Pairs that are taken.
    """
    from edgessl.devices.agents.edgessl_agent import software
    from edgessl.devices.agents.edgessl_agent.bench import Bench
    from edgessl.devices.agents.edgessl_agent.pixels import (
        make_logits,
        make_postprocess,
        make_preprocess,
    )
    from edgessl.devices.agents.edgessl_agent.runtimes import OPENERS

    module, _ = software.import_runtime(plan["runtime"])
    agent = object.__new__(Bench)
    agent.model = OPENERS[plan["runtime"]](module, plan)
    agent.preprocess = make_preprocess(plan["input"])
    agent.postprocess, agent.logits = make_postprocess(), make_logits(None)
    give, run = opened(plan["runtime"], plan["model"])
    pixels, times = np.load(images), {"agent": [0.0], "bare": [0.0]}

    def alone(image: Any) -> float:
        give(agent.preprocess(image))
        start = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - start) / 1e6

    ways = {"agent": lambda i: agent.sample(i)["infer"] / 1e6, "bare": alone}
    for turn in range(n + 20):
        for name in ("agent", "bare") if turn % 2 else ("bare", "agent"):
            times[name].append(ways[name](pixels[turn % len(pixels)]))
    taken = {name: values[-n:] for name, values in times.items()}
    return {
        "pairs": n,
        "median_ms": {name: round(median(values), 4) for name, values in taken.items()},
        "agent over bare": interval(taken["agent"], taken["bare"]),
    }


def in_fresh_process(*arguments: str) -> Any:
    """Run this file with a hidden option and return the JSON value that it printed."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def plan_of(artifact: Artifact, runtime: str) -> dict[str, Any]:
    """Return a plan for the CPU path of a runtime, as a bench would make it."""
    asked = RUNTIMES[runtime]
    return {
        "proto": PROTO, "runtime": runtime, "provider": asked.provider,
        "precision": asked.precision, "threads": 1, "seal": artifact.seal,
        "output": artifact.output.model_dump(mode="json"),
        "input": artifact.input.model_dump(mode="json") | {"shape": artifact.input.shape},
        "tolerance": 1e-3, "rotation": list(range(IMAGES)), "has_reference": False,
    }  # fmt: skip


def agent_events(stage: Path, pack: Path, runtime: str, runs: int, home: str) -> events.Run:
    """Run a plan by the agent, as a bench does, and return what it told."""
    artifact = Artifact.load(stage)
    device = LinuxDevice(Board("local"), LocalShell())
    if home:
        device.__dict__["runtimes"] = {runtime: home}
    plan = plan_of(artifact, runtime)
    preset = Preset("overhead", 10, WARM_S, runs, 0.0, ("p50",))
    sources = Sources(stage, artifact, stage / "golden.npz", pack)
    try:
        (told,) = device.measure(plan, sources, preset, lambda _line: None)
    finally:
        device.close()
    return told


def write_stage(folder: Path, artifact: Artifact, images: Any, logits: Any) -> Path:
    """Write what a bench needs beside the sealed files, and return the pack."""
    np.savez(
        folder / "golden.npz",
        images=images[: len(logits)], reference=logits, expected=logits, seal=artifact.seal,
    )  # fmt: skip
    names = np.array([image_sha256(image) for image in images])
    pack = folder.with_name(f"{folder.name}-pack.npz")
    np.savez(pack, images=images, labels=np.full(len(images), -1), sha256=names)
    return pack


def interval(agent: list[float], other: list[float]) -> dict[str, float]:
    """Return the ratio of medians with its bootstrap interval over rounds."""
    pairs, rng = np.array([agent, other]), np.random.default_rng(0)
    draws = rng.integers(0, len(agent), (DRAWS, len(agent)))
    medians = np.median(pairs[:, draws], axis=2)
    low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975))
    ratio = median(agent) / median(other)
    return {"ratio": round(ratio, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def compared(folder: Path, net: Any, target: str, rounds: int, runs: int) -> dict[str, Any]:
    """Take the rounds of one runtime."""
    from edgessl.exporters import EXPORTERS
    from edgessl.exporters.base import Form

    runtime, stage = TARGETS[target], folder / target
    stage.mkdir()
    exporter = EXPORTERS.load(target)()
    written = exporter.write(net, InputSpec.square(SIDE), stage, Form())
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    session = exporter.open(stage)
    x = to_model_input(images[:4], written.input)
    logits = np.concatenate([np.asarray(session.infer(row[None])) for row in x])
    artifact = Artifact.sealed(
        stage, [path.name for path in sorted(stage.iterdir(), key=lambda p: p.suffix != ".xml")],
        artifact_kind="export", format=target, input=written.input,
    )  # fmt: skip
    pack = write_stage(stage, artifact, images, logits)
    pixels = folder / "images.npy"
    np.save(pixels, images)
    model = str(stage / artifact.main_file)

    def by_agent() -> float:
        told = agent_events(stage, pack, runtime, runs, "")
        return median(events.samples_ms(told)["infer"])

    def by_loop(between: str) -> float:
        return in_fresh_process(
            "--bare", runtime, model, str(pixels), written.input.layout, str(runs), between
        )

    ways: dict[str, Callable[[], float]] = {
        "agent": by_agent,
        "bare": lambda: by_loop("before"),
        "bare, prepared between": lambda: by_loop("between"),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds):
        for name in names[turn % 3 :] + names[: turn % 3]:
            taken[name].append(ways[name]())
        print(json.dumps({n: round(t[-1], 3) for n, t in taken.items()}), file=sys.stderr)
    others = [name for name in names if name != "agent"]
    plan = plan_of(artifact, runtime) | {"model": model}
    alternated = in_fresh_process("--turns", json.dumps(plan), str(pixels), str(PAIRS))
    return {
        "runtime": runtime,
        "in turn": alternated,
        "rounds": rounds,
        "median_ms": {name: round(median(times), 4) for name, times in taken.items()},
        "agent over": {name: interval(taken["agent"], taken[name]) for name in others},
        "rounds_ms": {name: [round(t, 4) for t in times] for name, times in taken.items()},
    }


def nothing(folder: Path, runs: int) -> dict[str, Any]:
    """Time a net that does nothing, through the whole agent."""
    stage, private = folder / "nothing", folder / "private"
    stage.mkdir()
    private.mkdir()
    (private / "onnxruntime.py").write_text(NOTHING)
    (stage / "model.onnx").write_bytes(b"")
    artifact = Artifact.sealed(
        stage, ["model.onnx"], artifact_kind="export", format="onnx", input=InputSpec.square(8)
    )
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), np.uint8)
    pack = write_stage(stage, artifact, images, np.zeros((4, 10), np.float32))
    told = agent_events(stage, pack, "onnxruntime", runs, str(private))
    samples = events.samples_ms(told)
    begins, whole = samples["at_s"], samples["e2e_from_uint8"]
    gaps = [
        1e6 * (later - begin) - 1e3 * ms
        for begin, later, ms in zip(begins, begins[1:], whole, strict=False)
    ]
    return {
        "n": len(whole),
        "infer_us": round(1e3 * median(samples["infer"]), 2),
        "preprocess_8px_us": round(1e3 * median(samples["preprocess"]), 2),
        "between_samples_us": round(median(gaps), 2),
    }


def measure(rounds: int, runs: int) -> dict[str, Any]:
    """Take everything."""
    import torch
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v3_large(num_classes=100).eval()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [compared(folder, net, target, rounds, runs) for target in TARGETS]
        own = nothing(folder, 20_000)
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": {"before": load, "after": os.getloadavg()[0]},
        "network": f"mobilenet_v3_large, 100 classes, {SIDE} px, batch 1, 1 thread",
        "runs_per_process": runs,
        "rows": rows,
        "own": own,
    }


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=24, help="at least 20")
    parser.add_argument("--runs", type=int, default=150, help="inferences in each process")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name} too")
    parser.add_argument("--bare", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--turns", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        runtime, path, images, layout, runs, between = options.bare
        print(bare(runtime, path, images, layout, int(runs), between=between == "between"))
        return
    if options.turns:
        plan, images, pairs = options.turns
        print(json.dumps(in_turn(json.loads(plan), images, int(pairs))))
        return
    if options.rounds < 20:
        parser.error(f"{options.rounds} rounds say little; take at least 20")
    text = json.dumps(measure(options.rounds, options.runs), indent=1)
    print(text)
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

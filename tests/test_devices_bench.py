"""The bench, agent and all, on a tiny net: right figures, and every way in which it can go wrong.

Presets last fractions of a second and no time is asserted.
"""

import csv
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import (
    DataInvalid,
    EdgeSSLError,
    FileInvalid,
    MissingExtra,
    NativeCrash,
    UsageProblem,
)
from edgessl.core.images import image_sha256, to_model_input
from edgessl.core.measurement import BenchResult
from edgessl.core.statistics import wilson
from edgessl.devices import DEVICES, conversation, events
from edgessl.devices.base import AGENT, Board
from edgessl.devices.bench import bench_artifact
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import Preset
from edgessl.devices.record import calibration_error
from edgessl.devices.shell import LocalShell

SPEC = InputSpec.square(8)
CLASSES, N = 7, 90
MINI = Preset("mini", 3, 0.02, 40, 0.1, ("p50",), settle_window_s=0.02, warmup_cap_s=0.2)
TIMING = {"UNSTABLE", "BUSY", "VALID"}  # what a loaded test machine decides


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory):
    """conv - relu - mean - matmul: 8 x 8 images to 7 logits, random weights."""
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "fc": rng.standard_normal((6, CLASSES)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w"], ["a"], pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("ReduceMean", ["b", "axes"], ["c"], keepdims=0),
            helper.make_node("MatMul", ["c", "fc"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 18)
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path, weights


def images_and_logits(weights):
    """Random pixels and their logits by an independent implementation: a conv as nine shifts."""
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    images[5] = images[4]  # a duplicate: it must not count as a different input
    x = np.pad(to_model_input(images, SPEC), ((0, 0), (0, 0), (1, 1), (1, 1)))
    conv = sum(
        np.einsum("nchw,oc->nohw", x[:, :, i : i + 8, j : j + 8], weights["w"][:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    return images, np.maximum(conv, 0).mean((2, 3)) @ weights["fc"]


def write_stage(folder, sources, form, images, logits, spec=SPEC, **facts):
    """Write an export stage folder and a pack whose every third label is wrong."""
    folder.mkdir()
    for source in sources:
        (folder / source.name).write_bytes(source.read_bytes())
    artifact = Artifact.sealed(
        folder,
        [source.name for source in sources],
        artifact_kind="export",
        format=form,
        input=spec,
        labels=tuple("abcdefg"),
        facts=facts,
    )
    np.savez(
        folder / "golden.npz",
        images=images[:16], reference=logits[:16], expected=logits[:16], seal=artifact.seal,
    )  # fmt: skip
    labels = logits.argmax(1).astype(np.int64)
    labels[::3] = (labels[::3] + 1) % CLASSES
    names = np.array([image_sha256(image) for image in images])
    pack = folder.with_name(f"{folder.name}-pack.npz")
    np.savez(pack, images=images, labels=labels, sha256=names, reference=logits)
    return folder, pack


@pytest.fixture
def stage(tiny_onnx, tmp_path):
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    path, weights = tiny_onnx
    return write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))


@pytest.fixture
def device():
    device = DEVICES.load("local")(Board("local"))
    yield device
    assert not any(
        Path(device.shell.workdir).iterdir()
    )  # every bench cleans up, also after a failure
    device.close()


def change(pack, **arrays):
    with np.load(pack) as old:
        kept = dict(old)
    np.savez(pack, **(kept | arrays))


def bench(device, stage, out, **choices):
    return bench_artifact(device, *stage, out, **({"preset": MINI} | choices))


def test_the_figures_of_a_healthy_run(device, stage, tmp_path):
    said = []
    preset = Preset("mini", 3, 0.02, 40, 0.1, ("p50",), repeats=2)
    result = bench(device, stage, tmp_path / "out", preset=preset, progress=said.append)
    out = tmp_path / "out"
    assert set(result.verdicts) <= TIMING
    assert result.result_kind == "measured"

    with np.load(stage[1]) as pack:
        labels, names, logits = pack["labels"], pack["sha256"], pack["reference"]
    assert result.accuracy.n == N
    assert result.accuracy.top1 == pytest.approx(60 / 90)
    assert (result.accuracy.ci_low, result.accuracy.ci_high) == wilson(60, 90)
    top5 = np.argsort(-logits, 1)[:, :5]
    assert result.accuracy.top5 == pytest.approx(
        np.mean([y in t for y, t in zip(labels, top5, strict=True)])
    )
    assert result.accuracy.agreement == 1
    assert result.accuracy.ece_shift == pytest.approx(0, abs=1e-5)
    assert [(c.level, c.n, c.passed) for c in result.parity] == [
        ("golden", 16, True), ("answers", N, True),
    ]  # fmt: skip
    assert max(c.max_abs for c in result.parity) < 1e-5

    with (out / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["sha256"] for row in rows] == names.tolist()
    assert [int(row["predicted"]) for row in rows] == logits.argmax(1).tolist()
    p = np.sort(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1)
    np.testing.assert_allclose([float(r["score"]) for r in rows], p[:, -1], rtol=1e-4)
    margins = [float(r["margin"]) for r in rows]
    np.testing.assert_allclose(margins, p[:, -1] - p[:, -2], rtol=1e-3, atol=1e-6)

    samples = files.read_jsonl(out / "samples.jsonl")
    infer = result.latency_ms["infer"]
    assert len(samples) == infer.n >= 80
    assert [s["infer_ms"] for s in samples if s["infer_ms"] in (infer.min, infer.max)]
    for repeat in (1, 2):
        moments = [s["at_s"] for s in samples if s["repeat"] == repeat]
        assert len(moments) >= 40
        assert moments == sorted(moments)
    for s in samples:
        parts = s["preprocess_ms"] + s["infer_ms"] + s["postprocess_ms"]
        assert parts <= s["e2e_from_uint8_ms"]
    assert result.latency_ms["load"].n == result.latency_ms["first"].n == 2
    assert result.latency_ms["load"].p50 is None
    assert result.throughput_fps == pytest.approx(1000 / infer.p50)
    # ONNX Runtime copies inside its call: the parts do not exist, they are not zero
    assert "copy_in" not in result.latency_ms

    assert result.runtime["used"]["providers"] == ["CPUExecutionProvider"]
    assert result.protocol["timed"][0]["inputs"] == N - 1
    assert 0 < result.memory_mb["model_rss"] < result.memory_mb["max_rss"] < 2000
    assert said[0] == f"process 1 of 2 on {device.id}"


def test_records_are_whole_readable_and_private(device, stage, tmp_path):
    out = tmp_path / "out"
    result = bench(device, stage, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "predictions.csv", "result.json", "samples.jsonl", "telemetry.csv",
    ]  # fmt: skip
    body = files.read_json(out / "result.json", "bench-result")
    assert BenchResult.model_validate(body) == result
    assert body["model"]["seal"] == Artifact.load(stage[0]).seal
    json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)  # no NaN
    with (out / "telemetry.csv").open() as stream:
        phases = [row["phase"] for row in csv.DictReader(stream)]
    assert phases[0] == "before"
    assert phases[-1] == "after"
    assert {"start", "end"} <= set(phases)
    text = "".join(p.read_text() for p in out.iterdir())
    for private in (str(tmp_path), device.shell.workdir, str(Path.home()), sys.executable):
        assert private not in text


def test_openvino_runs_in_float32_and_separates_its_copies(device, tiny_onnx, tmp_path):
    openvino = pytest.importorskip("openvino", reason="runs the tiny model as IR")
    path, weights = tiny_onnx
    openvino.save_model(openvino.convert_model(path), tmp_path / "model.xml", False)
    sources = [tmp_path / "model.xml", tmp_path / "model.bin"]
    stage = write_stage(tmp_path / "ir", sources, "openvino", *images_and_logits(weights))
    result = bench(device, stage, tmp_path / "out")
    assert set(result.verdicts) <= TIMING
    assert result.runtime["used"]["precision"] == "f32"
    assert result.runtime["used"]["providers"] == ["CPU"]
    assert result.parity[0].max_abs < 1e-5
    assert result.accuracy.agreement == 1
    assert {"copy_in", "infer", "copy_out"} <= set(result.latency_ms)


@pytest.mark.slow
def test_litert_runs_on_its_delegate_and_the_builtin_kernels_are_another_backend(device, tmp_path):
    litert_torch = pytest.importorskip("litert_torch", reason="converts the tiny model")
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(216, CLASSES)
    ).eval()
    sample = (torch.zeros(1, 8, 8, 3),)
    litert_torch.convert(litert_torch.to_channel_last_io(net, args=[0]).eval(), sample).export(
        str(tmp_path / "model.tflite")
    )
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = net(torch.from_numpy(to_model_input(images, SPEC))).numpy()
    spec = SPEC.with_layout("NHWC")
    sources = [tmp_path / "model.tflite"]
    stage = write_stage(tmp_path / "lite", sources, "tflite", images, logits, spec)
    result = bench(device, stage, tmp_path / "out")
    assert set(result.verdicts) <= TIMING
    assert result.runtime["used"]["providers"] == ["XNNPACK"]
    assert result.accuracy.agreement == 1
    other = bench(device, stage, tmp_path / "builtin", provider="builtin")
    assert other.runtime["used"]["providers"] == ["builtin"]
    assert "WRONG_BACKEND" not in other.verdicts


@pytest.mark.parametrize("which", ["expected", "reference"])
def test_wrong_answers_are_reported_and_never_timed(device, stage, tmp_path, which):
    with np.load(stage[0] / "golden.npz") as golden:
        shifted = golden[which] + np.float32(0.1)
    change(stage[0] / "golden.npz", **{which: shifted})
    preset = Preset("mini", 3, 0.02, 40, 0.1, ("p50",), repeats=3)
    result = bench(device, stage, tmp_path / "out", preset=preset)
    assert result.verdicts == ("WRONG_ANSWERS",)
    assert result.latency_ms == {}
    assert result.throughput_fps is None
    assert result.accuracy is None
    assert not result.parity[0].passed
    assert (tmp_path / "out" / "samples.jsonl").read_text() == ""
    assert not (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.parametrize("which", ["expected", "reference"])
def test_nan_in_a_golden_record_fails_it_and_leaves_valid_json(device, stage, tmp_path, which):
    with np.load(stage[0] / "golden.npz") as golden:
        broken = golden[which].copy()
    broken[3, 2] = np.nan
    change(stage[0] / "golden.npz", **{which: broken})
    assert bench(device, stage, tmp_path / "out").verdicts == ("WRONG_ANSWERS",)
    json.loads((tmp_path / "out/result.json").read_text(), parse_constant=pytest.fail)


def test_a_tolerance_in_the_artifact_is_used(device, tiny_onnx, tmp_path):
    path, weights = tiny_onnx
    images, logits = images_and_logits(weights)
    off = logits + np.float32(0.002 * np.abs(logits[:16]).max())
    strict = write_stage(tmp_path / "strict", [path], "onnx", images, off)
    loose = write_stage(
        tmp_path / "loose", [path], "onnx", images, off, tolerance={"onnxruntime": 0.01}
    )
    assert bench(device, strict, tmp_path / "a").verdict == "WRONG_ANSWERS"
    assert "WRONG_ANSWERS" not in bench(device, loose, tmp_path / "b").verdicts


def test_a_silent_fallback_is_the_wrong_backend(device, stage, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the provider that must be absent")
    result = bench(device, stage, tmp_path / "out", provider="CUDAExecutionProvider")
    assert result.verdict == "WRONG_BACKEND"
    assert "asked for CUDAExecutionProvider, ran on CPUExecutionProvider" in result.reasons[0]


def test_a_cap_that_ends_a_run_early_makes_it_too_short(device, stage, tmp_path):
    preset = Preset("capped", 1, 0.0, 10**9, 0.0, ("p50",), timed_cap_s=0.05)
    assert "TOO_SHORT" in bench(device, stage, tmp_path / "out", preset=preset).verdicts


def test_an_altered_model_a_foreign_golden_record_and_a_misfit_pack_are_refused(
    device, stage, tmp_path
):
    folder, _ = stage
    change(folder / "golden.npz", seal="0" * 64)
    with pytest.raises(FileInvalid, match="does not belong"):
        bench(device, stage, tmp_path / "out")
    (folder / "golden.npz").unlink()
    with pytest.raises(FileInvalid, match="no such file"):
        bench(device, stage, tmp_path / "out")
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(FileInvalid, match="changed or cut"):
        bench(device, stage, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((N, 9, 8, 3), np.uint8)}, "8 x 8 x 3"),
        ({"images": np.zeros((N, 8, 8, 3), np.float32)}, "float32"),
        ({"labels": np.zeros(3, np.int64)}, "90 images"),
        ({"sha256": np.array([{}], object)}, "not an evaluation pack"),
    ],
)
def test_a_pack_that_does_not_fit_is_refused(device, stage, tmp_path, arrays, said):
    change(stage[1], **arrays)
    with pytest.raises(DataInvalid, match=said):
        bench(device, stage, tmp_path / "out")


def test_a_format_needs_its_own_runtime(device, stage, tmp_path):
    with pytest.raises(UsageProblem, match="'onnx' files do not run with 'litert'"):
        bench(device, stage, tmp_path / "out", runtime="litert")


def test_an_unlabelled_pack_gives_times_and_predictions_but_no_accuracy(device, stage, tmp_path):
    change(stage[1], labels=np.full(N, -1))
    result = bench(device, stage, tmp_path / "out")
    assert result.accuracy is None
    assert result.latency_ms["infer"].n >= 40
    assert (tmp_path / "out" / "predictions.csv").exists()


class Sabotaged(LocalShell):
    """A board whose ONNX Runtime is the module in ``code``."""

    code = ""

    def put(self, local, remote):
        super().put(local, remote)
        if "/agent-" in remote:
            (Path(self.workdir) / remote).with_name("onnxruntime.py").write_text(FAKE + self.code)


FAKE = """
import os, time
import numpy as np
class SessionOptions:
    intra_op_num_threads = 1
class Node:
    name, shape, type = "input", [1, 3, 8, 8], "tensor(float)"
class InferenceSession:
    def __init__(self, path, options, providers): pass
    def get_inputs(self): return [Node]
    def get_providers(self): return ["CPUExecutionProvider"]
    def get_session_options(self): return SessionOptions
"""


def sabotaged(code, stage, out):
    shell = Sabotaged()
    shell.code = code
    try:
        return bench_artifact(LinuxDevice(Board("local"), shell), *stage, out, preset=MINI)
    finally:
        assert not any(Path(shell.workdir).iterdir())
        shell.close()


def test_native_prints_do_not_corrupt_the_stream(stage, tmp_path):
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    code = """
os.write(1, b"Loading kernels... ")
print("from python too")
def run(self, names, feeds):
    os.write(1, b'{"k":"done","t":0,"max_rss_mb":1}')
    return [np.ones((1, 7), np.float32)]
InferenceSession.run = run
"""
    result = sabotaged(code, stage, tmp_path / "out")
    assert set(result.verdicts) <= TIMING
    assert result.accuracy.n == N


def test_a_native_crash_names_its_signal_and_last_words(stage, tmp_path):
    code = """
def run(self, names, feeds):
    os.write(2, b"illegal kernel\\n")
    os.abort()
InferenceSession.run = run
"""
    with pytest.raises(NativeCrash, match=r"signal 6 after 'loaded': (.|\n)*illegal kernel"):
        sabotaged(code, stage, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_hangs_is_given_up(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(conversation, "SILENCE_S", 3.0)
    with pytest.raises(EdgeSSLError, match="said nothing for 3 s"):
        sabotaged("InferenceSession.run = lambda *a: time.sleep(60)", stage, tmp_path / "out")


def test_an_input_that_is_not_the_contracts_is_refused(stage, tmp_path):
    with pytest.raises(FileInvalid, match=r"float32 \[1, 3, 9, 9\]"):
        sabotaged("Node.shape = [1, 3, 9, 9]", stage, tmp_path / "out")


def test_the_agent_ends_when_its_input_closes(stage, tmp_path):
    """Nothing kills it here: it must notice by itself, in the middle of a model that never ends."""
    (tmp_path / "onnxruntime.py").write_text(
        FAKE + "def run(*a):\n    os.write(2, b'busy\\n')\n    time.sleep(600)\n"
        "InferenceSession.run = run\n"
    )
    (tmp_path / "agent.py").write_bytes(AGENT.read_bytes())
    plan = {
        "proto": 1, "runtime": "onnxruntime", "provider": "x", "precision": None, "threads": 1,
        "model": "m", "input": SPEC.model_dump(mode="json") | {"shape": SPEC.shape},
        "golden": str(stage[0] / "golden.npz"), "pack": str(stage[1]), "tolerance": 1.0,
        "rotation": [0], "has_reference": False, "score": False,
        "timing": {"cool_to_c": None, "cooldown_cap_s": 0},
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "agent.py", "bench", "--plan", tmp_path / "plan.json"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while process.stderr.readline() != b"busy\n":
            assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.stderr.close()


def scripted(lines, status=0, errors=""):
    """A board that tells its facts and then plays ``lines`` for a bench."""
    facts = {"k": "facts", "t": 0, "board": "Pi", "cpu": "x", "cores": 4, "host_hash": "0a1b2c"}

    def script(argv):
        if argv[-1] == "facts":
            return Answer(json.dumps(facts))
        return Answer("\n".join(lines), status, errors)

    return LinuxDevice(Board("local", python="python3.11"), FakeShell(script))


def test_a_board_is_driven_through_its_shell_alone(device, stage, tmp_path):
    """Replay what the agent said on this machine as a board elsewhere: the same record."""
    told = []

    class Overheard(LocalShell):
        @contextmanager
        def start(self, argv):
            with super().start(argv) as stream:
                read_line = stream.read_line
                stream.read_line = lambda timeout_s: told.append(read_line(timeout_s)) or told[-1]
                yield stream

    here = bench_artifact(
        LinuxDevice(Board("local"), Overheard()), *stage, tmp_path / "a", preset=MINI
    )
    board = scripted(["a greeting of the login shell", *told[:-1], '{"k":"news"}'])
    there = bench_artifact(board, *stage, tmp_path / "b", preset=MINI)
    assert there.latency_ms == here.latency_ms
    assert there.verdicts == here.verdicts
    assert (tmp_path / "a/samples.jsonl").read_bytes() == (
        tmp_path / "b/samples.jsonl"
    ).read_bytes()

    shell = board.shell
    verbs = [verb for verb, _ in shell.transcript]
    assert verbs == ["put"] * 4 + ["put", "put", "run", "remove", "start", "remove"]
    agent_hash, seal = files.sha256_file(AGENT)[:16], Artifact.load(stage[0]).seal[:16]
    names = [argv[0] for verb, argv in shell.transcript if verb == "put"]
    root = names[0].split("/")[0]
    assert names[0] == f"{root}/agent-{agent_hash}.py"
    assert f"{root}/model-{seal}/model.onnx" in names
    assert ("start", ("python3.11", names[0], "bench", "--plan", f"{root}/plan-1.json")) in (
        shell.transcript
    )
    assert shell.transcript[-1] == ("remove", (root,))
    assert shell.files == {}


def test_an_agent_that_stops_talking_without_done_is_a_failure(stage, tmp_path):
    board = scripted(['{"k":"hello","t":0}'], status=1, errors="Traceback: no space left")
    with pytest.raises(EdgeSSLError, match="status 1 after 'hello': Traceback: no space left"):
        bench_artifact(board, *stage, tmp_path / "out", preset=MINI)
    assert board.shell.files == {}


def test_a_missing_runtime_names_the_extra(stage, tmp_path):
    board = scripted(['{"k":"error","t":0,"type":"MissingRuntime","msg":"none"}'], status=1)
    with pytest.raises(MissingExtra) as caught:
        bench_artifact(board, *stage, tmp_path / "out", preset=MINI)
    assert "edgessl[onnx]" in caught.value.hint
    assert board.id in caught.value.message


def test_repeats_cool_down_to_where_the_first_began():
    run = [{"k": "tel", "phase": "before", "t": 0, "temp_c": {"a": 40.0, "b": 41.5}}]
    assert conversation.timing_of(MINI, [])["cool_to_c"] is None
    assert conversation.timing_of(MINI, [run])["cool_to_c"] == 44.5
    blind = [{"k": "tel", "phase": "before", "t": 0, "temp_c": {}}]
    assert conversation.timing_of(MINI, [blind])["cool_to_c"] is None
    assert events.telemetry(run, "before")["temp_c"]["b"] == 41.5


def test_calibration_error_of_a_case_by_hand():
    # bins of 1/15: two answers at 0.95 (one right) and two at 0.30 (none right)
    confidence, right = np.array([0.95, 0.95, 0.3, 0.3]), np.array([True, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx((abs(1.9 - 1) + 0.6) / 4)

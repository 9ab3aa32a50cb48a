"""The bench, agent and all, on a tiny net: right figures, right records, right runtimes.

Presets last fractions of a second and no time is asserted; faults are in test_devices_faults.
"""

import csv
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tiny_bench import (
    CLASSES,
    MINI,
    SPEC,
    TIMING,
    N,
    bench,
    change,
    images_and_logits,
    leftovers,
    write_onnx,
    write_stage,
)

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import UsageProblem
from edgessl.core.images import to_model_input
from edgessl.core.measurement import BenchResult
from edgessl.core.statistics import wilson
from edgessl.devices import DEVICES, conversation, events
from edgessl.devices.agent_file import agent_name, agent_sha256
from edgessl.devices.base import Board
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import Preset
from edgessl.devices.record import calibration_error
from edgessl.devices.shell import LocalShell


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    return write_onnx(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def stage(tiny_onnx, tmp_path):
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    path, weights = tiny_onnx
    return write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))


@pytest.fixture
def device():
    device = DEVICES.load("local")(Board("local"))
    yield device
    assert leftovers(device) == []  # every bench cleans up, also after a failure
    device.close()


def test_what_only_a_phone_can_do_is_refused_elsewhere(device, stage, tmp_path):
    with pytest.raises(UsageProblem, match=r"a mode of Android phones.* kind 'local'") as caught:
        bench(device, stage, tmp_path / "out", fixed_performance=True)
    assert caught.value.hint == "bench without --fixed-performance"
    assert not (tmp_path / "out").exists()


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


def test_an_unlabelled_pack_gives_times_and_predictions_but_no_accuracy(device, stage, tmp_path):
    change(stage[1], labels=np.full(N, -1))
    result = bench(device, stage, tmp_path / "out")
    assert result.accuracy is None
    assert result.latency_ms["infer"].n >= 40
    assert (tmp_path / "out" / "predictions.csv").exists()


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

    here = bench(LinuxDevice(Board("local"), Overheard()), stage, tmp_path / "a")
    lines = ["a greeting of the login shell", *told[:-1], '{"k":"news"}']
    facts = {"k": "facts", "t": 0, "board": "Pi", "cpu": "x", "cores": 4, "host_hash": "0a1b2c"}
    facts_line = json.dumps(facts)

    def script(argv):
        return Answer(facts_line if argv[-1] == "facts" else "\n".join(lines))

    board = LinuxDevice(Board("local", python="python3.11"), FakeShell(script))
    there = bench(board, stage, tmp_path / "b")
    assert there.latency_ms == here.latency_ms
    assert there.verdicts == here.verdicts
    assert (tmp_path / "a/samples.jsonl").read_bytes() == (
        tmp_path / "b/samples.jsonl"
    ).read_bytes()

    shell = board.shell
    verbs = [verb for verb, _ in shell.transcript]
    assert verbs == ["put", "run", *["put"] * 5, "start", "remove"]
    seal = Artifact.load(stage[0]).seal[:16]
    names = [argv[0] for verb, argv in shell.transcript if verb == "put"]
    pack = f"pack-{files.sha256_file(stage[1])[:16]}.npz"
    assert names[:3] == [agent_name(), agent_name(), pack]
    root = names[3].split("/")[0]
    assert f"{root}/model-{seal}/model.onnx" in names
    plan = f"{root}/process-1/plan.json"
    assert ("start", ("python3.11", agent_name(), "bench", "--plan", plan)) in shell.transcript
    assert shell.transcript[-1] == ("remove", (root,))
    assert set(shell.files) == {agent_name(), pack}  # for the next model; they go with the shell
    assert there.run["agent_sha256"] == agent_sha256()


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

"""TensorRT on a board: the logic around it, against a stand-in that checks the order of calls.

No GPU runs here. What the stand-in cannot tell: whether NVIDIA's packages do what their pages say.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_bench import bench, images_and_logits, leftovers, measure, write_onnx, write_stage

from edgessl.core import files
from edgessl.core.errors import EdgeSSLError
from edgessl.devices import events
from edgessl.devices.base import Board
from edgessl.devices.conversation import fetch_engine
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.shell import LocalShell

pytest.importorskip("onnx", reason="the tiny model is built with onnx")
pytest.importorskip("onnxruntime", reason="the stand-in runs the model with it")
STAND_IN = Path(__file__).parent / "support" / "pretended_tensorrt.py"


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def stage(tiny_onnx, tmp_path):
    path, weights = tiny_onnx
    return write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Return a pretended Jetson with a version of TensorRT; its calls are logged in order."""
    private, log = tmp_path / "runtime", tmp_path / "calls"
    private.mkdir()
    shutil.copy(STAND_IN, private / "tensorrt.py")
    monkeypatch.setenv("PRETENDED_LOG", str(log))

    def make(version, gpu="Orin"):
        monkeypatch.setenv("PRETENDED_TENSORRT", version)
        monkeypatch.setenv("PRETENDED_GPU", gpu)
        log.write_text("")
        device = LinuxDevice(Board("local"), LocalShell())
        device.shell.home = str(tmp_path / "home")
        device.__dict__["runtimes"] = {"tensorrt": str(private)}
        return device

    return make


@pytest.fixture
def jetson(board, tmp_path):
    """Return what an agent did on a pretended Jetson: its events, and the calls in order."""
    log = tmp_path / "calls"

    def run(stage, version, gpu="Orin", **choices):
        device = board(version, gpu)
        plan = {"runtime": "tensorrt", "provider": "TensorRT", "precision": None} | choices
        try:
            (told,) = measure(device, stage, **plan)
        finally:
            assert leftovers(device) == []
            device.close()
        return told, log.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("version", "flags", "execute"),
    [("8.4.1", "1", "execute_async_v2"), ("8.5.2", "1", "execute_async_v3"),
     ("10.3.0", "2", "execute_async_v3"), ("11.4.1", "0", "execute_async_v3")],
)  # fmt: skip
def test_every_version_builds_copies_runs_and_copies_back_in_this_order(
    jetson, stage, version, flags, execute
):
    told, calls = jetson(stage, version)
    assert events.last(told, "golden")["ok"]  # the bytes went the right way round
    building = calls.index("deserialize")
    # TF32 is not float32; nothing asked for float16 or integers
    assert calls[:building] == [f"network {flags}", "clear TF32", "timing cache 0", "build"]
    sizes = {"in": 4 * 3 * 8 * 8, "out": 4 * 7}
    one = [f"copy in {sizes['in']}", "wait", execute, "wait", f"copy out {sizes['out']}", "wait"]
    assert calls[building + 1 : building + 7] == one
    assert calls[-6:] == one
    built, loaded = events.last(told, "built"), events.last(told, "loaded")
    assert (built["gpu"], built["version"], built["reused"]) == ("Orin sm_87", version, False)
    assert built["s"] > 0
    assert loaded["providers"] == ["TensorRT"]
    assert loaded["precision"] == "f32"
    parts = set(events.samples_ms(told))
    assert {"copy_in", "infer", "copy_out", "preprocess", "e2e_from_uint8"} <= parts
    kinds = [event["k"] for event in told]
    assert kinds.index("building") < kinds.index("built") < kinds.index("loaded")


def test_an_engine_is_kept_and_used_again_only_where_everything_agrees(jetson, stage):
    told, _ = jetson(stage, "10.3.0")
    first = events.last(told, "built")
    path = Path(first["path"])
    assert files.sha256_file(path) == first["sha256"]
    assert path.parent.name == "engines"
    assert path.parent.stat().st_mode & 0o077 == 0
    assert "10.3.0-Orin_sm_87" in path.name

    told, calls = jetson(stage, "10.3.0")
    again = events.last(told, "built")
    assert again == first | {"t": again["t"], "reused": True}  # its own seconds, from then
    assert "build" not in calls
    for version, gpu in (("10.3.1", "Orin"), ("10.3.0", "Xavier")):
        told, calls = jetson(stage, version, gpu)
        assert "build" in calls
        assert events.last(told, "built")["path"] != str(path)
    path.write_bytes(path.read_bytes()[:-1])  # half copied, or altered
    told, calls = jetson(stage, "10.3.0")
    assert "build" in calls
    assert "timing cache 1" in calls  # what was timed then is not timed again
    assert events.last(told, "built")["sha256"] == first["sha256"]
    # a record of another engine does not vouch for this one
    path.with_name(path.name + ".json").write_text(json.dumps({"sha256": first["sha256"]}))
    _, calls = jetson(stage, "10.3.0")
    assert "build" in calls


def test_the_engine_is_told_recorded_and_brought_home_with_its_timing_cache(board, stage, tmp_path):
    lines, results = [], []
    for name in ("first", "second"):
        device = board("10.3.0")
        out = tmp_path / name
        results.append(bench(device, stage, out, runtime="tensorrt", progress=lines.append))
        device.close()
    built, again = (result.runtime["built"] for result in results)
    engine, timing = out / "engine" / "model.engine", out / "engine" / "timing.cache"
    kept = tmp_path / "home" / built["path"]
    assert files.sha256_file(engine) == files.sha256_file(kept) == built["sha256"]
    assert timing.read_bytes() == next(kept.parent.glob("*.cache")).read_bytes()
    assert (built["gpu"], built["version"], built["reused"]) == ("Orin sm_87", "10.3.0", False)
    assert again == built | {"reused": True}
    assert str(tmp_path) not in (out / "result.json").read_text()
    told = [line for line in lines if line.startswith("engine ")]
    assert told[0].startswith("engine built in ")
    assert told[0].endswith(str(kept))
    assert told[1] == f"engine used again, on the board: {kept}"


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/etc/passwd", b"", ""),
        ("{home}/engines/../../secret", b"", ""),
        ("{home}/engines/a.engine", b"another", "its hash is not the one that was told"),
        ("{home}/engines/gone.engine", None, "stays on the board"),
    ],
)
def test_only_the_engine_that_was_told_is_copied_from_a_board(tmp_path, path, content, words):
    lines, out = [], tmp_path / "out"
    shell = LocalShell()
    shell.home = str(tmp_path)
    path = path.format(home=tmp_path)
    (tmp_path / "engines").mkdir()
    (tmp_path / "secret").write_bytes(b"")
    if content:
        Path(path).write_bytes(content)
    told = {"k": "built", "path": path, "sha256": files.sha256_bytes(b""), "timing_cache": ""}
    fetch_engine(shell, [told], out, lines.append)
    shell.close()
    assert not out.exists() or not list(out.iterdir())
    assert words in "".join(lines)
    assert bool(lines) is bool(words)


@pytest.mark.parametrize(
    ("version", "traits", "precision", "networks", "flags", "ran"),
    [
        ("8.5.2", "HALF", None, ["1"], ["FP16"], "f16"),
        ("8.5.2", "QUANTISED", None, ["1"], ["INT8"], "f32"),
        ("8.5.2", "", "f16", ["1"], ["FP16"], "f16"),
        # types are in the file: no flags
        ("10.3.0", "HALF", None, ["2"], [], "f16"),
        ("10.3.0", "QUANTISED", None, ["2"], [], "f32"),
        ("10.3.0", "HALF", "f16", ["2"], [], "f16"),
        # a float32 file in float16 is a network with weak types
        ("10.3.0", "", "f16", ["2", "1"], ["FP16"], "f16"),
        ("11.4.1", "HALF", "f16", ["0"], [], "f16"),
        ("11.4.1", "QUANTISED", None, ["0"], [], "f32"),
    ],
)  # fmt: skip
def test_precision_follows_the_file_or_the_wish_as_the_version_allows(
    jetson, stage, monkeypatch, version, traits, precision, networks, flags, ran
):
    if traits:
        monkeypatch.setenv(f"PRETENDED_{traits}", "1")
    told, calls = jetson(stage, version, precision=precision)
    assert [c.split()[1] for c in calls if c.startswith("network")] == networks
    assert [c.split()[1] for c in calls if c.startswith("set ")] == flags
    assert events.last(told, "loaded")["precision"] == ran


def test_layers_come_from_its_profiler_and_synchronous_runs(jetson, stage):
    told, calls = jetson(stage, "10.3.0", profile=True)
    (layers,) = events.of_kind(told, "layers")
    assert [(r["name"], r["p50"], r["share"]) for r in layers["rows"]] == [
        ("conv + relu", 250.0, 0.25), ("fc", 750.0, 0.75),
    ]  # fmt: skip
    assert "execute_v2" in calls
    assert "execute_async_v3" in calls  # in the process that was timed


@pytest.mark.parametrize(
    ("environment", "version", "choices", "words"),
    [
        ({"PRETENDED_FAILS": "1"}, "10.3.0", {}, "EngineFailed: TensorRT 10.3.0 built no engine"),
        ({"PRETENDED_CUDA_FAILS": "700"}, "10.3.0", {}, "CudaError.*illegal memory access.*700"),
        ({}, "11.4.1", {"precision": "f16"}, "PrecisionUnavailable.*--quantize fp16"),
    ],
)
def test_what_goes_wrong_is_said_in_words(
    jetson, stage, monkeypatch, environment, version, choices, words
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EdgeSSLError, match=words):
        jetson(stage, version, **choices)
    kept = Path(os.environ["PRETENDED_LOG"]).parent / "home" / "engines"
    assert not kept.is_dir() or not list(kept.glob("*.part"))


def test_a_file_that_the_parser_refuses_names_the_operator(jetson, stage, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"broken")
    images, logits = images_and_logits_of(stage)
    with pytest.raises(EdgeSSLError, match="cannot read the file: no importer for GridSample"):
        jetson(write_stage(tmp_path / "bad", [path], "onnx", images, logits), "10.3.0")


def images_and_logits_of(stage):
    import numpy as np

    with np.load(stage[1]) as pack:
        return pack["images"], pack["reference"]

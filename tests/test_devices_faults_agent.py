"""Every way in which a bench can go wrong on a board: each ends in words, with a clean board."""

import ast
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny_bench import (
    FAKE_ONNXRUNTIME,
    MINI,
    TIMING,
    N,
    bench,
    change,
    gone,
    images_and_logits,
    leftovers,
    measure,
    plan_for,
    write_onnx,
    write_stage,
)

from edgessl.core.errors import (
    DataInvalid,
    DiskFull,
    EdgeSSLError,
    FileInvalid,
    MissingExtra,
    NativeCrash,
    OutOfMemory,
    UsageProblem,
)
from edgessl.devices import DEVICES, conversation, events
from edgessl.devices.agent_file import PACKAGE, agent_file
from edgessl.devices.base import Board
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import Preset, judge
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
    assert leftovers(device) == []
    device.close()


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


def sabotaged_device(code, folder):
    """A board whose ONNX Runtime does what some code says."""
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(FAKE_ONNXRUNTIME + code)
    device = LinuxDevice(Board("local"), LocalShell())
    device.__dict__["runtimes"] = {"onnxruntime": str(folder)}  # as `devices setup` leaves it
    return device


@pytest.fixture
def sabotaged(tmp_path):
    """Return a bench on such a board."""

    def run(code, stage, out):
        device = sabotaged_device(code, tmp_path / "runtime")
        try:
            return bench(device, stage, out)
        finally:
            assert leftovers(device) == []
            device.close()

    return run


def test_native_prints_do_not_corrupt_the_stream(sabotaged, stage, tmp_path):
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


def test_a_native_crash_names_its_signal_and_last_words(sabotaged, stage, tmp_path):
    code = """
def run(self, names, feeds):
    os.write(2, b"illegal kernel\\n")
    os.abort()
InferenceSession.run = run
"""
    with pytest.raises(NativeCrash, match=r"signal 6 after 'loaded': (.|\n)*illegal kernel"):
        sabotaged(code, stage, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_hangs_is_given_up(sabotaged, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(conversation, "SILENCE_S", 3.0)
    with pytest.raises(EdgeSSLError, match="said nothing for 3 s"):
        sabotaged("InferenceSession.run = lambda *a: time.sleep(60)", stage, tmp_path / "out")


def test_an_input_that_is_not_the_contracts_is_refused(sabotaged, stage, tmp_path):
    with pytest.raises(FileInvalid, match=r"float32 \[1, 3, 9, 9\]"):
        sabotaged("Node.shape = [1, 3, 9, 9]", stage, tmp_path / "out")


HELLO = '{"k":"hello","t":0,"proto":2,"runtime":"onnxruntime 1","python":"3","numpy":"2"}'
HERE = Board("local", python="python3.11")


def scripted(lines, status=0, errors="", board=HERE):
    """A board that tells its facts and then plays ``lines`` for a bench."""
    facts = {"k": "facts", "t": 0, "board": "Pi", "cpu": "x", "cores": 4, "host_hash": "0a1b2c"}

    def script(argv):
        if argv[-1] == "facts":
            return Answer(json.dumps(facts))
        return Answer("\n".join(lines), status, errors)

    return LinuxDevice(board, FakeShell(script))


def test_an_agent_that_stops_talking_without_done_is_a_failure(stage, tmp_path):
    board = scripted([HELLO], status=1, errors="Traceback: no space left")
    with pytest.raises(EdgeSSLError, match="status 1 after 'hello': Traceback: no space left"):
        bench(board, stage, tmp_path / "out")
    assert [name for name in board.shell.files if not name.startswith(("agent-", "pack-"))] == []


def test_a_missing_runtime_names_the_extra(stage, tmp_path):
    board = scripted(['{"k":"error","t":0,"type":"MissingRuntime","msg":"none"}'], status=1)
    with pytest.raises(MissingExtra) as caught:
        bench(board, stage, tmp_path / "out")
    assert "edgessl[onnx]" in caught.value.hint
    assert board.id in caught.value.message


def test_a_missing_runtime_on_a_board_names_the_command_that_brings_it(stage, tmp_path):
    for type_, board, hint in (
        ("MissingRuntime", Board("rpi", "ssh://pi@board", "kitchen", "p"), "setup kitchen"),
        ("BrokenRuntime", Board("rpi", "pi@board", "", "p"), "--address pi@board"),
    ):
        line = json.dumps({"k": "error", "t": 0, "type": type_, "msg": "numpy is not installed"})
        device = scripted([line], status=1, board=board)
        device.__dict__ |= {"python": "p", "runtimes": {}}
        with pytest.raises(EdgeSSLError, match="numpy is not installed") as caught:
            bench(device, stage, tmp_path / "out")
        assert hint in caught.value.hint


def test_a_full_board_and_one_out_of_memory_are_named(stage, tmp_path):
    for type_, error in (("DiskFull", DiskFull), ("MemoryError", OutOfMemory)):
        line = json.dumps({"k": "error", "t": 0, "type": type_, "msg": "while writing"})
        with pytest.raises(error, match="while writing") as caught:
            bench(scripted([line], status=1), stage, tmp_path / "out")
        assert caught.value.hint


def test_a_python_without_numpy_says_so(stage, tmp_path):
    """The agent's own check, by an interpreter that has no packages."""
    plan = {"proto": 2, "runtime": "onnxruntime", "meter": None}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ours, writer = os.pipe()  # stays open: the agent ends when its input does
    try:
        run = subprocess.run(
            [sys.executable, "-I", "-S", agent_file(), "bench", "--plan", tmp_path / "plan.json"],
            stdin=ours, capture_output=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(writer)
    said = json.loads(run.stdout)
    assert run.returncode == 1
    assert (said["type"], said["msg"]) == ("MissingRuntime", "numpy is not installed")


def meter_of(tmp_path):
    """Return a plan for a meter that leaves its process number in a file."""
    script = f"echo $PPID > {tmp_path}/reader"
    return {"hz": 20, "probes": [{"name": "reader", "argv": ["sh", "-c", script]}]}


def test_a_killed_agent_takes_its_meter_along_and_leaves_a_clean_board(stage, tmp_path):
    code = f"""
import signal
from pathlib import Path
def run(self, names, feeds):
    if Path({str(tmp_path / "reader")!r}).exists():  # samples are being taken
        os.kill(os.getpid(), signal.SIGKILL)
    return [np.ones((1, 7), np.float32)]
InferenceSession.run = run
"""
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    device = sabotaged_device(code, tmp_path / "runtime")
    preset = Preset("mini", 1, 0.0, 10**9, 60.0, ("p50",), timed_cap_s=60.0)
    with pytest.raises(NativeCrash, match="signal 9 after 'tel'") as caught:
        measure(device, stage, preset, meter=meter_of(tmp_path))
    assert "out of memory" in caught.value.hint
    assert leftovers(device) == []
    device.close()
    wait_until_gone(int((tmp_path / "reader").read_text()))


def wait_until_gone(pid):
    for _ in range(600):
        if gone(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} outlived the agent")


@pytest.mark.parametrize("ending", ["closed", "silent"])
def test_the_agent_and_its_meter_end_when_nobody_is_there_any_more(stage, tmp_path, ending):
    """Nothing kills them here: they must notice by themselves, in a model that never ends."""
    folder, pack = stage
    (tmp_path / "onnxruntime.py").write_text(
        FAKE_ONNXRUNTIME + "def run(*a):\n    os.write(2, b'busy\\n')\n    time.sleep(600)\n"
        "InferenceSession.run = run\n"
    )
    plan = plan_for(
        stage, model="m", golden=str(folder / "golden.npz"), pack=str(pack), score=False,
        meter=meter_of(tmp_path), idle_s=0.3,
        heartbeat_s=600.0 if ending == "closed" else 3.0,
        timing={"cool_to_c": None, "cooldown_cap_s": 0},
    )  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    process = subprocess.Popen(
        [sys.executable, agent_file(), "bench", "--plan", tmp_path / "plan.json"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    try:
        if ending == "closed":
            while process.stderr.readline() != b"busy\n":
                assert process.poll() is None
            process.stdin.close()
        assert process.wait(60) == 1
        wait_until_gone(int((tmp_path / "reader").read_text()))
    finally:
        process.kill()
        process.stderr.close()


def test_a_sign_of_life_keeps_a_quiet_agent_going(stage, tmp_path, monkeypatch):
    """Its patience is shorter than the model's first answer takes, a heartbeat is shorter still."""
    monkeypatch.setattr(conversation, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(conversation, "DEAF_S", 1.5)
    code = """
SLOW = [2.5]
def run(self, names, feeds):
    time.sleep(SLOW.pop() if SLOW else 0)
    return [np.ones((1, 7), np.float32)]
InferenceSession.run = run
"""
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    device = sabotaged_device(code, tmp_path / "runtime")
    (run,) = measure(device, stage)
    device.close()
    assert events.last(run, "done")


def test_a_step_of_the_wall_clock_changes_nothing(stage, tmp_path):
    """The agent asks no clock that can be set: a runtime steps it by years in every call."""
    code = """
steps = iter(range(10**6))
time.time = lambda: next(steps) * -1e8
time.time_ns = lambda: next(steps) * -10**17
def run(self, names, feeds):
    return [np.ones((1, 7), np.float32)]
InferenceSession.run = run
"""
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    device = sabotaged_device(code, tmp_path / "runtime")
    (run,) = measure(device, stage)
    device.close()
    samples = events.samples_ms(run)
    assert samples["at_s"] == sorted(samples["at_s"])
    assert all(0 < part < 60_000 for part in samples["e2e_from_uint8"])
    ticks = [event["t"] for event in run]
    assert ticks == sorted(ticks)
    asked = [
        ast.unparse(node)
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    ]
    assert not {"time.time", "time.time_ns", "time.localtime", "datetime.now"} & set(asked)


def test_a_monotonic_clock_that_goes_back_is_noticed(stage, tmp_path):
    code = """
real, calls = time.monotonic_ns, []
def back():
    calls.append(0)
    return real() - (10**9 if len(calls) > 3000 else 0)
time.monotonic_ns = back
def run(self, names, feeds):
    return [np.ones((1, 7), np.float32)]
InferenceSession.run = run
"""
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    device = sabotaged_device(code, tmp_path / "runtime")
    preset = Preset("mini", 1, 0.0, 2000, 0.0, ("p50",))
    with pytest.raises(EdgeSSLError, match="monotonic clock cannot be trusted"):
        measure(device, stage, preset)
    device.close()


def test_a_board_that_slept_is_noticed():
    awake = {"k": "tel", "phase": "start", "t": 1.0, "slept_s": 12.0}
    later = {"k": "tel", "phase": "end", "t": 11.0, "slept_s": 15.5}
    assert events.slept_s([awake, later]) == 3.5
    assert events.slept_s([awake, later | {"slept_s": 12.001}]) == 0.0
    assert events.slept_s([awake, later | {"slept_s": None}]) is None
    run = [awake | READING, later | READING]
    assert ("UNSTABLE: the board slept for 3.5 s while samples were taken") in (
        judge([run], MINI, provider="CPU").reasons
    )


READING = {"temp_c": {}, "freq_mhz": {}, "busy_s": None, "wait_s": None, "swap_pages": None}

PROVIDERS = """
import json
__version__ = "1.19.2"
class SessionOptions:
    intra_op_num_threads, enable_profiling, profile_file_prefix = 1, False, ""
def __init__(self, path, options, providers, enable_fallback):
    assert enable_fallback == 0  # or Python's wrapper hides a refused option
    self.asked, self.options = providers, options
def get_providers(self): return [p if isinstance(p, str) else p[0] for p in self.asked]
def end_profiling(self):
    nodes = json.loads(os.environ["PRETENDED_NODES"])
    path = self.options.profile_file_prefix + ".json"
    with open(path, "w") as stream:
        json.dump([{"cat": "Session", "name": "model_run", "dur": 5}] + [
            {"cat": "Node", "name": name + "_kernel_time", "dur": 3,
             "args": {"op_name": "Conv", "provider": provider, "node_index": str(i)}}
            for i, (name, provider) in enumerate(nodes)] * 2, stream)
    return path
for f in (__init__, get_providers, end_profiling):
    setattr(InferenceSession, f.__name__, f)
"""
TRT, CUDA, CPU = (f"{n}ExecutionProvider" for n in ("Tensorrt", "CUDA", "CPU"))


@pytest.mark.parametrize(
    ("asked", "nodes", "words"),
    [
        (TRT, [["trt_graph", TRT]], ""),
        # what TensorRT cannot take, CUDA may: both are the GPU
        (TRT, [["trt_graph", TRT], ["resize", CUDA]], ""),
        (CUDA, [["conv", CUDA], ["topk", CPU]], "1 of 2 nodes fell back to the CPU: topk"),
    ],
)
def test_nodes_that_fell_back_without_a_word_are_named(
    stage, tmp_path, monkeypatch, asked, nodes, words
):
    monkeypatch.setenv("PRETENDED_NODES", json.dumps(nodes))
    change(stage[0] / "golden.npz", **dict.fromkeys(("expected", "reference"), np.ones((16, 7))))
    device = sabotaged_device(PROVIDERS, tmp_path / "runtime")
    device.shell.home = str(tmp_path / "home")
    (run,) = measure(device, stage, provider=asked)
    assert leftovers(device) == []
    device.close()
    built, loaded = events.last(run, "built"), events.last(run, "loaded")
    assert built["s"] >= 0  # the first session, apart from ``load``
    # a folder for each model: the provider does not ask of which an engine is
    assert ("home/engines/onnxruntime-" in built["path"]) is (asked == TRT)
    assert built["reused"] is False
    assert sum(loaded["placement"]["nodes"].values()) == len(nodes)
    found = [r for r in judge([run], MINI, provider=asked).reasons if "WRONG_BACKEND" in r]
    assert found == ([f"WRONG_BACKEND: {words}"] if words else [])

"""A child process may crash, hang, chatter or grow; the parent gets an answer or a reason."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgessl.core import errors
from edgessl.core.artifact import InputSpec
from edgessl.exporters.base import Written
from edgessl.exporters.untrusted import check_files
from edgessl.stages import child
from edgessl.stages.child import run_child
from edgessl.stages.conversion import as_json

# a program with misbehaving tasks, in the place of edgessl's own
PROGRAM = """
import os, resource, signal, subprocess, sys, time
from pathlib import Path
from edgessl.core.errors import GateFailed
from edgessl.stages.child import serve

def echo(job):
    return job

def chatter(job):
    os.write(1, b'{"result": "forged"}\\n')
    os.write(2, b"native noise\\n")
    print("python noise")
    return {"true": 1}

def crash(job):
    os.write(2, b"assertion failed in kernel.cc:12\\n")
    os.kill(os.getpid(), getattr(signal, job["signal"]))

def hang(job):
    grandchild = subprocess.Popen(["sleep", "600"])
    Path(job["pids"]).write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(600)

def grow(job):
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * 2**24))
        time.sleep(0.01)

def gate(job):
    raise GateFailed("too far off", hint="look closer")

def no_memory(job):
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
    os.kill(os.getpid(), signal.SIGABRT)

def unnamed(job):
    os.kill(os.getpid(), signal.SIGRTMIN + 6)

def flood(job):
    while True:
        os.write(1, b"warning: again\\n" * 4096)

def core(job):
    return {"limit": resource.getrlimit(resource.RLIMIT_CORE)[0]}

def native(job):
    import numpy as np
    from edgessl.exporters import EXPORTERS
    session = EXPORTERS.load(job["target"])().open(Path(job["folder"]))
    return {"shape": session.infer(np.ones(session.shape, session.dtype)).shape}

def bug(job):
    return {"x": 1 / 0}

def leave(job):
    os._exit(3)

tasks = [
    echo, chatter, crash, hang, grow, no_memory, unnamed, flood, core, native, gate, bug, leave
]
sys.exit(serve({task.__name__: task for task in tasks}, sys.argv))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return (str(path),)


def alive(pid):
    """True if the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_soon(pids):
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def pids_in(path):
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]


def test_a_job_comes_back_as_it_was_sent(program):
    job = {"text": "grün\n", "numbers": [1, 2.5, None], "nested": {"yes": True}}
    assert run_child("echo", job, timeout_s=60, program=program) == job


def test_what_libraries_print_goes_to_the_log_and_never_into_the_answer(program, tmp_path, capfd):
    log = tmp_path / "logs" / "log.txt"
    log.parent.mkdir()
    log.write_text("from an earlier child\n")
    assert run_child("chatter", {}, timeout_s=60, log=log, program=program) == {"true": 1}
    printed = log.read_text()
    assert printed.startswith("from an earlier child\n")
    assert all(line in printed for line in ("forged", "native noise", "python noise"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE"])
def test_a_crash_names_the_signal_and_what_was_printed_last(program, name):
    with pytest.raises(errors.NativeCrash) as caught:
        run_child("crash", {"signal": name}, timeout_s=60, program=program)
    assert name in caught.value.message
    assert "kernel.cc:12" in caught.value.message
    assert "Fatal Python error" not in caught.value.message


def test_a_timeout_kills_the_whole_process_group(program, tmp_path):
    job = {"pids": str(tmp_path / "pids")}
    with pytest.raises(errors.ConversionFailed, match="longer than 3 s"):
        run_child("hang", job, timeout_s=3, program=program)
    assert gone_soon(pids_in(tmp_path / "pids"))


def test_memory_beyond_the_limit_is_out_of_memory(program):
    with pytest.raises(errors.OutOfMemory, match="limit is 200 MiB"):
        run_child("grow", {}, timeout_s=60, memory_mb=200, program=program)


def test_an_allocation_that_ends_a_library_is_out_of_memory(program):
    with pytest.raises(errors.OutOfMemory, match="bad_alloc"):
        run_child("no_memory", {}, timeout_s=60, program=program)


def test_a_signal_without_a_name_is_told_by_its_number(program):
    with pytest.raises(errors.NativeCrash, match=f"signal {signal.SIGRTMIN + 6}"):
        run_child("unnamed", {}, timeout_s=60, program=program)


def test_a_library_that_prints_without_end_is_stopped(program, monkeypatch):
    monkeypatch.setattr(child, "LOG_MB", 2)
    with pytest.raises(errors.ConversionFailed, match="printed more than 2 MiB"):
        run_child("flood", {}, timeout_s=60, program=program)


def test_a_crash_leaves_no_core_file(program):
    assert run_child("core", {}, timeout_s=60, program=program) == {"limit": 0}


def test_our_errors_keep_their_class_and_others_are_explained(program, tmp_path):
    with pytest.raises(errors.GateFailed) as caught:
        run_child("gate", {}, timeout_s=60, program=program)
    assert (caught.value.message, caught.value.hint) == ("too far off", "look closer")
    log = tmp_path / "log.txt"
    with pytest.raises(errors.ConversionFailed, match="ZeroDivisionError") as failed:
        run_child("bug", {}, timeout_s=60, log=log, program=program)
    assert str(log) in failed.value.hint
    assert "Traceback" in log.read_text()
    with pytest.raises(errors.ConversionFailed, match="status 3 and no answer"):
        run_child("leave", {}, timeout_s=60, program=program)
    with pytest.raises(errors.EdgeSSLError, match="no task 'nonsense'"):
        run_child("nonsense", {}, timeout_s=60, program=program)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_stopping_the_parent_stops_the_child(program, tmp_path, name):
    code = (
        "import sys\n"
        "from edgessl.core.errors import Interrupted\n"
        "from edgessl.stages.child import run_child\n"
        "try:\n"
        "    run_child('hang', {'pids': sys.argv[1]}, timeout_s=600, program=sys.argv[2:])\n"
        "except Interrupted as error:\n"
        "    sys.exit(error.exit_code)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pids"), *program])
    child, grandchild = pids_in(tmp_path / "pids")
    parent.send_signal(getattr(signal, name))
    status = parent.wait(timeout=30)
    assert gone_soon([child])
    if name == "SIGKILL":  # no code of ours can run; the kernel ends the child, not its own
        os.kill(grandchild, signal.SIGKILL)
    else:
        assert status == 130
        assert gone_soon([grandchild])


def prediction(folder):
    """Return the job of running a file on images, both in a folder."""
    written = Written(["model.onnx"], InputSpec.square(8))
    job = {"target": "onnx", "folder": str(folder), "written": as_json(written)}
    return job | {"images": str(folder / "x.npy"), "outputs": str(folder / "y.npy")}


def test_a_missing_package_is_an_extra_to_install(tmp_path, monkeypatch):
    # a package that fails to be found, in front of the real one if there is any
    (tmp_path / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8, 3), np.uint8))
    job = prediction(tmp_path)
    with pytest.raises(errors.MissingExtra) as caught:
        run_child("predict", job, timeout_s=60)
    assert "onnxruntime" in caught.value.message
    assert caught.value.hint == "pip install 'edgessl[onnx]'"


def test_saved_inputs_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    job = prediction(tmp_path)
    with pytest.raises(errors.FileInvalid, match=r"x\.npy"):
        run_child("predict", job, timeout_s=60)


def test_a_module_in_the_current_folder_is_not_imported(tmp_path, program, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    assert run_child("echo", {"a": 1}, timeout_s=60, program=program) == {"a": 1}


def a_net(path, nodes, initializers=()):
    """Write a sound ONNX file from (1, 4) to (1, 4) that computes what its nodes say."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    floats = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(name, floats, [1, 4]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=opsets), path)


def endless(path):
    """Loop 2^62 times."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    value, yes = make.make_tensor_value_info, make.make_tensor_value_info("yes", kinds.BOOL, [])
    body = make.make_graph(
        [make.make_node("Sin", ["a"], ["b"]), make.make_node("Identity", ["yes"], ["go"])],
        "body",
        [value("i", kinds.INT64, []), yes, value("a", kinds.FLOAT, [1, 4])],
        [value("go", kinds.BOOL, []), value("b", kinds.FLOAT, [1, 4])],
    )
    times = make.make_tensor("times", kinds.INT64, [], [2**62])
    keep = make.make_tensor("keep", kinds.BOOL, [], [True])
    a_net(path, [make.make_node("Loop", ["times", "keep", "x"], ["y"], body=body)], [times, keep])


def greedy(path):
    """Fill eight gigabytes on the way to four numbers."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    side = make.make_tensor("side", kinds.INT64, [2], [2**16, 2**15])
    axes = make.make_tensor("axes", kinds.INT64, [2], [0, 1])
    nodes = [
        make.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        make.make_node("Expand", ["top", "side"], ["all"]),  # not a constant, so not folded
        make.make_node("ReduceSum", ["all", "axes"], ["sum"], keepdims=0),
        make.make_node("Add", ["x", "sum"], ["y"]),
    ]
    a_net(path, nodes, [side, axes])


def test_a_sound_file_that_never_ends_or_wants_all_memory_is_a_message(program, tmp_path):
    for write, limits, error in (
        (endless, {"timeout_s": 6}, errors.ConversionFailed),
        (greedy, {"timeout_s": 120, "memory_mb": 700}, errors.OutOfMemory),
    ):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder / "model.onnx")
        check_files("onnx", folder, ["model.onnx"])  # structure says nothing of work
        job = {"target": "onnx", "folder": str(folder)}
        with pytest.raises(error, match=r"longer than 6 s|limit is 700 MiB"):
            run_child("native", job, program=program, **limits)

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
from edgessl.stages.child import run_child

# a program with misbehaving tasks, in the place of edgessl's own
PROGRAM = """
import os, signal, subprocess, sys, time
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

def bug(job):
    return {"x": 1 / 0}

def leave(job):
    os._exit(3)

tasks = [echo, chatter, crash, hang, grow, gate, bug, leave]
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


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
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


def test_a_missing_package_is_an_extra_to_install(tmp_path, monkeypatch):
    # a package that fails to be found, in front of the real one if there is any
    (tmp_path / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    job = {"target": "onnx", "folder": str(tmp_path), "inputs": str(tmp_path / "x.npy")}
    with pytest.raises(errors.MissingExtra) as caught:
        run_child("predict", job | {"outputs": str(tmp_path / "y.npy")}, timeout_s=60)
    assert "onnxruntime" in caught.value.message
    assert caught.value.hint == "pip install 'edgessl[onnx]'"


def test_saved_inputs_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    job = {"target": "onnx", "folder": str(tmp_path), "inputs": str(tmp_path / "x.npy")}
    with pytest.raises(errors.FileInvalid, match=r"x\.npy"):
        run_child("predict", job | {"outputs": str(tmp_path / "y.npy")}, timeout_s=60)


def test_a_module_in_the_current_folder_is_not_imported(tmp_path, program, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    assert run_child("echo", {"a": 1}, timeout_s=60, program=program) == {"a": 1}

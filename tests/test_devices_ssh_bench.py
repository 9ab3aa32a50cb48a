"""A whole bench over SSH: the same agent, the same events, the same answers as on this machine."""

import json
import sys
from dataclasses import replace

import pytest
from sshd import Sshd
from tiny_bench import MINI, TIMING, N, bench, images_and_logits, leftovers, write_onnx, write_stage

from edgessl.core import files
from edgessl.core.errors import BoardUnreachable, EdgeSSLError
from edgessl.devices import DEVICES
from edgessl.devices.base import Board
from edgessl.devices.conversation import Listener

pytestmark = [pytest.mark.slow, pytest.mark.ssh]


@pytest.fixture(scope="module")
def server():
    server = Sshd()
    yield server
    server.close()


@pytest.fixture
def stage(tmp_path):
    pytest.importorskip("onnx", reason="the tiny model is built with onnx")
    pytest.importorskip("onnxruntime", reason="runs the tiny model")
    path, weights = write_onnx(tmp_path)
    return write_stage(tmp_path / "stage", [path], "onnx", *images_and_logits(weights))


@pytest.fixture(params=["openssh", "asyncssh"])
def board(request, server, monkeypatch):
    """This machine by way of SSH, with a home folder of its own and the Python of the tests."""
    if request.param == "asyncssh":
        pytest.importorskip("asyncssh", reason="the other client: pip install asyncssh")
    monkeypatch.setenv("EDGESSL_SSH", request.param)
    monkeypatch.setenv("EDGESSL_SSH_CONFIG", str(server.config))
    server.new_home("root")
    device = DEVICES.load("ssh")(Board("ssh", "root", python=sys.executable))
    yield device
    device.close()
    assert server.is_clean(), (server.programs(), server.work_folders())


def test_a_board_over_ssh_tells_what_this_machine_tells(
    board, server, stage, tmp_path, monkeypatch
):
    told = {"local": [], "ssh": []}
    heard = []
    take = Listener.take

    def overhear(self, line):
        event = take(self, line)
        heard.append(event)
        return event

    monkeypatch.setattr(Listener, "take", overhear)
    here = DEVICES.load("local")(Board("local"))
    results = {}
    for device in (here, board):
        heard.clear()
        results[device.kind] = bench(device, stage, tmp_path / device.kind)
        told[device.kind] = [e["k"] for e in heard if e and e["k"] not in ("tel", "lat", "warmup")]
        assert [name for name in leftovers(device) if not name.startswith(".")] == []
    here.close()
    assert told["ssh"] == told["local"]
    local, ssh = results["local"], results["ssh"]
    assert set(ssh.verdicts) <= TIMING
    assert ssh.result_kind == "measured"
    assert ssh.device["id"] == local.device["id"]  # it is the same machine
    assert ssh.device["kind"] == "ssh"
    assert ssh.accuracy.n == N
    assert (ssh.accuracy, ssh.parity) == (local.accuracy, local.parity)
    assert set(ssh.latency_ms) == set(local.latency_ms)
    answers = [(tmp_path / kind / "predictions.csv").read_bytes() for kind in ("ssh", "local")]
    assert answers[0] == answers[1]
    record = files.read_json(tmp_path / "ssh" / "result.json", "bench-result")
    assert board.shell.workdir not in json.dumps(record)
    assert str(server.folder) not in json.dumps(record)  # nobody's folders are told


def test_a_connection_cut_in_mid_run_ends_the_bench_and_the_agent(board, server, stage, tmp_path):
    """The agent ignores nothing here: it is in the middle of ten seconds of timing."""
    said = []

    def cut(line):
        said.append(line)
        if line.startswith("timed"):
            server.cut()

    long = replace(MINI, timed_s=60.0, timed_runs=10_000_000)
    with pytest.raises(BoardUnreachable, match="was lost") as caught:
        bench(board, stage, tmp_path / "out", preset=long, progress=cut)
    assert caught.value.exit_code == 4
    assert said
    assert server.is_clean()
    assert not (tmp_path / "out").exists()


def test_a_runtime_that_the_board_lacks_is_named(board, stage, tmp_path):
    board.board = replace(board.board, python="/usr/bin/python3")  # Debian's own, without numpy
    with pytest.raises(EdgeSSLError, match="onnxruntime") as caught:
        bench(board, stage, tmp_path / "out")
    assert caught.value.hint
    assert [name for name in leftovers(board) if not name.startswith(".")] == []

"""From SSH access alone to right answers on arm64: real wheels on an emulated processor.

Nothing here is timed: figures of these boards are EMULATED.
"""

import json
import os

import command_line
import numpy as np
import pytest
from arm64 import ADDRESS, BOOKWORM, BULLSEYE, Userland, know, wheelhouse
from sshd import Wire
from stub_wheels import write_wheel
from tiny_bench import CLASSES, SPEC, N, bench, images_and_logits, write_onnx, write_stage

from edgessl.core.errors import BoardUnreachable, DiskFull
from edgessl.core.images import to_model_input
from edgessl.devices import setup
from edgessl.devices.base import Board
from edgessl.devices.ssh import open_board
from edgessl.devices.wheel_target import Target

pytestmark = [pytest.mark.slow, pytest.mark.arm64]


def edgessl(*arguments, cwd, expect=0):
    return command_line.edgessl(*arguments, cwd=cwd, expect=expect)


def told(*arguments, cwd):
    return json.loads(edgessl(*arguments, "--json", cwd=cwd)[0])["result"]


@pytest.fixture(scope="module")
def pi(tmp_path_factory):
    """An emulated Pi on which both usual runtimes were set up by the commands."""
    houses = [wheelhouse(BOOKWORM, name) for name in ("onnxruntime", "litert")]
    board = Userland("bookworm")
    folder = tmp_path_factory.mktemp("pi")
    try:
        with pytest.MonkeyPatch.context() as patch:
            know(patch, board, folder, *houses)
            added = told(
                "devices", "add", "attic", "--kind", "rpi", "--address", ADDRESS, cwd=folder
            )
            brought = told("devices", "setup", "attic", cwd=folder)
        yield board, folder, added, brought
    finally:
        board.close()


def test_a_bare_board_is_added_by_name(pi):
    _, folder, added, _ = pi
    assert added["is"].startswith("Raspberry Pi 4 Model B Rev 1.4, Debian GNU/Linux 12")
    assert "raspberry-pi-4" in added["id"]
    assert 'kind = "rpi"' in (folder / "boards.toml").read_text()


def test_setup_brings_the_two_runtimes_and_leaves_nothing_else(pi):
    board, _, _, brought = pi
    rows = {row["runtime"]: row for row in brought["runtimes"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "onnxruntime": "new", "litert": "new",
    }  # fmt: skip
    assert "CPUExecutionProvider" in rows["onnxruntime"]["providers"]
    assert "XNNPACK" in rows["litert"]["providers"]
    assert all(row["machine"] == "aarch64" and row["sha256"] for row in rows.values())
    assert board.runtimes() == ["litert", "onnxruntime"]
    assert board.is_clean()


def test_check_tells_on_one_screen_what_the_board_is_and_runs(pi, monkeypatch):
    board, folder, _, _ = pi
    know(monkeypatch, board, folder)
    text = edgessl("devices", "check", "attic", cwd=folder)[0]
    parts = (
        "attic: rpi, ssh://edgessl-board@board", "EMULATED by qemu-user", "Cortex-A72",
        "governor ondemand", "Python       3.11.2, glibc 2.36", "(private)",
        "onnx files: onnxruntime", "tflite files: litert", "openvino files: nothing",
        "edgessl devices setup attic --runtime openvino",
    )  # fmt: skip
    for part in parts:
        assert part in text, part
    assert len(text.splitlines()) < 24
    assert max(map(len, text.splitlines())) < 120


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_real_wheels_give_the_right_answers_on_the_board(pi, monkeypatch, tmp_path, runtime):
    board = pi[0]
    know(monkeypatch, board, tmp_path)
    stage = onnx(tmp_path) if runtime == "onnxruntime" else lite(tmp_path)
    device = open_board(Board("ssh", ADDRESS))
    try:
        assert Target.of(device.facts()) == Target(
            (3, 11), "aarch64", "glibc", (2, 36), numpy="2.4.6"
        )
        result = bench(device, stage, tmp_path / "out")
    finally:
        device.close()
    assert result.result_kind == "emulated"
    assert "EMULATED" in result.verdicts
    assert not {"WRONG_ANSWERS", "WRONG_BACKEND"} & set(result.verdicts)
    assert result.parity[0].max_abs < 1e-5
    assert result.accuracy.agreement == 1
    assert board.is_clean()


def onnx(folder):
    path, weights = write_onnx(folder)
    return write_stage(folder / "onnx", [path], "onnx", *images_and_logits(weights))


def lite(folder):
    litert_torch = pytest.importorskip("litert_torch", reason="converts the tiny model")
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(216, CLASSES)
    ).eval()
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = net(torch.from_numpy(to_model_input(images, SPEC))).numpy()
    path = folder / "model.tflite"
    last = litert_torch.to_channel_last_io(net, args=[0]).eval()
    litert_torch.convert(last, (torch.zeros(1, 8, 8, 3),)).export(str(path))
    return write_stage(folder / "l", [path], "tflite", images, logits, SPEC.with_layout("NHWC"))


def test_a_second_setup_needs_no_index_and_a_cut_one_leaves_the_first(pi, monkeypatch, tmp_path):
    board = pi[0]
    know(monkeypatch, board, tmp_path)  # pip finds nothing now
    device = open_board(Board("ssh", ADDRESS))
    first, new = setup.set_up(device, "litert")
    device.close()
    assert not new
    know(monkeypatch, board, tmp_path, wheelhouse(BOOKWORM, "litert"))
    wire = Wire(board.port)
    wire.cut_at(8 << 20)
    board.write_config(wire.port)
    try:
        device = open_board(Board("ssh", ADDRESS))
        with pytest.raises(BoardUnreachable) as caught:
            setup.set_up(device, "litert", upgrade=True)
        assert caught.value.exit_code == 4
        device.close()
    finally:
        wire.close()
        board.write_config()
    assert board.is_clean()
    device = open_board(Board("ssh", ADDRESS))
    assert setup.installed(device)["litert"].sha256 == first.sha256
    device.close()


def test_python_39_runs_the_agent_and_what_was_brought_is_removed_again(monkeypatch, tmp_path):
    house = wheelhouse(BULLSEYE, "litert")
    board = Userland("bullseye")
    try:
        know(monkeypatch, board, tmp_path, house)
        device = open_board(Board("ssh", ADDRESS))
        assert device.facts()["python"] == "3.9.2"
        made, _ = setup.set_up(device, "litert")
        assert made.packages["ai-edge-litert"].startswith("2.1.")
        assert board.runtimes() == ["litert"]
        assert setup.remove(device, "litert")
        assert board.runtimes() == []
        device.close()
        assert board.is_clean()
    finally:
        board.close()


def test_a_full_disk_is_noticed_before_and_while_it_fills(monkeypatch, tmp_path):
    tags = "cp39-cp39-manylinux_2_27_aarch64.whl"
    noise = os.urandom(8 << 20).hex()  # 16 MB that pack to half
    write_wheel(tmp_path, f"ai_edge_litert-2.1.0-{tags}", {"ai_edge_litert/data": noise})
    write_wheel(tmp_path, f"numpy-2.0.2-{tags}")
    board = Userland("bullseye", disk_mb=12)
    try:
        know(monkeypatch, board, tmp_path)
        device = open_board(Board("ssh", ADDRESS))
        with pytest.raises(DiskFull, match="are needed") as caught:
            setup.set_up(device, "litert")
        assert "free space there" in caught.value.hint
        device.facts()["disk_free_mb"] = 9999.0  # somebody else was faster
        with pytest.raises(DiskFull, match="no space"):
            setup.set_up(device, "litert")
        assert board.runtimes() == []
        device.close()
        assert board.is_clean()
    finally:
        board.close()

"""OpenVINO on an arm64 kernel: under user-mode emulation it does not run, in a machine it does."""

import pytest
from arm64 import ADDRESS, BOOKWORM, VirtualMachine, wheelhouse
from tiny_bench import bench, images_and_logits, write_onnx, write_stage

from edgessl.devices.base import Board
from edgessl.devices.ssh import open_board

pytestmark = [pytest.mark.slow, pytest.mark.arm64, pytest.mark.vm]


def test_openvino_gives_the_right_answers_in_a_virtual_machine(monkeypatch, tmp_path):
    openvino = pytest.importorskip("openvino", reason="writes the tiny model as IR")
    house = wheelhouse(BOOKWORM, "openvino")
    path, weights = write_onnx(tmp_path)
    openvino.save_model(openvino.convert_model(path), tmp_path / "model.xml", False)
    sources = [tmp_path / "model.xml", tmp_path / "model.bin"]
    stage = write_stage(tmp_path / "ir", sources, "openvino", *images_and_logits(weights))
    machine = VirtualMachine()
    try:
        monkeypatch.setenv("EDGESSL_SSH_CONFIG", str(machine.config))
        machine.lay_out(house, "openvino", BOOKWORM)
        device = open_board(Board("ssh", ADDRESS))
        result = bench(device, stage, tmp_path / "out")
        device.close()
        assert machine.work_folders() == []
    finally:
        machine.close()
    assert result.device["emulator"] == "qemu-system"
    assert result.result_kind == "emulated"
    assert "EMULATED" in result.verdicts
    assert result.runtime["used"]["precision"] == "f32"
    assert result.parity[0].max_abs < 1e-5
    assert result.accuracy.agreement == 1

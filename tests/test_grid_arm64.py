"""Before any training: a table of untrained nets, checked and timed on an emulated board."""

import json

import pytest
from arm64 import ADDRESS, BOOKWORM, Userland, know, wheelhouse
from command_line import edgessl

pytestmark = [pytest.mark.slow, pytest.mark.arm64]


def test_an_untrained_grid_is_a_checked_table_marked_emulated(monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="builds the nets")
    house = wheelhouse(BOOKWORM, "onnxruntime")
    board = Userland("bookworm")
    try:
        know(monkeypatch, board, tmp_path)
        board.lay_out(house, "onnxruntime", BOOKWORM)
        words = ["--encoder", "mobilenet_v3_small", "--width", "0.35x", "--imgsz", "32,48"]
        words += ["--target", "onnx", "--device", "ssh", "--address", ADDRESS, "--json"]
        document = json.loads(edgessl("bench", *words, cwd=tmp_path, expect=6)[0])
        assert board.is_clean()
    finally:
        board.close()
    assert document["error"]["type"] == "MeasurementNotValid"
    rows = document["result"]["rows"]
    assert [row["imgsz"] for row in rows] == [32, 48]
    for row in rows:
        result = json.loads((tmp_path / document["run"] / row["result"]).read_text())
        assert "EMULATED" in result["verdicts"]
        assert not {"VALID", "WRONG_ANSWERS", "WRONG_BACKEND"} & set(result["verdicts"])
        assert result["result_kind"] == "emulated"
        assert row["p50"] > 0

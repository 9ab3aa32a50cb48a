"""What pretraining refuses, it refuses before it writes: the corrected command can follow."""

import pytest
from command_line import edgessl


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--method", "byol"], "trains one width"),
        (["--method", "seed", "--width", "1x"], "none is named"),
        (["--encoder", "mobilenet_v3_small", "--width", "1.5x-0.5x"], "residual connection"),
        (["--encoder", "timm:convnext_atto", "--width", "1x"], "cannot be sliced"),
    ],
)
def test_a_refused_command_leaves_no_folder(words, why, tmp_path):
    if "timm" in words[1]:
        pytest.importorskip("timm", reason="timm is not installed (extra: timm)")
    (tmp_path / "edgessl.yaml").write_text("data: {labels: digits}\n")
    keys = {"--method": "pretrain.method", "--width": "encoder.width", "--encoder": "encoder.name"}
    options = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        options += ["--set", f"{keys[option]}={value}"]
    for command in ("pretrain", "run"):
        _, err = edgessl(command, *options, "--out", "made", cwd=tmp_path, expect=3)
        assert why in err
        assert not (tmp_path / "made").exists()

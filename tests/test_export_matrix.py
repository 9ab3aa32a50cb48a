"""Five nets, trained by the program on real images, in every target and precision.

What must hold: float32 files give all answers of PyTorch, float16 files 99 % of them, and an
int8 file passes its gate or is refused with its figures.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from export_nets import QUIET, make_data, train

from edgessl import api
from edgessl.core.artifact import Artifact
from edgessl.core.errors import GateFailed, NotProvable

pytest.importorskip("torchvision", reason="needs the extra train")

NETS = (
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0",
)  # fmt: skip
TARGETS = ("onnx", "openvino", "tflite")
pytestmark = [pytest.mark.slow, pytest.mark.export]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    """Export a net to all targets in one precision; nets are trained, files written once."""
    root = tmp_path_factory.mktemp("nets")
    plain, done = {}, {}
    patch = pytest.MonkeyPatch()
    patch.setattr("edgessl.stages.resizes.measure_resizes", lambda *_: None)  # has its own tests

    def export(encoder: str, precision: str):
        if encoder not in plain:
            plain[encoder] = train(encoder, data, root)
        if (encoder, precision) not in done:
            settings = {
                "export.quantize": precision, "export.targets": list(TARGETS),
                "export.fallback": False,
            }  # fmt: skip
            out = root / f"{encoder}-files"
            done[encoder, precision] = api.export(
                plain[encoder], settings=settings, out=out, resume=out.exists(), reporter=QUIET
            )
        return done[encoder, precision]

    yield export
    patch.undo()


def records(outcome, precision):
    found = outcome.result["exports"]
    return {target: found[f"1x-{target}-{precision}"] for target in TARGETS}


@pytest.mark.parametrize("encoder", NETS)
def test_float32_files_give_every_answer(exported, encoder):
    outcome = exported(encoder, "none")
    assert outcome.errors == ()
    for target, found in records(outcome, "none").items():
        (check,) = found["parity"]["checks"]
        assert check["agreement"] == 1.0, target
        assert check["max_abs"] <= 1e-3, target
        accuracy = found["parity"]["accuracy"]
        assert accuracy["float32"] == accuracy["file"] > 0.3, "the net has learned nothing"


@pytest.mark.parametrize("encoder", NETS)
def test_float16_files_give_99_percent_and_are_half_the_size(exported, encoder):
    outcome = exported(encoder, "fp16")
    assert outcome.errors == ()
    for target, found in records(outcome, "fp16").items():
        assert found["parity"]["checks"][0]["agreement"] >= 0.99, target
        (tried,) = found["search"]["candidates"]
        assert tried["bytes"] < 0.6 * found["search"]["float"]["bytes"], target


@pytest.mark.parametrize("encoder", NETS)
def test_int8_files_pass_or_are_refused_with_their_figures(exported, encoder):
    outcome = exported(encoder, "int8")
    seen = records(outcome, "int8")
    expected = {"PASS": None, "FAIL": GateFailed, "INCONCLUSIVE": NotProvable}
    kinds = [expected[found["gate"]["outcome"]] for found in seen.values()]
    assert [type(error) for error in outcome.errors] == [kind for kind in kinds if kind]
    for target, found in seen.items():
        gate, folder = found["gate"], Path(found["folder"])
        assert gate["labelled"] == gate["n"] == found["parity"]["images"]["n"]
        assert gate["drop"] == pytest.approx((gate["lost"] - gate["gained"]) / gate["n"])
        assert gate["drop_low"] <= gate["drop"] <= gate["drop_high"], target
        assert (gate["outcome"] == "PASS") == (
            gate["drop_high"] <= 0.01 and max(-gate["shift_low"], gate["shift_high"]) <= 0.05
        )
        assert found["search"]["candidates"][0]["bytes"] < 0.4 * found["search"]["float"]["bytes"]
        artifact = Artifact.load(folder)
        assert (
            gate["seal"]
            == artifact.seal
            == json.loads((folder / "layers.json").read_text())["seal"]
        )
        golden = np.load(folder / "golden.npz")
        assert golden["expected"].shape == golden["reference"].shape == (16, 10)

"""The gate on real files: faults are caught at their level, a trap is recovered by a fallback."""

import colorsys
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from export_nets import QUIET, train
from int8_trap import trap
from PIL import Image
from sklearn.datasets import load_digits

from edgessl import api
from edgessl.core.artifact import Artifact
from edgessl.core.errors import DataInvalid, GateFailed, NotProvable
from edgessl.encoders.loading import load_model, write_tensors
from edgessl.stages.workshop import Workshop

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytestmark = [pytest.mark.slow, pytest.mark.export]
SIDE = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Digits in colours that mean something, as folders of classes; and a net trained on them."""
    root = tmp_path_factory.mktemp("gate")
    digits, rng = load_digits(), np.random.default_rng(0)
    for i, (grey, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        hue = colorsys.hsv_to_rgb((label % 3) / 3 + rng.uniform(0, 0.1), 1, 1)
        pixels = np.kron(grey[:, :, None] / 16 * np.array(hue), np.ones((2, 2, 1)))
        folder = root / ("train" if i < 1100 else "test") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / f"{i:04d}.png")
    data = {
        "data.labels": str(root / "train"), "data.test": str(root / "test"), "data.imgsz": SIDE,
    }  # fmt: skip
    train("mobilenet_v1_short", data, root, epochs=8, stem="stock")
    return root


@pytest.fixture(scope="module")
def net(place):
    return place / "mobilenet_v1_short-plain" / "extract" / "1x"


@pytest.fixture(scope="module")
def trapped(net):
    """The same function with weights that wreck per-tensor ranges, in the same run folder."""
    folder = net.parent / "trapped"
    network, artifact = load_model(net)
    folder.mkdir()
    write_tensors(folder / "model.safetensors", trap(network).state_dict())
    shutil.copy(net / "images.txt", folder)
    Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=artifact.input, labels=artifact.labels, facts=artifact.facts,
    )  # fmt: skip
    return folder


def export(model, out, **settings):
    given = {"export.targets": ["onnx"]} | {f"export.{k}": v for k, v in settings.items()}
    return api.export(model, settings=given, out=out, resume=out.exists(), reporter=QUIET)


def record(out, name, document):
    return json.loads((out / "export" / name / f"{document}.json").read_text())


def test_a_good_int8_file_is_judged_and_kept(net, tmp_path):
    outcome = export(net, tmp_path / "x", quantize="int8", analyze=True)
    gate = record(tmp_path / "x", "1x-onnx-int8", "gate")
    assert gate["outcome"] == "PASS", gate
    assert gate["n"] == gate["labelled"] == 697
    assert outcome.errors == ()
    layers = record(tmp_path / "x", "1x-onnx-int8", "sensitivity")["layers"]
    network, _ = load_model(net)
    names = [n for n, m in network.named_modules() if type(m).__name__ in ("Conv2d", "Linear")]
    assert [layer["module"] for layer in layers] == names
    assert all(layer["file_snr_db"] > 5 for layer in layers if layer["file_snr_db"] is not None)
    # the second time everything is kept, and the bytes are the same when it is made again
    seal = Artifact.load(tmp_path / "x/export/1x-onnx-int8").seal
    assert export(net, tmp_path / "x", quantize="int8", analyze=True).errors == ()
    export(net, tmp_path / "y", quantize="int8")
    assert Artifact.load(tmp_path / "y/export/1x-onnx-int8").seal == seal


def test_the_trap_is_caught_without_fallback_and_recovered_with_one(trapped, tmp_path):
    first = export(trapped, tmp_path / "a", quantize="int8", fallback=False)
    (error,) = first.errors
    assert isinstance(error, GateFailed)
    assert record(tmp_path / "a", "1x-onnx-int8", "gate")["outcome"] == "FAIL"
    # float32 is untouched: the function is the same
    assert record(tmp_path / "a", "1x-onnx-none", "parity")["checks"][0]["agreement"] == 1.0
    second = export(trapped, tmp_path / "b", quantize="int8")
    assert second.errors == ()
    search = record(tmp_path / "b", "1x-onnx-int8", "search")
    assert record(tmp_path / "b", "1x-onnx-int8", "gate")["outcome"] == "PASS"
    chosen = next(c for c in search["candidates"] if c["name"] == search["chosen"])
    assert chosen["holds"]
    assert chosen["scheme"]["float_layers"] or chosen["scheme"]["precision"] != "int8"
    assert not search["candidates"][0]["holds"]


@pytest.mark.parametrize("fault", ["mean", "channels", "layer"])
def test_a_fault_of_the_file_is_caught_by_the_tensors(net, tmp_path, monkeypatch, fault):
    predict, convert = Workshop.predict, Workshop.convert

    def wrongly(shop, folder, written, images):
        if fault == "mean":  # as if the file normalised with another mean
            mean = (0.5, *written.input.mean[1:])
            written.input.__dict__["mean"] = mean
            return predict(shop, folder, written, images)
        return predict(shop, folder, written, np.ascontiguousarray(images[..., ::-1]))

    def without_a_layer(shop, model, out, form):
        broken = tmp_path / "broken"
        network, artifact = load_model(model)
        state = network.state_dict()
        name = next(n for n, t in state.items() if t.ndim == 4 and t.shape[2:] == (1, 1))
        state[name] = state[name] * 0
        broken.mkdir()
        write_tensors(broken / "model.safetensors", state)
        Artifact.sealed(
            broken, ["model.safetensors"], artifact_kind="model", format="safetensors",
            input=artifact.input, labels=artifact.labels, facts=artifact.facts,
        )  # fmt: skip
        return convert(shop, broken, out, form)

    if fault == "layer":
        monkeypatch.setattr(Workshop, "convert", without_a_layer)
    else:
        monkeypatch.setattr(Workshop, "predict", wrongly)
    (error,) = export(net, tmp_path / "x").errors
    assert isinstance(error, GateFailed)
    assert "logits differ from PyTorch" in error.message
    folder = tmp_path / "x/export/1x-onnx-none"
    assert not json.loads((folder / "parity.json").read_text())["checks"][0]["pass"]
    kept = np.load(folder / "mismatch.npz")
    assert kept["reference"].shape == kept["got"].shape == (697, 10)
    assert kept["images"].shape == (16, SIDE, SIDE, 3)


def test_a_saturated_calibration_is_caught_by_the_answers(net, tmp_path, monkeypatch):
    quantize = Workshop.quantize

    def on_dark_images(shop, source, written, out, scheme, images):
        return quantize(shop, source, written, out, scheme, images // 4)

    monkeypatch.setattr(Workshop, "quantize", on_dark_images)
    (error,) = export(net, tmp_path / "x", quantize="int8", fallback=False).errors
    assert isinstance(error, GateFailed)
    gate = record(tmp_path / "x", "1x-onnx-int8", "gate")
    assert gate["outcome"] == "FAIL"
    # garbage in no single logit: it is the answers that tell
    assert record(tmp_path / "x", "1x-onnx-int8", "parity")["checks"][0]["pass"]


def test_labels_for_the_flips_settle_what_unlabeled_images_cannot(
    place, net, tmp_path, monkeypatch
):
    """Flips of unlabeled images bound the drop; where that is not enough, their labels decide."""
    quantize = Workshop.quantize

    def on_darker_images(shop, source, written, out, scheme, images):
        return quantize(shop, source, written, out, scheme, images // 2)

    monkeypatch.setattr(Workshop, "quantize", on_darker_images)
    proof = tmp_path / "proof"
    proof.mkdir()
    for i, path in enumerate(sorted((place / "test").rglob("*.png"))):
        shutil.copy(path, proof / f"{i}.png")
    few = sorted((place / "test").rglob("*.png"))
    test = tmp_path / "few"
    for path in few[:: len(few) // 30]:
        (test / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, test / path.parent.name)
    out = tmp_path / "x"

    def judged(**more):
        settings = {
            "export.targets": ["onnx"], "export.quantize": "int8", "export.fallback": False,
            "data.test": str(test), "data.proof": str(proof), "export.max_drop": 0.2,
                "export.max_shift": 100.0,
        }  # fmt: skip
        return api.export(
            net, settings=settings | more, out=out, resume=out.exists(), reporter=QUIET
        )

    first = judged()
    gate = record(out, "1x-onnx-int8", "gate")
    if not gate["unlabelled_flips"]:
        pytest.fail(f"no flips to label: {gate}")
    (error,) = first.errors
    assert isinstance(error, NotProvable)
    table = out / "export/1x-onnx-int8/flips/flips.csv"
    assert str(table) in error.hint
    lines = table.read_text().splitlines()
    assert len(lines) == 1 + gate["to_label"]
    # accepted as it is
    assert judged(**{"export.allow_inconclusive": True}).errors == ()
    # an unknown class is told, and nothing is lost
    table.write_text("\n".join([lines[0], *(f"{line}clas 1" for line in lines[1:])]))
    with pytest.raises(DataInvalid, match="clas 1"):
        raise judged().errors[0]
    # every flip is right only when quantised
    filled = [f"{line}{line.split(',')[3]}" for line in lines[1:]]
    table.write_text("\n".join([lines[0], *filled]))
    judged(**{"export.max_drop": 1.0})
    gate = record(out, "1x-onnx-int8", "gate")
    assert gate["unlabelled_flips"] == 0
    assert gate["gained"] >= len(filled)
    assert gate["outcome"] == "PASS"


def test_test_images_cannot_calibrate(place, net, tmp_path):
    settings = {"export.targets": ["onnx"], "export.quantize": "int8"}
    outcome = api.export(
        net, settings=settings | {"export.calibration": str(place / "test")},
        out=tmp_path / "x", reporter=QUIET,
    )  # fmt: skip
    (error,) = outcome.errors
    assert isinstance(error, DataInvalid)
    assert "test images" in error.message


@pytest.mark.parametrize("form", ["embed", "integer", "raw"])
def test_other_inputs_give_the_same_answers_on_the_device(net, tmp_path, form):
    settings = {
        "embed": {"embed_preprocess": True, "quantize": "int8"},
        "integer": {"io": "integer", "quantize": "int8"},
        "raw": {"embed_preprocess": True, "raw_size": [24, 20]},
    }[form]
    outcome = export(net, tmp_path / "x", **settings)
    assert outcome.errors == ()
    name = "1x-onnx-none" if form == "raw" else "1x-onnx-int8"
    folder = Path(outcome.result["exports"][name]["folder"])
    spec = Artifact.load(folder).input
    assert (spec.dtype, spec.layout, spec.quantized is None) == {
        "embed": ("uint8", "NHWC", True), "integer": ("uint8", "NCHW", False),
        "raw": ("uint8", "NHWC", True),
    }[form]  # fmt: skip
    measured = api.bench(
        [folder], settings={"bench.allow_unstable": True}, out=tmp_path / "b", reporter=QUIET
    )
    (result,) = measured.result["results"]
    assert result["parity"][0]["pass"]
    assert result["accuracy"]["n"] == 697
    assert measured.errors == ()

"""Predictions from sealed files: equal to torchvision's preparation and PyTorch, or refused."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import ENVIRONMENT, edgessl
from PIL import Image
from torchvision.transforms import v2

from edgessl import api_light
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import (
    DataInvalid,
    FileInvalid,
    MissingExtra,
    NativeCrash,
    UsageProblem,
)
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import load_model, write_tensors
from edgessl.exporters.base import Form
from edgessl.exporters.to_onnx import OnnxExporter
from edgessl.stages import inference

LABELS = ("ant", "bee", "cow", "dog", "elk", "fly")
SPEC = InputSpec.square(80)  # resized to 91, then cropped
UGLY = "a 'b' \"c\" \N{OCTOPUS}\nd.png"


def write_model(folder, labels=LABELS):
    """A plain net at 0.25x with random weights, sealed as extract seals it."""
    network = ENCODERS.load("mobilenet_v1_short").network(0.25, classes=len(labels) or None, seed=3)
    with torch.no_grad():  # logits that differ between pictures
        for parameter in list(network.parameters())[-2:]:
            parameter.mul_(20)
    folder.mkdir(parents=True)
    write_tensors(folder / "model.safetensors", network.state_dict())
    facts = {"form": "plain", "architecture": "mobilenet_v1_short", "width": 0.25, "edits": []}
    Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors", input=SPEC,
        labels=labels, facts=facts,
    )  # fmt: skip
    return network.eval()


def write_export(folder, network, labels=LABELS, **facts):
    folder.mkdir(parents=True)
    names = OnnxExporter().write(network, SPEC, folder, Form()).files
    Artifact.sealed(
        folder, names, artifact_kind="export", format="onnx", input=SPEC, labels=labels,
        facts={"target": "onnx", "width": 0.25, "architecture": "mobilenet_v1_short"} | facts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run (one extracted net, one export) and pictures."""
    place = tmp_path_factory.mktemp("predict")
    run = place / "runs/mine"
    network = write_model(run / "extract/0.25x")
    write_export(run / "export/0.25x-onnx-none", network)
    (run / "run.json").write_text(
        '{"schema": 1, "kind": "run", "edgessl": "0", "started": "2026-01-01T00:00:00Z", '
        '"commands": [], "stages": {}}'
    )
    rng = np.random.default_rng(0)
    pictures = place / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name, size in {"wide.png": (200, 100), "deep/tall.jpg": (90, 170), UGLY: (91, 91)}.items():
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(pictures / name)
    Image.fromarray(rng.integers(0, 256, (95, 120), dtype=np.uint8)).save(pictures / "grey.png")
    (pictures / "empty.jpg").touch()
    (pictures / "text.png").write_text("no picture")
    whole = (pictures / "wide.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    return place


def expected(place, name):
    """Probabilities by torchvision's transforms and the torch net: nothing of ours in between."""
    network, _ = load_model(place / "runs/mine/extract/0.25x")
    prepare = v2.Compose(
        [
            v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(SPEC.mean, SPEC.std),
        ]
    )  # fmt: skip
    picture = Image.open(place / "pictures" / name).convert("RGB")
    picture = v2.CenterCrop(80)(v2.Resize(91)(picture))
    with torch.no_grad():
        return network(prepare(picture)[None]).softmax(1)[0].double().numpy()


@pytest.mark.parametrize("model", ["last", "runs/mine", "runs/mine/extract/0.25x"])
def test_answers_are_those_of_pytorch_on_torchvisions_input(place, monkeypatch, model):
    monkeypatch.chdir(place)
    finding = api_light.predict(model, ["pictures"], top=6)
    entries = {entry["path"]: entry for entry in finding.result["images"]}
    assert set(entries) == {
        f"pictures/{n}" for n in ("wide.png", "deep/tall.jpg", UGLY, "grey.png")
    }
    for path, entry in entries.items():
        p = expected(place, path.removeprefix("pictures/"))
        order = np.argsort(-p)
        assert [best["label"] for best in entry["top"]] == [LABELS[c] for c in order]
        got = [best["score"] for best in entry["top"]]
        np.testing.assert_allclose(got, p[order], atol=2e-5)
        assert (entry["predicted"], entry["score"]) == (LABELS[order[0]], got[0])
        assert entry["margin"] == pytest.approx(p[order[0]] - p[order[1]], abs=4e-5)
    assert len({entry["predicted"] for entry in entries.values()}) > 1  # it can tell them apart
    skipped = {item["path"]: item["reason"] for item in finding.result["skipped"]}
    assert set(skipped) == {f"pictures/{name}" for name in ("empty.jpg", "text.png", "cut.png")}
    kind = "extract" if "extract" in model else "export"
    assert finding.result["model"].startswith(f"runs/mine/{kind}/")
    assert (
        finding.next
        == {
            "extract": "edgessl export runs/mine/extract/0.25x",
            "export": "edgessl bench runs/mine/export/0.25x-onnx-none",
        }[kind]
    )


def test_the_command_shows_bars_and_writes_a_table(place):
    out, err = edgessl("predict", "last", "pictures/wide.png", "--top", "3", cwd=place)
    lines = out.splitlines()
    assert lines[0] == "pictures/wide.png"
    assert len(lines) == 4
    assert all("%" in line for line in lines[1:])
    assert "█" in lines[1]
    assert "next: edgessl bench" in err
    out, err = edgessl("predict", "last", "pictures", "--csv", "answers.csv", cwd=place)
    assert "written: answers.csv" in out
    assert err.count("warning: skipped") == 3
    with (place / "answers.csv").open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 7
    ugly = rows[f"pictures/{UGLY}"]
    p = expected(place, UGLY)
    assert ugly["predicted"] == LABELS[p.argmax()]
    assert float(ugly["score"]) == pytest.approx(p.max(), abs=2e-5)
    assert float(ugly["score5"]) == pytest.approx(np.sort(p)[1], abs=2e-5)
    assert (ugly["problem"], rows["pictures/empty.jpg"]["predicted"]) == ("", "")
    assert rows["pictures/empty.jpg"]["problem"] == "the file is empty"


def test_json_is_one_document_also_on_failure(place):
    out, err = edgessl("predict", "last", "pictures/wide.png", "--json", cwd=place)
    document = json.loads(out)
    assert document["command"] == "predict"
    assert len(document["result"]["images"]) == 1
    assert err == ""
    for arguments, code in (
        (("last", "pictures/cut.png", "gone.jpg"), 3),
        (("last", "nowhere"), 3),
        (("last",), 2),
        (("nosuch", "pictures"), 3),
    ):
        out, _ = edgessl("predict", *arguments, "--json", cwd=place, expect=code)
        assert json.loads(out)["error"]["code"] == code


def test_an_altered_file_gives_no_answer(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, name in (
        ("export/0.25x-onnx-none", "model.onnx"),
        ("extract/0.25x", "model.safetensors"),
    ):
        copy = tmp_path / kind.split("/")[0]
        shutil.copytree(place / "runs/mine" / kind, copy)
        path = copy / name
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with pytest.raises(FileInvalid, match="was changed or cut"):
            api_light.predict(copy, [place / "pictures/wide.png"])


def test_an_embedding_model_gives_features_to_files_only(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "net", labels=())
    picture = place / "pictures/wide.png"
    with pytest.raises(UsageProblem, match="features, not classes"):
        api_light.predict("net", [picture], features=False)
    finding = api_light.predict("net", [picture], csv=tmp_path / "f.csv", features=False)
    (entry,) = finding.result["images"]
    assert len(entry["features"]) == 128
    assert entry["norm"] == pytest.approx(np.linalg.norm(entry["features"]), rel=1e-4)
    with (tmp_path / "f.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["f127"]) == entry["features"][127]
    _, err = edgessl("predict", "net", picture, cwd=tmp_path, expect=2)
    assert "--csv" in err


def test_a_host_network_is_refused(tmp_path):
    (tmp_path / "w").write_bytes(b"x")
    Artifact.sealed(
        tmp_path, ["w"], artifact_kind="model", format="safetensors", input=SPEC, labels=LABELS,
        facts={"form": "host"},
    )  # fmt: skip
    with pytest.raises(FileInvalid, match="host network") as caught:
        api_light.predict(tmp_path, ["x.jpg"])
    assert "edgessl extract" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileInvalid, match="no model that can answer"):
        api_light.predict(tmp_path / "empty", ["x.jpg"])


def test_of_several_exports_the_widest_that_runs_here_answers(tmp_path, monkeypatch):
    (tmp_path / "w").write_bytes(b"x")
    for width, target in ((0.5, "onnx"), (1.0, "tflite"), (1.0, "openvino")):
        folder = tmp_path / f"export/{width:g}x-{target}-none"
        folder.mkdir(parents=True)
        (folder / "w").write_bytes(b"x")
        Artifact.sealed(
            folder, ["w"], artifact_kind="export", format=target, input=SPEC,
            facts={"target": target, "width": width},
        )  # fmt: skip
    assert inference.runnable_folder(tmp_path).name == "1x-openvino-none"
    absent = {"openvino"}
    found = inference.find_spec
    monkeypatch.setattr(inference, "find_spec", lambda n: None if n in absent else found(n))
    assert inference.runnable_folder(tmp_path).name == "1x-tflite-none"
    with pytest.raises(MissingExtra, match="openvino") as caught:
        api_light.predict(tmp_path / "export/1x-openvino-none", ["x.jpg"])
    assert caught.value.hint == "pip install 'edgessl[openvino]'"
    absent.add("ai_edge_litert")
    assert inference.runnable_folder(tmp_path / "export").name == "0.5x-onnx-none"


def test_a_runtime_that_crashes_is_a_message(place, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(place)
    with pytest.raises(NativeCrash, match="SIGSEGV"):
        api_light.predict("last", ["pictures/wide.png"])


def test_an_exported_file_answers_without_torch(place, tmp_path, monkeypatch):
    for package in ("torch", "torchvision", "sklearn"):
        (tmp_path / f"{package}.py").write_text(f"raise AssertionError('{package} was imported')")
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "edgessl", "predict", "last", "pictures/wide.png"], cwd=place,
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pictures/wide.png\n")


def test_nothing_readable_is_an_error_that_says_why(place, monkeypatch):
    monkeypatch.chdir(place)
    pictures = [f"pictures/{name}" for name in ("cut.png", "gone.jpg", "empty.jpg")]
    with pytest.raises(DataInvalid, match=r"none of the 3 image\(s\)"):
        api_light.predict("last", pictures)
    skipped = api_light.predict("last", [*pictures, "pictures/wide.png"]).result["skipped"]
    assert [item["reason"] for item in skipped[:2]] == [
        "there is no such file",
        "the file is empty",
    ]


def test_output_that_cannot_show_a_name_escapes_it(place):
    environment = ENVIRONMENT | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "edgessl", "predict", "last", f"pictures/{UGLY}"], cwd=place,
        env=environment, capture_output=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "\\U0001f419\\nd.png" in text
    assert "#" in text
    assert text.startswith("pictures/a 'b'")

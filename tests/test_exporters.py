"""Every target: the file computes what the net computes, tells nothing, never phones home."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edgessl.core import errors
from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form, Written, run_file
from edgessl.exporters.parity import BROKEN, FLOAT32_TOLERANCE, compare
from edgessl.stages.conversion import as_json, written_from

SIDE, CLASSES, IMAGES = 48, 10, 64
SPEC = InputSpec.square(SIDE)

# run from a folder whose name stands for a user; whatever asks for the network is noted
SCRIPT = """
import sys
asked = []
sys.addaudithook(
    lambda event, args: asked.append((event, str(args)))
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
    else None
)
from pathlib import Path
from safetensors.torch import load_file
import torch, torchvision
from edgessl.core.artifact import InputSpec
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form
target, weights, out = sys.argv[1:]
net = torchvision.models.mobilenet_v3_small(num_classes=10)
net.load_state_dict(load_file(weights))
net.to(memory_format=torch.channels_last).train()  # exporters must not depend on either
exporter = EXPORTERS.load(target)()
names = exporter.write(net, InputSpec.square(48), Path(out), Form()).files
assert net.training, "the caller's net was changed"
assert names[0] == exporter.main_file and names == list(dict.fromkeys(names))
assert sorted(names) == sorted(p.name for p in Path(out).iterdir()), "other files were left"
if target == "openvino":
    from openvino.tools.ovc import telemetry_utils
    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")
    assert sys.modules["openvino_telemetry"] is None
assert not asked, asked
"""
USER = "zaphod-beeblebrox"


def need(target):
    for package in ("torchvision", *EXPORTERS.load(target).needs):
        pytest.importorskip(package, reason=f"the extra of {target} is not installed")


@pytest.fixture(scope="module")
def images():
    """Handwritten digits, enlarged and normalised: (N, 3, H, W) float32."""
    load_digits = pytest.importorskip("sklearn.datasets", reason="needs train").load_digits
    grey = np.kron(load_digits().images[:IMAGES] / 16, np.ones((SIDE // 8, SIDE // 8)))
    mean, std = (np.array(v)[:, None, None] for v in (SPEC.mean, SPEC.std))
    return ((grey[:, None] - mean) / std).astype(np.float32)


@pytest.fixture(scope="module")
def net(images):
    """MobileNetV3-small with random weights whose answers depend on the image.

    As torchvision initialises it, signals drown in BatchNorm's epsilon and the logits are little
    more than the last bias: a broken trunk would go unseen.
    """
    torch = pytest.importorskip("torch", reason="needs the extra train")
    models = pytest.importorskip("torchvision", reason="needs the extra train").models
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.mobilenet_v3_small(num_classes=CLASSES)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # take the batch statistics as they are
                torch.nn.init.uniform_(layer.weight, 0.7, 1.3)
                torch.nn.init.normal_(layer.bias, 0, 0.3)
            elif isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                torch.nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            net.train()(torch.from_numpy(images))
            net.classifier[-1].bias -= net.eval()(torch.from_numpy(images)).mean(0)
    return net


@pytest.fixture(scope="module")
def reference(net, images):
    import torch

    with torch.inference_mode():
        logits = np.concatenate([net(torch.from_numpy(x[None])).numpy() for x in images])
    assert len(set(logits.argmax(axis=1))) >= 4
    assert logits.std(axis=0).min() > 0.05 * np.abs(logits).max()
    return logits


@pytest.fixture(scope="module")
def export_fresh(net, tmp_path_factory):
    """Export in a fresh process; exports of one (target, hash seed) are made once."""
    from safetensors.torch import save_file

    base = tmp_path_factory.mktemp("exports")
    home = base / USER
    home.mkdir()
    save_file(net.state_dict(), home / "net.safetensors")
    (home / "export.py").write_text(SCRIPT)
    done = {}

    def export(target, seed="0"):
        if (target, seed) not in done:
            need(target)
            done[target, seed] = out = base / f"{target}-{seed}"
            out.mkdir()
            private = {"HOME": str(home), "USER": USER, "LOGNAME": USER, "PYTHONHASHSEED": seed}
            result = subprocess.run(
                [sys.executable, home / "export.py", target, home / "net.safetensors", out],
                env=os.environ | private,
                cwd=home,
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, result.stderr[-3000:]
        return done[target, seed]

    return export


def in_layout(exporter, images):
    nhwc = exporter.layout == "NHWC"
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if nhwc else images


targets = pytest.mark.parametrize("target", list(EXPORTERS))
converts = [pytest.mark.slow, pytest.mark.export]


def marked(function):
    for mark in converts:
        function = mark(function)
    return targets(function)


@marked
def test_the_file_answers_as_torch_does_on_real_images(target, export_fresh, images, reference):
    exporter = EXPORTERS.load(target)()
    parity = compare(
        reference, run_file(exporter, export_fresh(target), in_layout(exporter, images))
    )
    assert parity.passed
    assert parity.agreement == 1.0
    # float32 with room to spare: bfloat16 (8 bits) or float16 weights (11 bits) are far outside
    assert parity.max_abs < 5e-5
    assert parity.snr_db > 90
    assert exporter.format == EXPORTERS[target].facts["format"]
    assert exporter.layout == EXPORTERS[target].facts["layout"]


@marked
def test_two_fresh_processes_write_the_same_bytes(target, export_fresh):
    first, second = export_fresh(target), export_fresh(target, seed="1")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@marked
def test_the_file_tells_nothing_of_the_machine(target, export_fresh):
    private = [
        USER,
        "site-packages",
        sys.prefix,
        str(Path(__file__).parents[1]),
        "Traceback",
        ".py",
    ]
    for path in export_fresh(target).iterdir():
        content = path.read_bytes()
        assert [text for text in private if text.encode() in content] == [], path.name


@marked
def test_one_altered_weight_is_seen(target, export_fresh, net, images, reference, tmp_path):
    bias = net.classifier[-1].bias.detach().numpy().astype("<f4")
    altered = bias.copy()
    altered[7] += 0.01 * np.abs(reference).max()
    changed = 0
    for path in export_fresh(target).iterdir():
        content = path.read_bytes()
        changed += content.count(bias.tobytes())
        (tmp_path / path.name).write_bytes(content.replace(bias.tobytes(), altered.tobytes()))
    assert changed == 1, "weights are kept as they are, little-endian float32"
    exporter = EXPORTERS.load(target)()
    try:
        logits = run_file(exporter, tmp_path, in_layout(exporter, images))
    except errors.FileInvalid:  # a format with a checksum of its own
        return
    parity = compare(reference, logits)
    assert not parity.passed
    assert parity.max_abs == pytest.approx(0.01, rel=1e-2)
    assert parity.differing == tuple((i, 7) for i in range(5))


@marked
def test_the_predict_task_needs_no_torch_and_gives_the_same_logits(target, export_fresh, tmp_path):
    exporter = EXPORTERS.load(target)()
    folder, spec = export_fresh(target), SPEC.with_layout(exporter.layout)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    written = as_json(Written([exporter.main_file], spec))
    job = {"target": target, "folder": str(folder), "images": str(tmp_path / "x.npy")}
    code = (
        "import json, sys\n"
        "from edgessl.stages.conversion import predict\n"
        "assert predict(json.loads(sys.argv[1]))['n'] == 4\n"
        "assert 'torch' not in sys.modules\n"
    )
    argument = json.dumps(job | {"written": written, "outputs": str(tmp_path / "y.npy")})
    subprocess.run([sys.executable, "-c", code, argument], check=True, capture_output=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "y.npy", allow_pickle=False),
        run_file(exporter, folder, to_model_input(pixels, spec)),
    )


@marked
def test_inputs_of_the_wrong_layout_or_type_are_refused(target, export_fresh):
    exporter, folder = EXPORTERS.load(target)(), export_fresh(target)
    right = {"NCHW": (2, 3, SIDE, SIDE), "NHWC": (2, SIDE, SIDE, 3)}[exporter.layout]
    wrong = {"NHWC": (2, 3, SIDE, SIDE), "NCHW": (2, SIDE, SIDE, 3)}[exporter.layout]
    for bad in (np.zeros(wrong, np.float32), np.zeros(right), np.zeros((0, *right[1:]), "f4")):
        with pytest.raises(errors.DataInvalid, match="images of shape"):
            run_file(exporter, folder, bad)


@marked
def test_a_file_that_is_cut_or_gone_is_told(target, export_fresh, images, tmp_path):
    exporter = EXPORTERS.load(target)()
    x = in_layout(exporter, images[:1])
    with pytest.raises(errors.FileInvalid, match="cannot be read"):
        run_file(exporter, tmp_path, x)
    for path in export_fresh(target).iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2])
    with pytest.raises(errors.FileInvalid, match="cannot be read"):
        run_file(exporter, tmp_path, x)


@pytest.mark.slow
@pytest.mark.export
def test_onnx_holds_what_was_asked_in_one_file(export_fresh):
    path = export_fresh("onnx") / "model.onnx"
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    ends = [*model.graph.input, *model.graph.output]
    shapes = [[d.dim_value for d in e.type.tensor_type.shape.dim] for e in ends]
    assert [e.name for e in ends] == ["input", "logits"]
    assert shapes == [[1, 3, SIDE, SIDE], [1, CLASSES]]
    assert not any(t.external_data for t in model.graph.initializer)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert "metadata_props" not in str(model)


@pytest.mark.slow
@pytest.mark.export
def test_onnx_would_tell_without_the_stripping(tmp_path, monkeypatch):
    need("onnx")
    import torch

    from edgessl.exporters import onnx_graph, to_onnx

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())
    monkeypatch.setattr(onnx_graph, "strip", lambda *_: None)
    to_onnx.OnnxExporter().write(net, InputSpec.square(8), tmp_path, Form())
    assert b".py" in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.slow
@pytest.mark.export
def test_openvino_is_held_to_float32_where_its_default_is_not(export_fresh, images, reference):
    folder = export_fresh("openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(folder / "model.xml")
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == ["input", "logits"]
    assert list(model.input(0).shape) == [1, 3, SIDE, SIDE]
    weights = sum(
        p.nbytes for p in (o.data for o in model.get_ops() if o.type_info.name == "Constant")
    )
    assert weights > 4 * 1_500_000  # 1.5 million parameters at four bytes
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16, so its default is float32 too")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    default = np.concatenate([compiled({0: x[None]})[0] for x in images[:8]])
    assert not compare(reference[:8], default).passed


@pytest.mark.slow
@pytest.mark.export
def test_openvino_names_do_not_depend_on_what_was_converted_before(tmp_path):
    need("openvino")
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Hardswish(), torch.nn.Flatten())
    written = []
    for _ in range(2):
        EXPORTERS.load("openvino")().write(net, InputSpec.square(8), tmp_path, Form())
        written.append([(tmp_path / n).read_bytes() for n in ("model.xml", "model.bin")])
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.export
def test_the_convert_task_takes_a_sealed_model(tmp_path):
    need("onnx")
    import torch

    from edgessl.core.artifact import Artifact
    from edgessl.encoders import ENCODERS
    from edgessl.encoders.loading import write_tensors
    from edgessl.stages.child import run_child

    net = ENCODERS.load("mobilenet_v3_small").network(0.5, classes=3, stem="stock").eval()
    model, out = tmp_path / "model", tmp_path / "out"
    out.mkdir()
    write_tensors(model / "model.safetensors", net.state_dict())
    Artifact.sealed(
        model,
        ["model.safetensors"],
        artifact_kind="model",
        format="safetensors",
        input=InputSpec.square(32),
        labels=("a", "b", "c"),
        facts={"form": "plain", "architecture": "mobilenet_v3_small", "width": 0.5, "edits": []},
    )
    job = {
        "target": "onnx",
        "model_folder": str(model),
        "out_folder": str(out),
        "form": asdict(Form()),
    }
    got = run_child("convert", job, timeout_s=300, log=tmp_path / "log.txt")
    written = written_from(got["written"])
    assert (written.files, got["format"], written.input.layout) == (["model.onnx"], "onnx", "NCHW")
    layers = [
        n for n, m in net.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    assert sorted(layer.module for layer in written.layers) == sorted(layers)
    assert got["versions"] == EXPORTERS.load("onnx")().versions()
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        assert compare(net(torch.from_numpy(x)), run_file(EXPORTERS.load("onnx")(), out, x)).passed


@targets
def test_the_table_fits_the_classes(target):
    exporter = EXPORTERS.load(target)()
    assert exporter.main_file.startswith("model.")
    assert EXPORTERS[target].facts["runtime"] in exporter.needs
    if all(importlib.util.find_spec(package) for package in exporter.needs):
        assert len(exporter.versions()) >= 2


def test_tables_and_exporter_modules_import_no_runtime():
    code = (
        "import sys\n"
        "from edgessl.exporters import EXPORTERS\n"
        "assert 'numpy' not in sys.modules\n"
        "[EXPORTERS.load(name) for name in EXPORTERS]\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'litert_torch', 'ai_edge_litert'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parity_by_hand():
    # largest reference logit 4; differences 0, 1, 0 and 0, 0, 2
    parity = compare([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]], [[3.0, 1.0, 4.0], [0.0, 2.0, 2.0]], 0.3)
    assert parity.max_abs == 2 / 4
    assert parity.cosine == pytest.approx(math.sqrt(0.5))  # second image; the first: 5 / sqrt(26)
    assert parity.agreement == 1.0  # a tie goes to the lower index on both sides
    assert parity.snr_db == pytest.approx(10 * math.log10((9 + 16 + 4) / (1 + 4)))
    assert parity.differing == ((1, 2),)
    assert not parity.passed
    check = parity.as_check("golden")
    assert (check.n, check.max_abs, check.tolerance, check.passed) == (2, 0.5, 0.3, False)
    assert check.model_dump(by_alias=True)["pass"] is False


def test_parity_of_equals_and_of_one_flipped_answer():
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    same = compare(logits, logits.copy())
    assert (same.max_abs, same.agreement, same.snr_db, same.differing) == (0, 1, 300, ())
    assert same.cosine == pytest.approx(1)
    assert same.passed
    flipped = logits.copy()
    flipped[3] = -flipped[3]
    assert compare(logits, flipped).agreement == 19 / 20
    assert compare(logits, flipped).cosine == pytest.approx(-1)


def test_the_tolerance_is_relative_to_the_largest_logit():
    reference = np.array([[1000.0, -5000.0]])
    assert compare(reference, reference + 4.9).passed
    assert not compare(reference, reference + 5.1).passed
    assert FLOAT32_TOLERANCE == 1e-3
    zero = np.zeros((1, 2))
    assert compare(zero, zero).passed
    assert not compare(zero, zero + 0.01).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_never_passes(bad):
    reference = np.eye(3)
    got = reference.copy()
    got[1, 1] = bad
    parity = compare(reference, got, tolerance=1e9)
    assert not parity.passed
    assert (parity.max_abs, parity.cosine, parity.differing) == (BROKEN, 0, ((1, 1),))
    assert parity.agreement == pytest.approx(2 / 3)
    json.dumps(parity.as_check("golden").model_dump(), allow_nan=False)  # strict JSON holds it
    with pytest.raises(errors.GateFailed, match="the model itself"):
        compare(got, reference)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3,), (3, 3, 1)])
def test_other_shapes_are_an_error_not_a_broadcast(shape):
    with pytest.raises(errors.GateFailed, match="shape"):
        compare(np.eye(3), np.ones(shape))

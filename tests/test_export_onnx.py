"""ONNX files in every precision: right answers, module names, clean bytes, scripts that run."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from edgessl.core import errors
from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_logits, to_model_input
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import CONTRACT_KEY, Form, Scheme, run_file

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
torch = pytest.importorskip("torch", reason="needs the extra train")

pytestmark = [pytest.mark.slow, pytest.mark.export]

SIDE, CLASSES, IMAGES = 48, 10, 64
SPEC = InputSpec.square(SIDE)
NAMES = tuple(f"digit {i}" for i in range(CLASSES))
EXPORTER = EXPORTERS.load("onnx")()

# floors of agreement and SNR of the logits (dB) on the calibration images themselves, on the net
# below, which has learned these images: far under what was seen, far over a broken file
FLOORS = {
    Scheme("fp16"): (0.99, 50),
    Scheme("dynamic"): (0.98, 27),
    Scheme("int8"): (0.98, 18),
    Scheme("int8", "percentile"): (0.95, 16),
    Scheme("int8", "moving_average"): (0.85, 9),
    Scheme("w8a16"): (0.98, 27),
}


@pytest.fixture(scope="module")
def pixels():
    """Handwritten digits, enlarged: (N, H, W, 3) uint8."""
    load_digits = pytest.importorskip("sklearn.datasets", reason="needs train").load_digits
    grey = np.kron(load_digits().images[:IMAGES] * 15.9, np.ones((SIDE // 8, SIDE // 8)))
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=3)


@pytest.fixture(scope="module")
def net(pixels):
    """MobileNetV3-small that has learned these digits in 20 steps."""
    models = pytest.importorskip("torchvision", reason="needs the extra train").models
    labels = torch.from_numpy(pytest.importorskip("sklearn.datasets").load_digits().target[:IMAGES])
    images = torch.from_numpy(to_model_input(pixels, SPEC))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.mobilenet_v3_small(num_classes=CLASSES, dropout=0.0).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        for _ in range(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # take the batch statistics as they are
                layer.reset_running_stats()
        with torch.no_grad():
            net(images)
    return net.eval()


@pytest.fixture(scope="module")
def reference(net, pixels):
    with torch.inference_mode():
        logits = net(torch.from_numpy(to_model_input(pixels, SPEC))).numpy()
    assert len(set(logits.argmax(axis=1))) == CLASSES
    return logits


class Small(torch.nn.Module):
    """A convolution, a squeeze-and-excitation, a residual and a linear layer; fast to export."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = torch.nn.Conv2d(8, 8, 1)
        self.classifier = torch.nn.Linear(8, 3)

    def forward(self, x):
        x = torch.nn.functional.hardswish(self.norm(self.stem(x)))
        y = torch.relu(self.depthwise(x))
        y = y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.classifier((x + y).mean((2, 3)))


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture(scope="module")
def float_file(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("float")
    return EXPORTER.write(net, SPEC, folder, Form()), folder


@pytest.fixture(scope="module")
def quantized(float_file, pixels, tmp_path_factory):
    """Quantise the float file by a scheme, once."""
    done = {}
    written, source = float_file

    def quantize(scheme):
        if scheme not in done:
            folder = tmp_path_factory.mktemp(scheme.precision)
            images = to_model_input(pixels, written.input)
            done[scheme] = EXPORTER.quantize(source, written, folder, scheme, images), folder
        return done[scheme]

    return quantize


def answers(written, folder, pixels):
    outputs = run_file(EXPORTER, folder, to_model_input(pixels, written.input))
    return to_logits(outputs, written.output)


def snr_db(reference, got):
    return 10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum())


def agreement(reference, got):
    return (reference.argmax(axis=1) == got.argmax(axis=1)).mean()


def executed(net):
    """Convolutions and linear layers as PyTorch runs them, and what comes out of each."""
    seen, handles = [], []
    for name, layer in net.named_modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            note = lambda _module, _inputs, output, name=name: seen.append((name, output.clone()))  # noqa: E731
            handles.append(layer.register_forward_hook(note))
    return seen, handles


def test_float_answers_as_torch_does(float_file, pixels, reference):
    written, folder = float_file
    logits = answers(written, folder, pixels)
    assert agreement(reference, logits) == 1
    assert np.abs(logits - reference).max() < 5e-5 * np.abs(reference).max()
    assert (written.input.layout, written.input.dtype) == ("NCHW", "float32")


@pytest.mark.parametrize("scheme", FLOORS, ids=lambda s: f"{s.precision}-{s.calibration}")
def test_smaller_files_answer_nearly_so(scheme, quantized, float_file, pixels, reference):
    written, folder = quantized(scheme)
    logits = answers(written, folder, pixels)
    least_agreement, least_snr = FLOORS[scheme]
    assert agreement(reference, logits) >= least_agreement
    assert snr_db(reference, logits) >= least_snr
    # a float file of more than 16 bits a weight would not fit; names and scales take some, too
    bits = 16 if scheme.precision == "fp16" else 8
    whole = (float_file[1] / "model.onnx").stat().st_size
    assert (folder / "model.onnx").stat().st_size < whole * bits / 32 * 1.2
    assert written.input == float_file[0].input
    assert written.output.quantized is None


def test_layers_are_all_there_in_order(net, float_file, quantized, pixels):
    seen, handles = executed(net)
    with torch.inference_mode():
        net(torch.from_numpy(to_model_input(pixels[:1], SPEC)))
    for handle in handles:
        handle.remove()
    modules = [name for name, _ in seen]
    for written, folder in (float_file, *(quantized(scheme) for scheme in FLOORS)):
        assert [layer.module for layer in written.layers] == modules
        nodes = [node.name for node in onnx.load(folder / "model.onnx").graph.node]
        assert len(set(nodes)) == len(nodes)
        places = [nodes.index(layer.node) for layer in written.layers]
        assert places == sorted(places)
    assert float_file[0].layers[0].node == "features.0.0/Conv"
    assert float_file[0].layers[-1].node == "classifier.3/Gemm"
    assert float_file[0].layers[-1].op == "linear"


def test_activations_are_those_of_torch(net, float_file, quantized, pixels):
    written, folder = float_file
    images = to_model_input(pixels[:4], SPEC)
    activations = EXPORTER.activations(folder, written.layers, images)
    seen, handles = executed(net)
    with torch.inference_mode():
        net(torch.from_numpy(images))
    for handle in handles:
        handle.remove()
    # squeeze-and-excitation has no BatchNorm, which would be folded in; fc1 has a ReLU behind it
    compared = 0
    for name, output in seen:
        want = torch.relu(output) if name.endswith("fc1") else output
        if name.endswith((".fc1", ".fc2")) or name.startswith("classifier"):
            np.testing.assert_allclose(activations[name], want.numpy(), atol=1e-4)
            compared += 1
    assert compared == 9 * 2 + 2
    assert len(activations) == len(written.layers)

    by_scheme = {}
    for scheme in FLOORS:
        smaller, place = quantized(scheme)
        got = EXPORTER.activations(place, smaller.layers, images)
        assert {v.dtype for v in got.values()} == {np.dtype(np.float32)}
        assert set(got) == set(activations)
        by_scheme[scheme] = [snr_db(activations[name], got[name]) for name in activations]
        assert by_scheme[scheme][0] > 30, scheme  # the first layer: one rounding only
        assert min(by_scheme[scheme]) > 10, scheme
    assert min(by_scheme[Scheme("fp16")]) > 40


def test_layers_that_shall_stay_float_do(float_file, quantized, pixels, reference):
    stay = ("features.0.0", "features.4.block.1.0", "classifier.3")
    model = onnx.load(float_file[1] / "model.onnx")
    whole = weights_of(model)
    for precision in ("fp16", "dynamic", "int8", "w8a16"):
        written, folder = quantized(Scheme(precision, float_layers=stay))
        kept = weights_of(onnx.load(folder / "model.onnx"))
        for layer in float_file[0].layers:
            same = any(
                np.array_equal(whole[layer.node], rows) or np.array_equal(whole[layer.node].T, rows)
                for rows in kept.values()
            )
            assert same == (layer.module in stay), (precision, layer.module)
        assert agreement(reference, answers(written, folder, pixels)) >= 0.9
    with pytest.raises(errors.ConversionFailed, match=r"features\.99"):
        quantized(Scheme("int8", float_layers=("features.99",)))


def weights_of(model):
    """Float32 constants that convolutions and products read, by node."""
    constants = {
        t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT
    }
    return {
        node.name: onnx.numpy_helper.to_array(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants
    }


def rounded_within_the_grid(logits, integers, spec):
    """Logits and integers differ by the rounding to the grid and its two ends alone."""
    low, high = to_logits(np.array([[0], [255]], np.uint8), spec)[:, 0]
    difference = np.abs(to_logits(integers, spec) - logits.clip(low, high))
    assert difference.max() <= spec.quantized.scale * 0.51


def test_integers_in_and_out_mean_the_same(quantized, pixels):
    plain, plain_folder = quantized(Scheme("int8"))
    written, folder = quantized(Scheme("int8", integer_io=True))
    assert (written.input.dtype, written.output.dtype) == ("uint8", "uint8")
    outputs = run_file(EXPORTER, folder, to_model_input(pixels, written.input))
    assert outputs.dtype == np.uint8
    rounded_within_the_grid(answers(plain, plain_folder, pixels), outputs, written.output)
    with pytest.raises(errors.ConversionFailed, match="integers in and out go with int8"):
        quantized(Scheme("w8a16", integer_io=True))


def test_integer_ends_of_float_layers(quantized, pixels, reference):
    ends = ("features.0.0", "classifier.3")
    written, folder = quantized(Scheme("int8", float_layers=ends, integer_io=True))
    assert (written.input.dtype, written.output.dtype) == ("uint8", "uint8")
    assert agreement(reference, answers(written, folder, pixels)) >= 0.9


def test_pixels_in_and_any_batch(small, tmp_path):
    spec = InputSpec.square(16)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        want = small(torch.from_numpy(to_model_input(pixels, spec))).numpy()
    largest = np.abs(want).max()
    written = EXPORTER.write(small, spec, tmp_path, Form(embed=True, dynamic_batch=True))
    assert written.input.takes_pixels
    assert written.input.layout == "NHWC"
    assert [layer.module for layer in written.layers] == [
        "stem", "depthwise", "squeeze", "classifier",
    ]  # fmt: skip
    session = EXPORTER.open(tmp_path)
    assert (session.shape, session.dtype) == ((0, 16, 16, 3), "uint8")
    for batch in (1, 5, 32):
        np.testing.assert_allclose(session.infer(pixels[:batch]), want[:batch], atol=1e-5)
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "Shape" not in kinds

    smaller = tmp_path / "int8"
    smaller.mkdir()
    int8 = EXPORTER.quantize(tmp_path, written, smaller, Scheme("int8"), pixels)
    assert int8.input == written.input
    got = EXPORTER.open(smaller).infer(pixels)
    np.testing.assert_allclose(got, want, atol=0.05 * largest)
    kinds = [node.op_type for node in onnx.load(smaller / "model.onnx").graph.node]
    # pixels are exact: nothing is rounded before the first layer reads it
    assert kinds.index("QuantizeLinear") > kinds.index("Mul")
    assert kinds.index("QuantizeLinear") > kinds.index("Add")
    both = tmp_path / "both"
    both.mkdir()
    written = EXPORTER.quantize(tmp_path, written, both, Scheme("int8", integer_io=True), pixels)
    assert written.input == int8.input
    rounded_within_the_grid(got, EXPORTER.open(both).infer(pixels), written.output)


@pytest.mark.parametrize("scheme", [None, Scheme("int8"), Scheme("int8", integer_io=True)])
def test_the_script_beside_the_file_reproduces_the_logits(
    scheme, float_file, quantized, pixels, tmp_path
):
    written, folder = float_file if scheme is None else quantized(scheme)
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (tmp_path / "example.py").write_text(EXPORTER.snippet(written, NAMES), encoding="utf-8")
    expected = answers(written, folder, pixels[:16])
    images = pixels[:16]
    np.savez(tmp_path / "golden.npz", images=images, reference=expected, expected=expected, seal="")
    run = [sys.executable, "-I", tmp_path / "example.py"]
    good = subprocess.run(run, capture_output=True, text=True, cwd="/")
    assert good.returncode == 0, good.stderr
    assert f"golden image 15: {NAMES[expected[15].argmax()]}" in good.stdout

    np.save(tmp_path / "one.npy", images[3])
    one = subprocess.run([*run, tmp_path / "one.npy"], capture_output=True, text=True)
    assert one.stdout.strip() == NAMES[expected[3].argmax()]

    altered = expected.copy()
    altered[7, 2] += 0.1 * np.abs(expected).max()
    np.savez(tmp_path / "golden.npz", images=images, expected=altered)
    assert subprocess.run(run, capture_output=True).returncode == 1


def test_the_contract_is_inside_and_nothing_else(float_file, quantized, tmp_path):
    for written, folder in (float_file, quantized(Scheme("int8"))):
        (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
        assert EXPORTER.described(tmp_path) is None
        EXPORTER.describe(tmp_path, '{"side": 48}')
        once = (tmp_path / "model.onnx").read_bytes()
        EXPORTER.describe(tmp_path, '{"side": 48}')
        assert (tmp_path / "model.onnx").read_bytes() == once
        assert EXPORTER.described(tmp_path) == '{"side": 48}'
        model = onnx.load(tmp_path / "model.onnx")
        assert [entry.key for entry in model.metadata_props] == [CONTRACT_KEY]
        del model.graph.initializer[:]  # long to print
        assert str(model).count("metadata_props") == 1
        assert "doc_string" not in str(model)
        assert len(written.layers) == 54
        assert EXPORTER.open(tmp_path).shape == (1, 3, SIDE, SIDE)


def test_opsets_are_what_was_asked(small, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    spec = InputSpec.square(16)
    with torch.inference_mode():
        want = small(torch.from_numpy(x)).numpy()
    for asked, got in ((None, 18), (14, 14), (21, 21)):
        written = EXPORTER.write(small, spec, tmp_path, Form(opset=asked))
        model = onnx.load(tmp_path / "model.onnx")
        assert [(item.domain, item.version) for item in model.opset_import] == [("", got)]
        kinds = {node.op_type for node in model.graph.node}
        assert "GlobalAveragePool" in kinds
        assert "ReduceMean" not in kinds
        np.testing.assert_allclose(run_file(EXPORTER, tmp_path, x), want, atol=1e-5)
    with pytest.raises(errors.ConversionFailed, match=r"opset 13 cannot .* is that of opset 14"):
        EXPORTER.write(small, spec, tmp_path, Form(opset=13))

    wide = tmp_path / "w8a16"
    wide.mkdir()
    EXPORTER.write(small, spec, tmp_path, Form())
    EXPORTER.quantize(tmp_path, written, wide, Scheme("w8a16"), x)
    model = onnx.load(wide / "model.onnx")
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 21)]
    assert onnx.TensorProto.UINT16 in {t.data_type for t in model.graph.initializer}
    np.testing.assert_allclose(run_file(EXPORTER, wide, x), want, atol=0.02 * np.abs(want).max())


def test_an_exporter_that_writes_another_opset_is_told(small, tmp_path, monkeypatch):
    export = torch.onnx.export

    def other(*args, **options):
        return export(*args, **(options | {"opset_version": 18}))

    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(errors.ConversionFailed, match="wrote opset 18, asked for 20"):
        EXPORTER.write(small, InputSpec.square(16), tmp_path, Form(opset=20))


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from edgessl.core.artifact import InputSpec
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form, Scheme
sys.path.insert(0, sys.argv[1])
from small import Small
torch.manual_seed(0)
exporter = EXPORTERS.load("onnx")()
x = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
source = Path(sys.argv[2]) / "none"
source.mkdir(parents=True)
written = exporter.write(Small().eval(), InputSpec.square(16), source, Form())
for scheme in (Scheme("fp16"), Scheme("dynamic"), Scheme("int8", "percentile"), Scheme("w8a16")):
    folder = Path(sys.argv[2]) / scheme.precision
    folder.mkdir()
    small = exporter.quantize(source, written, folder, scheme, x)
    (folder / "layers.txt").write_text(str(small))
    (folder / "example.py").write_text(exporter.snippet(small, "abc"))
"""
USER = "zaphod-beeblebrox"


def test_two_fresh_processes_write_the_same_clean_bytes(tmp_path):
    home = tmp_path / USER
    temporary = home / "tmp"
    temporary.mkdir(parents=True)
    (home / "run.py").write_text(SCRIPT)
    import inspect

    (home / "small.py").write_text("import torch\n\n" + inspect.getsource(Small))
    private = [USER, "site-packages", sys.prefix, "Traceback", ".py"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    for seed in ("0", "1"):
        names = {"HOME": str(home), "USER": USER, "TMPDIR": str(temporary), "PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, home / "run.py", home, tmp_path / seed],
            env=environment | names, cwd=home, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
    files = sorted((tmp_path / "0").rglob("*.*"))
    assert len(files) == 1 + 4 * 3
    for path in files:
        content = path.read_bytes()
        assert content == (tmp_path / "1" / path.relative_to(tmp_path / "0")).read_bytes(), path
        if path.suffix == ".onnx":
            assert [text for text in private if text.encode() in content] == [], path
    # ONNX Runtime keeps an identifier and a database when its telemetry is on
    assert [path.name for path in temporary.iterdir()] == []
    assert not (home / ".cache" / "Microsoft").exists()


def test_ranges_by_hand():
    from edgessl.exporters.onnx_ranges import activation_ranges

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["input"], ["logits"])],
        "g",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 20_000])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 20_000])],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    x = np.random.default_rng(0).permutation(40_000).reshape(2, 20_000).astype(np.float32)
    x[0, 0], x[1, 0] = x[x == 0][0], x[0, 0] * 0 + x[1, 0]
    values = np.sort(x.ravel())
    assert activation_ranges(model, x, "minmax")["input"] == (values[0], values[-1])
    assert activation_ranges(model, x, "minmax")["logits"] == (-values[-1], -values[0])
    # 0.005 % of 40,000 values are two at each end
    assert activation_ranges(model, x, "percentile")["input"] == (values[2], values[-3])
    low, high = activation_ranges(model, x, "moving_average")["input"]
    assert (low, high) == (x.min(axis=1).mean(), x.max(axis=1).mean())
    x[1, 5] = np.inf
    with pytest.raises(errors.ConversionFailed, match=r"calibration image 1 .* not finite"):
        activation_ranges(model, x, "minmax")
    with pytest.raises(errors.ConversionFailed, match="no calibration images"):
        activation_ranges(model, x[:0], "minmax")


def test_scripts_say_the_contract_in_plain_constants(float_file, quantized):
    plain = EXPORTER.snippet(float_file[0], NAMES)
    assert "MEAN = np.array([0.485, 0.456, 0.406], np.float32)" in plain
    integers = EXPORTER.snippet(quantized(Scheme("int8", integer_io=True))[0], NAMES)
    for name in ("INPUT_SCALE", "INPUT_ZERO_POINT", "OUTPUT_SCALE", "OUTPUT_ZERO_POINT"):
        assert re.search(rf"^{name} = ", integers, re.MULTILINE)
    for text in (plain, integers):
        compile(text, "example.py", "exec")
        imports = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
        assert imports == {"os", "sys", "pathlib", "numpy", "onnxruntime"}
        assert max(map(len, text.splitlines())) <= 100

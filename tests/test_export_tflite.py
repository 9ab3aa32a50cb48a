"""LiteRT files in every precision: what they answer, what they hold, and what they never tell."""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tflite_nets
from tflite_nets import CLASSES, NAMES, SIDE, SPEC, named_net, small_net

from edgessl.core import errors
from edgessl.core.images import to_logits, to_model_input
from edgessl.data.decode import fit
from edgessl.exporters import EXPORTERS, tflite_file, tflite_quantize, tflite_ranges
from edgessl.exporters.base import Form, Layer, Scheme, run_file
from edgessl.exporters.parity import compare
from edgessl.exporters.to_tflite import TfliteExporter
from edgessl.stages.conversion import written_from

CALIBRATION, TESTED = 400, 200
USER = "zaphod-beeblebrox"


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits, enlarged: uint8 (N, 32, 32, 3) with a tint, and their labels."""
    load_digits = pytest.importorskip("sklearn.datasets", reason="needs train").load_digits
    data = load_digits()
    grey = np.kron(data.images / 16, np.ones((SIDE // 8, SIDE // 8)))[..., None]
    return (grey * [255, 190, 120]).round().astype(np.uint8), data.target


@pytest.fixture(scope="module")
def net(digits):
    """Return a trained net: one with random weights doubles any rounding from layer to layer."""
    torch = pytest.importorskip("torch", reason="needs the extra train")
    pytest.importorskip("torchvision", reason="needs the extra train")
    pixels, labels = digits
    x = torch.from_numpy(to_model_input(pixels[:1200], SPEC))
    y = torch.from_numpy(labels[:1200])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = small_net()
        optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.1
        for _ in range(120):
            rows = torch.randint(0, len(x), (64,))
            loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def calibration(digits):
    return digits[0][:CALIBRATION]


@pytest.fixture(scope="module")
def unseen(digits):
    return digits[0][1200 : 1200 + TESTED]


@pytest.fixture(scope="module")
def reference(net, unseen, digits):
    """Return the logits of the net, of which most are right."""
    import torch

    with torch.inference_mode():
        logits = net(torch.from_numpy(to_model_input(unseen, SPEC))).numpy()
    assert (logits.argmax(1) == digits[1][1200 : 1200 + TESTED]).mean() > 0.85
    return logits


@pytest.fixture(scope="module")
def convert(net, calibration, tmp_path_factory):
    """Write the files in a fresh process of a user and a hash seed; each is done once."""
    for package in ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"):
        pytest.importorskip(package, reason="the extra tflite is not installed")
    import torch

    base = tmp_path_factory.mktemp("tflite")
    np.save(base / "calibration.npy", calibration)
    torch.save(net.state_dict(), base / "net.pt")
    done = {}

    def convert(seed, *options):
        if seed not in done:
            home = base / f"{USER}-{seed}"
            home.mkdir()
            shutil.copy(tflite_nets.__file__, home / "export.py")  # paths of code are private, too
            private = {"HOME": str(home), "USER": USER, "LOGNAME": USER, "PYTHONHASHSEED": seed}
            private["OMP_NUM_THREADS"] = "1"
            command = [sys.executable, "export.py", base / "net.pt", base / "calibration.npy"]
            result = subprocess.run(
                [*command, base / f"out-{seed}", *options],
                env=os.environ | private,
                cwd=home,
                capture_output=True,
                text=True,
            )
            assert result.returncode == 0, result.stderr[-3000:]
            done[seed] = base / f"out-{seed}"
        return done[seed]

    return convert


@pytest.fixture(scope="module")
def files(convert):
    """Return folder and Written of every file of the first process, by name."""
    base = convert("0", "all")
    written = json.loads((base / "written.json").read_text())
    return {name: (base / name, written_from(values)) for name, values in written.items()}


@pytest.fixture(scope="module")
def quantize(files, calibration, tmp_path_factory):
    """Quantise the file of a name; each scheme is done once."""
    done = {}

    def quantize(name, scheme):
        if (name, scheme) not in done:
            source, written = files[name]
            folder = tmp_path_factory.mktemp("quantised")
            inputs = to_model_input(calibration, written.input)
            got = TfliteExporter().quantize(source, written, folder, scheme, inputs)
            assert [path.name for path in folder.iterdir()] == got.files
            done[name, scheme] = folder, got
        return done[name, scheme]

    return quantize


def answers(folder, written, pixels):
    outputs = run_file(TfliteExporter(), folder, to_model_input(pixels, written.input))
    return to_logits(outputs, written.output)


def loaded(folder):
    return tflite_file.load(folder / "model.tflite")


converts = [pytest.mark.slow, pytest.mark.export]


def converting(function):
    for mark in converts:
        function = mark(function)
    return function


@converting
@pytest.mark.parametrize("name", ["float", "pixels"])
def test_the_float_file_answers_as_torch_does(name, files, unseen, reference):
    folder, written = files[name]
    parity = compare(reference, answers(folder, written, unseen))
    assert parity.agreement == 1.0
    assert parity.max_abs < 5e-5
    assert parity.snr_db > 90
    kinds = [operator.kind for operator in tflite_file.operators(loaded(folder))]
    assert "TRANSPOSE" not in kinds
    assert written.input.dtype == {"float": "float32", "pixels": "uint8"}[name]
    assert written.input.takes_pixels == (name == "pixels")
    assert TfliteExporter().open(folder).shape == (1, SIDE, SIDE, 3) == written.input.shape


@converting
def test_whole_pictures_are_resized_inside_as_pillow_does(files):
    import torch

    folder, written = files["whole"]
    assert (written.input.raw, written.input.takes_pixels) == ((60, 50), True)
    pictures = np.random.default_rng(0).integers(0, 256, (20, 60, 50, 3)).astype(np.uint8)
    fitted = np.stack([fit(picture, SIDE, SIDE, SPEC.resize) for picture in pictures])
    with torch.inference_mode():
        want = named_net()(torch.from_numpy(to_model_input(fitted, SPEC))).numpy()
    assert compare(want, answers(folder, written, pictures)).max_abs < 1e-4


# (precision, least agreement, least SNR of the logits in dB, largest size relative to float32)
FLOORS = [
    ("fp16", 0.99, 55, 0.6),
    ("dynamic", 0.96, 30, 0.5),
    ("int8", 0.94, 20, 0.6),
    ("w8a16", 0.97, 30, 0.6),
]


@converting
@pytest.mark.parametrize(("precision", "agreement", "snr_db", "size"), FLOORS)
@pytest.mark.parametrize("name", ["float", "pixels"])
def test_quantised_files_keep_the_answers(
    name, precision, agreement, snr_db, size, files, quantize, unseen, reference
):
    before = (files[name][0] / "model.tflite").read_bytes()
    folder, written = quantize(name, Scheme(precision))
    parity = compare(reference, answers(folder, written, unseen))
    assert parity.agreement >= agreement
    assert parity.snr_db > snr_db
    assert (folder / "model.tflite").stat().st_size < size * len(before)
    assert (files[name][0] / "model.tflite").read_bytes() == before
    assert (written.input, written.output.quantized) == (files[name][1].input, None)


@converting
def test_true_ranges_beat_the_moving_average_of_the_tool(quantize, unseen, reference):
    parities = [
        compare(reference, answers(*quantize("float", Scheme("int8", calibration)), unseen))
        for calibration in ("minmax", "moving_average")
    ]
    assert parities[0].snr_db > parities[1].snr_db + 6


@converting
def test_ranges_are_those_of_the_tool_and_percentiles_those_of_a_sort(files, calibration):
    folder, written = files["float"]
    path, x = folder / "model.tflite", to_model_input(calibration[:50], written.input)
    from ai_edge_quantizer import calibrator, quantizer, recipe
    from ai_edge_quantizer.utils import qsv_utils

    data = {"serving_default": [{"input": image[None]} for image in x]}
    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    true = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    true.calibrate(data, tool._recipe_manager)
    for theirs, name in (
        (true.get_model_qsvs(), "minmax"),
        (tool.calibrate(data, num_threads=1), "moving_average"),
    ):
        ours = tflite_ranges.measure(path, x, name)
        assert set(theirs) <= set(ours)
        for tensor, ends in theirs.items():
            for end in ("min", "max"):
                np.testing.assert_array_equal(ours[tensor][end], ends[end], err_msg=tensor)
    ranges = tflite_ranges.measure(path, x, "percentile")
    seen = TfliteExporter().activations(folder, written.layers, x)
    stem = seen["features.0.0"]
    assert stem.shape == (50, SIDE // 2, SIDE // 2, 16)
    cut = int(stem.size * 5e-5)
    assert cut == 10
    row = np.sort(stem, axis=None)
    found = [ranges["features.0.0"][end].item() for end in ("min", "max")]
    assert found == [row[cut], row[-1 - cut]]


@converting
def test_layers_are_all_there_in_order_under_the_names_of_their_modules(files, net, quantize):
    import torch

    order, handles = [], []
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            kind = "conv" if isinstance(module, torch.nn.Conv2d) else "linear"
            note = lambda *_, row=(name, kind): order.append(row)  # noqa: E731
            handles.append(module.register_forward_hook(note))
    net(torch.zeros(1, 3, SIDE, SIDE))
    for handle in handles:
        handle.remove()
    assert len(order) == 16
    for _, written in (files["float"], files["pixels"], quantize("float", Scheme("int8"))):
        assert [(layer.module, layer.op) for layer in written.layers] == order
        assert all(layer.node == layer.module for layer in written.layers)


def outputs_in_torch(net, x):
    """Return what every layer gives in PyTorch once BatchNorm is folded in, channels last."""
    import torch

    kept, before = {}, {}
    names = {module: name for name, module in net.named_modules()}

    def note(module, given, output):
        if isinstance(module, torch.nn.BatchNorm2d):
            kept[before[id(given[0])]] = output.clone()  # activations work in place
        else:
            before[id(output)] = names[module]
            kept[names[module]] = output.clone()
            alive.append(output)  # or another tensor could get its id

    alive = []
    handles = [
        m.register_forward_hook(note)
        for m in net.modules()
        if not list(m.children())
        and isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.Linear)
    ]
    with torch.inference_mode():
        net(torch.from_numpy(x))
    for handle in handles:
        handle.remove()
    return {k: np.moveaxis(v.numpy(), 1, -1) for k, v in kept.items()}


@converting
def test_activations_are_those_of_torch_up_to_the_activation_that_is_fused(
    files, net, unseen, quantize
):
    folder, written = files["float"]
    inputs = to_model_input(unseen[:20], written.input)
    seen = TfliteExporter().activations(folder, written.layers, inputs)
    want = outputs_in_torch(net, to_model_input(unseen[:20], SPEC))
    assert list(seen) == list(want)
    fused = {}
    for module, values in want.items():
        # relu6(x + 3) is what hard-sigmoid divides by six
        forms = {"none": values, "relu": values.clip(0), "hard": (values + 3).clip(0, 6)}
        error = {name: np.abs(form - seen[module]).max() for name, form in forms.items()}
        fused[module] = min(error, key=error.get)
        assert error[fused[module]] < 1e-4, module
    assert fused["features.0.0"] == "none"  # hard-swish is an operation of its own
    assert fused["features.1.block.0.0"] == fused["features.1.block.1.fc1"] == "relu"
    assert fused["features.1.block.1.fc2"] == "hard"
    assert fused["features.3.block.3.0"] == fused["classifier.3"] == "none"
    floors = {"fp16": 50, "dynamic": 20, "int8": 15, "w8a16": 25}
    for precision, floor in floors.items():
        folder, quantized = quantize("float", Scheme(precision))
        got = TfliteExporter().activations(folder, quantized.layers, inputs)
        assert list(got) == list(seen)
        for module, values in seen.items():
            noise = got[module] - values
            assert 10 * np.log10((values**2).sum() / (noise**2).sum()) > floor, module
    logits = answers(folder, quantized, unseen[:20])
    np.testing.assert_allclose(got["classifier.3"], logits, rtol=1e-6)


@converting
def test_a_fused_layer_that_is_not_kept_is_left_out(files, unseen):
    folder, written = files["float"]
    layers = [Layer("gone", "no such tensor", "conv"), written.layers[0]]
    inputs = to_model_input(unseen[:2], written.input)
    assert list(TfliteExporter().activations(folder, layers, inputs)) == ["features.0.0"]


@converting
@pytest.mark.parametrize("precision", ["int8", "w8a16", "dynamic", "fp16"])
def test_layers_asked_to_stay_float_do_and_no_other(precision, files, quantize):
    chosen = ("features.0.0", "features.1.block.1.fc1", "classifier.3")
    folder, written = quantize("float", Scheme(precision, float_layers=chosen))
    model, source = loaded(folder), loaded(files["float"][0])
    types = tflite_file.layer_types(model)
    for layer in written.layers:
        want = (
            ("FLOAT32", "FLOAT32") if layer.module in chosen else tflite_quantize.TYPES[precision]
        )
        assert types[layer.node] == want
    weights, before = (dict(tflite_file.layer_weights(m)) for m in (model, source))
    assert sorted(weights) == sorted(chosen)
    for name in chosen:
        np.testing.assert_array_equal(weights[name], before[name])


@converting
@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_patterns_mean_themselves(name, files, quantize):
    assert [layer.module for layer in files["named"][1].layers] == [f"0.{n}" for n in NAMES]
    folder, _ = quantize("named", Scheme("int8", float_layers=(f"0.{name}",)))
    types = tflite_file.layer_types(loaded(folder))
    assert [n for n in NAMES if types[f"0.{n}"][0] == "FLOAT32"] == [name]


@converting
@pytest.mark.parametrize(("precision", "dtype"), [("int8", "int8"), ("w8a16", "int16")])
@pytest.mark.parametrize("name", ["float", "pixels"])
def test_integers_in_and_out_give_the_same_answers(name, precision, dtype, quantize, unseen):
    folder, written = quantize(name, Scheme(precision, integer_io=True))
    if name == "pixels":
        assert (written.input.dtype, written.input.quantized) == ("uint8", None)
    else:
        assert written.input.dtype == dtype
        # digits are black at 0 and reach 255: the whole range of the contract, in all integers
        x = to_model_input(unseen, written.input)
        assert x.min() == np.iinfo(dtype).min or dtype == "int16"
    assert written.output.dtype == dtype
    assert TfliteExporter().open(folder).dtype == written.input.dtype
    with_floats = answers(*quantize(name, Scheme(precision)), unseen)
    got = answers(folder, written, unseen)
    step = written.output.quantized.scale
    # a pixel half way between two integers is rounded the other way by the runtime
    assert np.abs(got - with_floats).max() <= 3 * step
    assert (np.abs(got - with_floats) < 1e-4 * step).mean() > 0.9
    assert (got.argmax(1) == with_floats.argmax(1)).mean() >= 0.99


@converting
def test_int8_weights_have_a_scale_for_every_channel(quantize, files):
    folder, written = quantize("float", Scheme("int8"))
    model, source = loaded(folder), dict(tflite_file.layer_weights(loaded(files["float"][0])))
    steps = {step.node: step for step in tflite_file.operators(model)}
    for layer in written.layers:
        weights = steps[layer.node].inputs[1]
        largest = np.abs(source[layer.node]).max(axis=1)
        np.testing.assert_allclose(weights.quantization.scale, largest / 127, rtol=1e-5)


@converting
def test_a_dynamic_file_is_refused_by_runtimes_that_would_get_it_wrong(quantize):
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    codes = loaded(quantize("float", Scheme("dynamic"))[0]).operatorCodes
    versions = [c.version for c in codes if c.builtinCode == BuiltinOperator.FULLY_CONNECTED]
    assert versions == [12]


SNIPPETS = [
    ("float", None),
    ("float", Scheme("int8", integer_io=True)),
    ("pixels", Scheme("w8a16")),
]


@converting
@pytest.mark.parametrize(("name", "scheme"), SNIPPETS)
def test_the_snippet_proves_the_file_with_nothing_but_the_runtime(
    name, scheme, files, quantize, unseen, tmp_path
):
    folder, written = quantize(name, scheme) if scheme else files[name]
    (tmp_path / "model.tflite").write_bytes((folder / "model.tflite").read_bytes())
    logits = answers(folder, written, unseen[:16])
    classes = [f"digit $x {{}} '{i}'" for i in range(CLASSES)]
    script = TfliteExporter().snippet(written, classes)
    ast.parse(script, feature_version=(3, 8))
    (tmp_path / "example.py").write_text(script)

    def run(expected, *arguments):
        np.savez(tmp_path / "golden.npz", images=unseen[:16], expected=expected)
        return subprocess.run(
            [sys.executable, "-I", "-X", "importtime", tmp_path / "example.py", *arguments],
            capture_output=True, text=True, cwd="/",
        )  # fmt: skip

    right = run(logits)
    assert right.returncode == 0, right.stderr[-2000:]
    assert "largest difference: 0 of the largest logit" in right.stdout
    assert f"golden image 3: {classes[logits[3].argmax()]}\n" in right.stdout
    imported = {line.split("|")[-1].strip().split(".")[0] for line in right.stderr.splitlines()}
    assert {"numpy", "ai_edge_litert"} <= imported
    assert not {"edgessl", "torch", "tensorflow"} & imported
    altered = logits.copy()
    altered[5, 2] += 0.15 * np.abs(logits).max()
    wrong = run(altered)
    assert wrong.returncode == 1
    assert "WRONG" in wrong.stdout
    assert run(np.full_like(logits, np.nan)).returncode == 1
    np.save(tmp_path / "image.npy", unseen[7])
    one = run(logits, tmp_path / "image.npy")
    assert one.stdout.strip().endswith(classes[logits[7].argmax()])
    np.save(tmp_path / "image.npy", unseen[7][1:])
    small = run(logits, tmp_path / "image.npy")
    assert small.returncode == 1
    assert "want uint8 (32, 32, 3), got uint8 (31, 32, 3)" in small.stderr


@converting
def test_the_contract_travels_in_the_file_and_changes_nothing_else(files, quantize, tmp_path):
    exporter = TfliteExporter()
    for folder, written in (files["float"], quantize("pixels", Scheme("int8"))):
        path = tmp_path / "model.tflite"
        path.write_bytes((folder / "model.tflite").read_bytes())
        assert exporter.described(tmp_path) is None
        exporter.describe(tmp_path, '{"classes": ["Käfer", "蝶"]}')
        assert exporter.described(tmp_path) == '{"classes": ["Käfer", "蝶"]}'
        first = path.read_bytes()
        exporter.describe(tmp_path, "another text, and a longer one " * 100)
        exporter.describe(tmp_path, '{"classes": ["Käfer", "蝶"]}')
        assert path.read_bytes() == first
        before, after = loaded(folder), loaded(tmp_path)
        steps = [list(tflite_file.operators(model)) for model in (before, after)]
        assert [s.kind for s in steps[0]] == [s.kind for s in steps[1]]
        for old, new in zip(*(m.subgraphs[0].tensors for m in (before, after)), strict=True):
            assert (old.name, old.type, list(old.shape)) == (new.name, new.type, list(new.shape))
            bytes_of = [m.buffers[t.buffer].data for m, t in ((before, old), (after, new))]
            np.testing.assert_array_equal(*bytes_of)
        x = to_model_input(np.zeros((1, SIDE, SIDE, 3), np.uint8), written.input)
        np.testing.assert_array_equal(
            run_file(exporter, folder, x), run_file(exporter, tmp_path, x)
        )


@converting
def test_the_contract_of_the_float_file_does_not_pass_for_that_of_a_quantised_one(files, tmp_path):
    source, out = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    out.mkdir()
    (source / "model.tflite").write_bytes((files["float"][0] / "model.tflite").read_bytes())
    TfliteExporter().describe(source, "float")
    none = np.zeros((0, SIDE, SIDE, 3), np.float32)
    TfliteExporter().quantize(source, files["float"][1], out, Scheme("fp16"), none)
    assert TfliteExporter().described(out) is None


@converting
def test_weights_lie_at_multiples_of_sixteen_bytes_and_pass_the_check_of_strangers(files, quantize):
    from ai_edge_litert.schema_py_generated import Model

    from edgessl.exporters.untrusted import check_files

    folders = [files[name][0] for name in files]
    folders += [quantize("float", Scheme(precision))[0] for precision, *_ in FLOORS]
    for folder in folders:
        content = (folder / "model.tflite").read_bytes()
        model, places = Model.GetRootAs(content, 0), []
        for place in range(model.BuffersLength()):
            buffer = model.Buffers(place)
            assert buffer.Offset() == 0, "inline, so that old runtimes find it"
            if buffer.DataLength():
                places.append(buffer._tab.Vector(buffer._tab.Offset(4)) % 16)
        assert set(places) == {0}
        check_files("tflite", folder, ["model.tflite"])


@converting
def test_two_fresh_processes_write_the_same_bytes(convert, quantize):
    first, second = convert("0", "all"), convert("1")
    for name in ("float", "int8"):
        contents = [(base / name / "model.tflite").read_bytes() for base in (first, second)]
        assert contents[0] == contents[1], name


@converting
def test_files_tell_nothing_of_the_machine_or_of_the_users_classes(files, quantize):
    folders = [files[name][0] for name in files]
    folders += [quantize("float", Scheme(precision))[0] for precision, *_ in FLOORS]
    private = [
        USER, "site-packages", sys.prefix, str(Path(__file__).parents[1]), "/tmp", "Traceback",
        ".py", "torch", "edgessl.", "Embedded", "MobileNetV3", "MLIR",
    ]  # fmt: skip
    for folder in folders:
        content = (folder / "model.tflite").read_bytes()
        assert [text for text in private if text.encode() in content] == []
        names = [t.name.decode() for t in loaded(folder).subgraphs[0].tensors]
        assert len(names) == len(set(names))
        (signature,) = loaded(folder).signatureDefs
        assert (signature.inputs[0].name, signature.outputs[0].name) == (b"input", b"logits")


@converting
def test_quantising_says_nothing(quantize, capfd):
    quantize("float", Scheme("int8", "percentile"))
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("INFO: Created TensorFlow")]
    assert (out, lines) == ("", [])


@converting
def test_what_cannot_be_is_refused_with_a_reason(files, tmp_path, calibration):
    exporter, (folder, written) = TfliteExporter(), files["float"]
    x = to_model_input(calibration[:4], written.input)
    broken = x.copy()
    broken[2, 3, 4, 0] = np.inf
    cases = [
        (Scheme("dynamic", integer_io=True), x, errors.ConversionFailed, "float numbers"),
        (Scheme("int8", float_layers=("features.99",)), x, errors.ConversionFailed, "features.99"),
        (Scheme("int8"), x[:0], errors.DataInvalid, "got 0 of float32"),
        (Scheme("int8"), x[:, 1:], errors.DataInvalid, r"\(31, 32, 3\)"),
        (Scheme("int8"), x.astype(np.float64), errors.DataInvalid, "float64"),
        (Scheme("int8"), broken, errors.ConversionFailed, "input is not finite"),
    ]
    for scheme, inputs, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            exporter.quantize(folder, written, tmp_path, scheme, inputs)
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@converting
def test_a_quantiser_that_does_something_else_is_told(files, tmp_path, monkeypatch):
    from ai_edge_quantizer import quantizer

    folder, written = files["float"]
    none = np.zeros((0, SIDE, SIDE, 3), np.float32)
    version = importlib.metadata.version("ai-edge-quantizer")

    def failing(error):
        def quantize(self, *arguments, **options):
            raise error

        return quantize

    other = (TypeError("unexpected argument"), f"quantizer {version} has another interface")
    broken = (ValueError("no such scale"), f"quantizer {version} failed: no such scale")
    for error, message in (other, broken):
        with monkeypatch.context() as patch:
            patch.setattr(quantizer.Quantizer, "quantize", failing(error))
            with pytest.raises(errors.ConversionFailed, match=message):
                TfliteExporter().quantize(folder, written, tmp_path, Scheme("fp16"), none)
    monkeypatch.setitem(tflite_quantize.TYPES, "fp16", ("INT4", "FLOAT32"))
    with pytest.raises(errors.ConversionFailed, match=r"features.0.0 became \('FLOAT16'"):
        TfliteExporter().quantize(folder, written, tmp_path, Scheme("fp16"), none)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form(dynamic_batch=True), "batch of one"),
        (Form(opset=18), "no opset"),
        (Form(raw=(64, 64)), "normalises inside"),
    ],
)
def test_forms_that_litert_does_not_have_are_refused(form, message, tmp_path):
    with pytest.raises(errors.ConversionFailed, match=message) as caught:
        TfliteExporter().write(None, SPEC, tmp_path, form)
    assert caught.value.hint


def test_the_table_tells_what_the_class_offers():
    facts = EXPORTERS["tflite"].facts
    offered = {
        precision for precision in ("dynamic", "fp16", "int8", "w8a16") if facts[precision] != "-"
    }
    assert offered == set(TfliteExporter.quantizes)


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"\0\0\0\0TFL3", b"\x10\0\0\0TFL3" + b"\xff" * 64]
)
def test_something_else_is_no_model(content, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="the extra tflite is not installed")
    (tmp_path / "model.tflite").write_bytes(content)
    for call in (TfliteExporter().described, TfliteExporter().open):
        with pytest.raises(errors.FileInvalid):
            call(tmp_path)

"""OpenVINO in every precision: the same net, layer by layer, at the ends, in the metadata."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.core.images import to_logits, to_model_input
from edgessl.exporters.base import Form, Scheme, run_file
from edgessl.exporters.to_openvino import OpenvinoExporter

pytestmark = [pytest.mark.slow, pytest.mark.export]
for package in ("torch", "torchvision", "openvino", "nncf", "sklearn"):
    pytest.importorskip(package, reason="needs the extras train and openvino")

SIDE, CLASSES, IMAGES, CALIBRATION = 48, 10, 64, 16
SPEC = InputSpec.square(SIDE)
EXPORTER = OpenvinoExporter()
KEPT = ("features.0.0", "features.4.block.2.fc1", "classifier.3")
MADE = {
    "float": (Form(), None),
    "pixels": (Form(embed=True, dynamic_batch=True), None),
    "fp16": (Form(), Scheme("fp16")),
    "dynamic": (Form(), Scheme("dynamic")),
    "int8": (Form(), Scheme("int8")),
    "int8 average": (Form(), Scheme("int8", calibration="moving_average")),
    "int8 percentile": (Form(), Scheme("int8", calibration="percentile")),
    "int8 kept": (Form(), Scheme("int8", float_layers=KEPT)),
    "int8 integer": (Form(), Scheme("int8", integer_io=True)),
    "int8 pixels": (Form(embed=True, dynamic_batch=True), Scheme("int8", integer_io=True)),
}

# run from a folder whose name stands for a user; what asks for the network is noted, and so are
# files that are opened for writing outside the given folders
SCRIPT = """
import sys
asked, written = [], []
def note(event, args):
    if event.startswith("socket."):
        asked.append((event, str(args)))
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        written.append(str(args[0]))
sys.addaudithook(note)
import io, os
from contextlib import redirect_stdout
from pathlib import Path
import numpy as np, torch, torchvision
from safetensors.torch import load_file
from edgessl.core.artifact import InputSpec
from edgessl.exporters.base import Form, Scheme
from edgessl.exporters.to_openvino import OpenvinoExporter
home, out = Path.cwd(), Path(sys.argv[1])
net = torchvision.models.mobilenet_v3_small(num_classes=10)
net.load_state_dict(load_file(home / "net.safetensors"))
net.to(memory_format=torch.channels_last).train()  # exporters must not depend on either
exporter = OpenvinoExporter()
if sys.argv[2] == "twice":  # names must not depend on what was converted before
    exporter.write(net, InputSpec.square(48), out, Form())
for name in ("float", "fp16", "dynamic", "int8"):
    (out / name).mkdir()
written_float = exporter.write(net, InputSpec.square(48), out / "float", Form())
assert net.training, "the caller's net was changed"
calibration = np.load(home / "calibration.npy")
for name in ("fp16", "dynamic", "int8"):
    made = exporter.quantize(
        out / "float", written_float, out / name, Scheme(name), calibration
    )
    exporter.describe(out / name, '{"labels":["a"]}')
assert "nncf" in sys.modules and sys.modules["openvino_telemetry"] is None
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__.endswith("telemetry_stub")
import nncf.telemetry
assert type(nncf.telemetry.telemetry).__name__ == "MagicMock"
assert not asked, asked
outside = [name for name in written if not name.startswith((str(out), "/dev/", "/tmp/"))]
assert not outside, outside
assert sorted(os.listdir(home)) == ["calibration.npy", "export.py", "net.safetensors"]
"""
USER = "zaphod-beeblebrox"


@pytest.fixture(scope="module")
def pixels():
    """Handwritten digits, enlarged: (N, H, W, 3) uint8."""
    from sklearn.datasets import load_digits

    grey = np.kron(load_digits().images[:IMAGES] * (255 / 16), np.ones((SIDE // 8, SIDE // 8)))
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=3)


@pytest.fixture(scope="module")
def net(pixels):
    """MobileNetV3-small that was fitted to the digits for a few steps.

    With random weights, every rounding grows from layer to layer until no logit is left.
    """
    import torch
    import torchvision
    from sklearn.datasets import load_digits

    x = torch.from_numpy(to_model_input(pixels, SPEC))
    y = torch.from_numpy(load_digits().target[:IMAGES])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.mobilenet_v3_small(num_classes=CLASSES, dropout=0.0)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # take the batch statistics as they are
                torch.nn.init.uniform_(layer.weight, -1.3, 1.3)  # negative scales, too
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(12):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net.train()(x), y).backward()
            optimizer.step()
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.reset_running_stats()
        with torch.no_grad():
            net.train()(x)
    return net.eval()


@pytest.fixture(scope="module")
def reference(net, pixels):
    import torch

    with torch.inference_mode():
        logits = net(torch.from_numpy(to_model_input(pixels, SPEC))).numpy()
    assert len(set(logits.argmax(axis=1))) == CLASSES
    return logits


@pytest.fixture(scope="module")
def made(net, pixels, tmp_path_factory):
    """Write a file on first use: folder and contract by name."""
    base, done = tmp_path_factory.mktemp("openvino"), {}

    def make(name):
        if name not in done:
            form, scheme = MADE[name]
            folder = base / name.replace(" ", "-")
            folder.mkdir()
            if scheme is None:
                done[name] = folder, EXPORTER.write(net, SPEC, folder, form)
            else:
                float_name = next(n for n, (f, s) in MADE.items() if f == form and s is None)
                source, written = make(float_name)
                before = {p.name: p.read_bytes() for p in source.iterdir()}
                calibration = to_model_input(pixels[:CALIBRATION], written.input)
                got = EXPORTER.quantize(source, written, folder, scheme, calibration)
                assert before == {p.name: p.read_bytes() for p in source.iterdir()}
                done[name] = folder, got
            assert sorted(done[name][1].files) == sorted(p.name for p in folder.iterdir())
        return done[name]

    return make


def answers(made, pixels):
    folder, written = made
    rows = run_file(EXPORTER, folder, to_model_input(pixels, written.input))
    assert str(rows.dtype) == written.output.dtype
    return to_logits(rows, written.output)


def snr_db(reference, got):
    return 10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum())


# measured on two processors, with room to spare: dB of the logits
FLOORS = {
    "float": 100, "pixels": 100, "fp16": 50, "dynamic": 25, "int8": 15, "int8 percentile": 15,
    "int8 kept": 15, "int8 integer": 15, "int8 pixels": 15,
}  # fmt: skip


@pytest.mark.parametrize("name", FLOORS)
def test_every_precision_and_form_answers_like_torch(name, made, pixels, reference):
    got = answers(made(name), pixels)
    assert snr_db(reference, got) > FLOORS[name]
    agreement = (got.argmax(axis=1) == reference.argmax(axis=1)).mean()
    assert agreement >= (1 if FLOORS[name] >= 50 else 0.95)


@pytest.mark.parametrize("name", MADE)
def test_layers_are_all_there_in_order_under_their_pytorch_names(name, made, net):
    import torch

    from edgessl.exporters.openvino_model import node_named, read

    folder, written = made(name)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    order = [n for n, layer in net.named_modules() if isinstance(layer, kinds)]
    # in this net the order of definition is the order of execution
    assert [layer.module for layer in written.layers] == order
    nodes = node_named(read(folder / "model.xml"))
    for layer in written.layers:
        assert layer.node == f"{layer.module}/{nodes[layer.node].get_type_name()}"
    names = [n for n in nodes if "/" in n]
    assert sorted(names) == sorted(layer.node for layer in written.layers)


def test_true_ranges_keep_more_of_the_logits_than_averaged_ones(made, pixels, reference):
    average, true = (snr_db(reference, answers(made(n), pixels)) for n in ("int8 average", "int8"))
    assert average < true - 3


def test_smaller_files_are_smaller(made):
    size = {n: (made(n)[0] / "model.bin").stat().st_size for n in ("float", *FLOORS)}
    assert 0.49 < size["fp16"] / size["float"] < 0.52
    for name in ("dynamic", "int8", "int8 pixels"):
        assert 0.25 < size[name] / size["float"] < 0.28  # squeeze-and-excitation included


def test_layers_that_shall_stay_in_float_do(made):
    from edgessl.exporters.openvino_model import node_named, read, stored_type

    folder, written = made("int8 kept")
    model = read(folder / "model.xml")
    nodes = node_named(model)
    types = {x.module: stored_type(nodes[x.node].input_value(1)) for x in written.layers}
    assert {name for name, kind in types.items() if kind == "f32"} == set(KEPT)
    sources = {n: nodes[f"{n}/Convolution"].input_value(0).get_node() for n in KEPT[:2]}
    assert [node.get_type_name() for node in sources.values()] == ["Parameter", "ReduceMean"]
    count = {
        name: collections.Counter(
            node.get_type_name() for node in read(made(name)[0] / "model.xml").get_ops()
        )["FakeQuantize"]
        for name in ("float", "int8", "int8 kept")
    }
    assert count["float"] == 0
    # those at the image and before the last layer are gone
    assert count["int8"] - count["int8 kept"] == 2
    with pytest.raises(ConversionFailed, match="no such layer to keep in float: nobody"):
        EXPORTER.quantize(
            made("float")[0], made("float")[1], folder, Scheme("int8", float_layers=("nobody",)),
            np.zeros((1, 3, SIDE, SIDE), np.float32),
        )  # fmt: skip


def test_integers_in_and_out_are_the_float_file_rounded(made, pixels):
    (_, plain), (folder, written) = made("int8"), made("int8 integer")
    assert (written.input.dtype, written.output.dtype) == ("uint8", "uint8")
    assert EXPORTER.open(folder).dtype == "uint8"
    given, got = written.input.quantized, written.output.quantized
    # the calibration images span black to white in all channels; activations are symmetric
    low, high = ((np.array([0, 255])[:, None] / 255 - SPEC.mean) / SPEC.std).T.reshape(-1, 2).T
    reach = max(high.max(), -low.min())
    assert given.scale == pytest.approx(2 * reach / 255, rel=0.02)
    assert given.zero_point == pytest.approx(128, abs=1)
    real = answers((made("int8")[0], plain), pixels)
    steps = answers((folder, written), pixels) / got.scale
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
    inside = (real > -got.zero_point * got.scale) & (real < (255 - got.zero_point) * got.scale)
    # half a step of the output, and now and then a step of an activation on the way
    off = np.abs(steps * got.scale - real)[inside]
    assert np.median(off) <= got.scale / 2
    assert off.max() < 0.05 * np.abs(real).max()


def test_what_cannot_be_had_is_refused(made, net, tmp_path):
    folder, written = made("float")
    images = np.zeros((2, 3, SIDE, SIDE), np.float32)
    for scheme, said in (
        (Scheme("fp16", integer_io=True), "compute in float at both ends"),
        (Scheme("fp16", float_layers=("classifier.3",)), "all weights or none"),
        (Scheme("w8a16"), "not written in w8a16"),
        (Scheme("int8", integer_io=True, float_layers=KEPT), "begins with Convolution in float"),
    ):
        with pytest.raises(ConversionFailed, match=said) as failure:
            EXPORTER.quantize(folder, written, tmp_path, scheme, images)
        assert failure.value.hint
    for form, said in ((Form(opset=17), "no opset"), (Form(raw=(60, 80)), "normalises inside")):
        with pytest.raises(ConversionFailed, match=said):
            EXPORTER.write(net, SPEC, tmp_path, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pixels", "int8 pixels"])
def test_a_batch_of_three_is_three_single_images(name, made, pixels):
    folder, written = made(name)
    session = EXPORTER.open(folder)
    assert session.shape == (0, SIDE, SIDE, 3)
    x = to_model_input(pixels[:3], written.input)
    single = run_file(EXPORTER, folder, x)
    assert len(np.unique(single, axis=0)) == 3
    np.testing.assert_allclose(np.array(session.infer(x)), single, rtol=0, atol=1e-4)


def test_layer_outputs_of_the_float_file_are_those_of_torch(made, net, pixels):
    import torch

    folder, written = made("float")
    got = EXPORTER.activations(folder, written.layers, to_model_input(pixels[:3], SPEC))
    modules = dict(net.named_modules())
    seen, handles = {}, []
    for layer in written.layers:
        name = layer.module
        # BatchNorm stands behind its convolution in the same Sequential and is folded into it
        parent, _, place = name.rpartition(".")
        after = modules.get(f"{parent}.{int(place) + 1}") if place.isdigit() else None
        module = after if isinstance(after, torch.nn.BatchNorm2d) else modules[name]
        handles.append(
            module.register_forward_hook(
                lambda m, x, y, name=name: seen.update({name: y.numpy().copy()})
            )
        )
    with torch.inference_mode():
        net(torch.from_numpy(to_model_input(pixels[:3], SPEC)))
    for handle in handles:
        handle.remove()
    assert list(got) == [layer.module for layer in written.layers]
    for name, values in got.items():
        assert snr_db(seen[name], values) > 90, name


@pytest.mark.parametrize("name", ["fp16", "dynamic", "int8", "int8 integer"])
def test_layer_outputs_of_quantised_files_can_be_compared(name, made, pixels):
    (float_folder, written), (folder, quantized) = made("float"), made(name)
    exact = EXPORTER.activations(float_folder, written.layers, to_model_input(pixels[:8], SPEC))
    x = to_model_input(pixels[:8], quantized.input)
    got = EXPORTER.activations(folder, quantized.layers, x)
    assert list(got) == list(exact)
    assert {values.dtype for values in got.values()} == {np.dtype(np.float32)}
    snr = [snr_db(exact[module], got[module]) for module in got]
    assert min(snr) > (50 if name == "fp16" else 8)
    assert snr[0] > 25


def test_the_contract_is_kept_in_the_file(made, pixels, tmp_path):
    for name in ("fp16", "int8"):
        folder, written = made(name)
        assert EXPORTER.described(folder) is None
        copy = tmp_path / name
        copy.mkdir()
        for file in written.files:
            (copy / file).write_bytes((folder / file).read_bytes())
        contract = json.dumps({"labels": ['<a href="x">&amp;', "größe\n\t ", "日本"], "n": 1.0})
        for text in ("{}", contract):  # the second replaces the first
            EXPORTER.describe(copy, text)
            assert EXPORTER.described(copy) == text
        assert (copy / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
        assert sorted(p.name for p in copy.iterdir()) == sorted(written.files)
        got = [answers((place, written), pixels[:4]) for place in (copy, folder)]
        np.testing.assert_array_equal(got[0], got[1])


@pytest.mark.parametrize("precision", [None, "fp16", "dynamic", "int8"])
def test_whole_pictures_are_resized_to_the_pixels_that_the_net_was_trained_on(precision, tmp_path):
    import torch

    from edgessl.data.decode import fit
    from edgessl.exporters.openvino_model import before, node_named, read, stored_type

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 8, stride=4),
            torch.nn.Flatten(), torch.nn.Linear(360, 5),
        ).eval()  # fmt: skip
    spec = InputSpec(height=40, width=44, resize=48)
    floats, other = tmp_path / "floats", tmp_path / "other"
    floats.mkdir()
    other.mkdir()
    written = EXPORTER.write(net, spec, floats, Form(embed=True, raw=(150, 200)))
    assert (written.input.shape, written.input.dtype) == ((1, 150, 200, 3), "uint8")
    assert [layer.module for layer in written.layers] == ["0", "2", "4"]
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (8, 19, 25, 3)).repeat(8, 1).repeat(8, 2)[:, :150]
    pictures = (blocks + rng.integers(-20, 21, blocks.shape)).clip(0, 255).astype(np.uint8)
    folder = floats
    if precision:
        folder = other
        scheme = Scheme(precision)
        made = EXPORTER.quantize(floats, written, folder, scheme, pictures)
        assert made.input == written.input
    fitted = to_model_input(np.stack([fit(picture, 40, 44, 48) for picture in pictures]), spec)
    with torch.inference_mode():
        expected = net(torch.from_numpy(fitted)).numpy()
    floor = {None: 110, "fp16": 50, "dynamic": 30, "int8": 25}[precision]
    assert snr_db(expected, answers((folder, written), pictures)) > floor
    # whatever the net is stored in, what comes before it computes and is stored in float
    model = read(folder / "model.xml")
    nodes, first = node_named(model), written.layers[0].node
    names = before(model, first)
    kinds = collections.Counter(nodes[name].get_type_name() for name in names)
    assert kinds["MatMul"] == 8  # two sides, two blocks of pixels, two digits
    assert kinds["FakeQuantize"] == (precision == "int8")
    products = [nodes[name] for name in names if nodes[name].get_type_name() == "MatMul"]
    stored = {stored_type(node.input_value(side)) for node in products for side in range(2)}
    assert stored <= {"f16" if precision == "fp16" else "f32", "nothing"}


@pytest.mark.parametrize("name", ["float", "int8 integer", "pixels"])
def test_the_snippet_repeats_the_golden_logits_and_sees_altered_ones(
    name, made, pixels, reference, tmp_path
):
    folder, written = made(name)
    for file in written.files:
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    classes = ['a "quoted" $name', "größe", *(f"digit {i}" for i in range(2, 10))]
    script = tmp_path / "example.py"
    script.write_text(EXPORTER.snippet(written, classes), encoding="utf-8")
    compile(script.read_text(encoding="utf-8"), "example.py", "exec")
    images, expected = pixels[:12], answers((folder, written), pixels[:12])

    def run(golden, *arguments):
        np.savez(
            tmp_path / "golden.npz", images=images, reference=reference[:12],
            expected=golden, seal="0" * 64,
        )  # fmt: skip
        return subprocess.run(
            [sys.executable, "-I", script, *arguments], capture_output=True, encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8"}, cwd="/",
        )  # fmt: skip

    done = run(expected)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    told = [line.rpartition(" (logit")[0] for line in done.stdout.splitlines()[:-1]]
    assert told == [classes[i] for i in expected.argmax(axis=1)]
    if name == "pixels":
        return
    altered = expected.copy()
    altered[7, 3] += 0.06 * np.abs(expected).max()
    done = run(altered)
    assert (done.returncode, "DIFFERENT" in done.stdout) == (1, True)
    altered[7, 3] = np.nan
    assert run(altered).returncode == 1
    np.save(tmp_path / "one.npy", pixels[5])
    done = run(expected, tmp_path / "one.npy")
    assert done.returncode == 0
    assert done.stdout.startswith(classes[expected[5].argmax()])
    np.save(tmp_path / "one.npy", pixels[5].astype(np.float32))
    done = run(expected, tmp_path / "one.npy")
    assert (done.returncode, done.stderr) == (1, "")
    assert "got float32" in done.stdout


@pytest.fixture(scope="module")
def fresh(net, pixels, tmp_path_factory):
    """Files of two fresh processes with different hash seeds, the second after another export."""
    from safetensors.torch import save_file

    base = tmp_path_factory.mktemp("fresh")
    home = base / USER
    home.mkdir()
    save_file(net.state_dict(), home / "net.safetensors")
    np.save(home / "calibration.npy", to_model_input(pixels[:CALIBRATION], SPEC))
    (home / "export.py").write_text(SCRIPT)
    outs = []
    for seed, how in (("0", "once"), ("1", "twice")):
        out = base / how
        out.mkdir()
        private = {"HOME": str(home), "USER": USER, "LOGNAME": USER, "PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, home / "export.py", out, how],
            env=os.environ | private, cwd=home, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stdout + result.stderr == ""  # no bars, no logs, no warnings
        outs.append(out)
    return outs


def test_two_fresh_processes_write_the_same_bytes(fresh):
    for name in ("float", "fp16", "dynamic", "int8"):
        for file in ("model.xml", "model.bin"):
            first, second = (out / name / file for out in fresh)
            assert first.read_bytes() == second.read_bytes(), (name, file)


def test_files_tell_nothing_of_the_machine(fresh):
    private = (
        USER, "site-packages", sys.prefix, str(Path(__file__).parents[1]), "Traceback", ".py",
        "conversion_parameters", "nncf", "/tmp",
    )  # fmt: skip
    for path in fresh[0].rglob("*.xml"):
        content = path.read_text(encoding="utf-8")
        assert [text for text in private if text in content] == [], path

"""Files for TensorRT keep the rules of its parsers; each rule is broken in turn."""

import numpy as np
import pytest

from edgessl.core import errors
from edgessl.core.artifact import InputSpec
from edgessl.core.images import to_model_input
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import Form, Scheme, run_file

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
torch = pytest.importorskip("torch", reason="needs the extra train")

pytestmark = [pytest.mark.slow, pytest.mark.export]

SIDE = 24
SPEC = InputSpec.square(SIDE)
EXPORTER = EXPORTERS.load("tensorrt")()
INT8 = Scheme("int8")


class Small(torch.nn.Module):
    """One of each: BatchNorm, hard swish, depthwise, squeeze-and-excitation, residual, linear."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = torch.nn.Conv2d(8, 8, 1)
        self.classifier = torch.nn.Linear(8, 5)

    def forward(self, x):
        x = torch.nn.functional.hardswish(self.norm(self.stem(x)))
        y = torch.nn.functional.relu6(self.depthwise(x))
        y = y * torch.nn.functional.hardsigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.classifier((x + y).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference(net, pixels):
    with torch.inference_mode():
        return net(torch.from_numpy(to_model_input(pixels, SPEC))).numpy()


@pytest.fixture(scope="module")
def folders(net, pixels, tmp_path_factory):
    """The three files: none, fp16, int8."""
    base = tmp_path_factory.mktemp("tensorrt")
    made = {}
    for name in ("none", "fp16", "int8"):
        made[name] = base / name
        made[name].mkdir()
    written = EXPORTER.write(net, SPEC, made["none"], Form())
    images = to_model_input(pixels, written.input)
    for name in ("fp16", "int8"):
        EXPORTER.quantize(made["none"], written, made[name], Scheme(name), images)
    return made


@pytest.fixture
def int8(folders):
    return onnx.load(folders["int8"] / "model.onnx")


@pytest.mark.parametrize(("name", "largest"), [("none", 1e-5), ("fp16", 5e-3), ("int8", 0.05)])
def test_answers_are_those_of_torch(name, largest, folders, pixels, reference):
    logits = run_file(EXPORTER, folders[name], to_model_input(pixels, SPEC))
    assert np.abs(logits - reference).max() < largest * np.abs(reference).max()


def test_every_file_is_of_opset_17_and_nothing_else(folders):
    for folder in folders.values():
        model = onnx.load(folder / "model.onnx")
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
        assert model.ir_version <= 8  # that of onnx 1.12, which TensorRT 8.5 was built with
        assert "ReduceMean" not in {node.op_type for node in model.graph.node}


def test_int8_pairs_stand_in_front_of_layers_only(int8):
    """What NVIDIA asks of explicit quantisation, counted on the graph."""
    makers = {name: node for node in int8.graph.node for name in node.output}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in int8.graph.initializer}
    layers = [node for node in int8.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for layer in layers:
        activation, weight = (makers[name] for name in layer.input[:2])
        assert {activation.op_type, weight.op_type} == {"DequantizeLinear"}
        assert constants[activation.input[1]].size == 1
        rows = constants[weight.input[0]]
        assert rows.dtype == np.int8
        assert constants[weight.input[1]].shape == (len(rows),)
        assert constants[layer.input[2]].dtype == np.float32
        readers = [node.op_type for node in int8.graph.node if layer.output[0] in node.input]
        assert "QuantizeLinear" not in readers
    # a pair for every reader: no rounded or widened tensor is read twice
    pairs = [n.output[0] for n in int8.graph.node if n.op_type.endswith("uantizeLinear")]
    readers = [name for node in int8.graph.node for name in node.input]
    assert {name: readers.count(name) for name in pairs if readers.count(name) != 1} == {}


def test_float16_is_in_the_file(folders):
    model = onnx.load(folders["fp16"] / "model.onnx")
    kinds = {t.data_type for t in model.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds


def test_pixels_are_widened_first(net, pixels, reference, tmp_path):
    written = EXPORTER.write(net, SPEC, tmp_path, Form(embed=True))
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert [node.op_type for node in nodes][:2] == ["Cast", "Transpose"]
    smaller = tmp_path / "int8"
    smaller.mkdir()
    EXPORTER.quantize(tmp_path, written, smaller, INT8, pixels)
    for folder, largest in ((tmp_path, 1e-5), (smaller, 0.05)):
        logits = run_file(EXPORTER, folder, pixels)
        assert np.abs(logits - reference).max() < largest * np.abs(reference).max()


def test_what_is_not_offered_is_refused(net, folders, pixels, tmp_path):
    with pytest.raises(errors.ConversionFailed, match="static batch"):
        EXPORTER.write(net, SPEC, tmp_path, Form(dynamic_batch=True))
    with pytest.raises(errors.ConversionFailed, match=r"opset 21; its parsers read 13 to 20"):
        EXPORTER.write(net, SPEC, tmp_path, Form(opset=21))
    written = EXPORTER.write(net, SPEC, tmp_path, Form())
    images = to_model_input(pixels, written.input)
    for scheme, reason in (
        (Scheme("w8a16"), "no w8a16"),
        (Scheme("dynamic"), "no dynamic"),
        (Scheme("int8", integer_io=True), "take and give float32"),
    ):
        with pytest.raises(errors.ConversionFailed, match=reason):
            EXPORTER.quantize(folders["none"], written, tmp_path, scheme, images)


def replace(model, name, values):
    """Put other values in the place of a constant."""
    place = next(t for t in model.graph.initializer if t.name == name)
    place.CopyFrom(onnx.numpy_helper.from_array(values, name))


def first(model, op_type):
    """Return the first node of a kind that rounds or widens an activation."""
    constants = {t.name for t in model.graph.initializer}
    fits = (n for n in model.graph.node if n.op_type == op_type and n.input[0] not in constants)
    return next(fits)


def bias_in_int32(model):
    layer = next(node for node in model.graph.node if node.op_type == "Conv")
    constants = {
        "b": np.zeros(8, np.int32), "b_scale": np.ones((), np.float32),
        "b_zero": np.zeros((), np.int32),
    }  # fmt: skip
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    widen = onnx.helper.make_node("DequantizeLinear", list(constants), ["b_real"], name="bias")
    model.graph.node.insert(0, widen)
    layer.input[2] = "b_real"


def axes_as_input(model):
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type = "ReduceMean"
    pool.input.append("axes")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))


def scale_that_is_computed(model):
    node = first(model, "QuantizeLinear")
    made = onnx.helper.make_node("Identity", [node.input[1]], ["made"], name="made")
    model.graph.node.insert(0, made)
    node.input[1] = "made"


def type_of(model, kind):
    model.graph.value_info[0].type.tensor_type.elem_type = kind


BREACHES = {
    "zero point that is not 0": lambda m: replace(
        m, first(m, "QuantizeLinear").input[2], np.array(3, np.int8)
    ),
    "input_zero_point is of type uint8": lambda m: replace(
        m, first(m, "QuantizeLinear").input[2], np.array(0, np.uint8)
    ),
    "is in int32, not in int8 (a bias": bias_in_int32,
    "names no zero point": lambda m: first(m, "QuantizeLinear").input.pop(),
    "is computed, it must be a constant": scale_that_is_computed,
    "a scale that is not positive": lambda m: replace(
        m, first(m, "QuantizeLinear").input[1], np.array(0, np.float32)
    ),
    "gives an activation 3 scales, one is allowed": lambda m: replace(
        m, first(m, "QuantizeLinear").input[1], np.ones(3, np.float32)
    ),
    "input has no static shape": lambda m: m.graph.input[0].type.tensor_type.shape.dim[
        0
    ].ClearField("dim_value"),
    "opset 12; its parsers read 13 to 20": lambda m: setattr(m.opset_import[0], "version", 12),
    "declares operators of com.microsoft": lambda m: m.opset_import.add(
        domain="com.microsoft", version=1
    ),
    "is an operator of com.microsoft": lambda m: setattr(
        m.graph.node[-1], "domain", "com.microsoft"
    ),
    "Einsum is no operator of its parsers": lambda m: setattr(
        m.graph.node[-1], "op_type", "Einsum"
    ),
    "ReduceMean with its axes as an input": axes_as_input,
    "is of type double": lambda m: type_of(m, onnx.TensorProto.DOUBLE),
    "input is of type uint8": lambda m: setattr(
        m.graph.input[0].type.tensor_type, "elem_type", onnx.TensorProto.UINT8
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", BREACHES)
def test_a_broken_rule_is_named(reason, int8):
    from edgessl.exporters import tensorrt_rules

    tensorrt_rules.check(int8)
    BREACHES[reason](int8)
    with pytest.raises(errors.ConversionFailed) as caught:
        tensorrt_rules.check(int8)
    assert reason in caught.value.message


def test_a_plain_int8_file_breaks_them(net, pixels, tmp_path):
    from edgessl.exporters import tensorrt_rules

    plain = EXPORTERS.load("onnx")()
    written = plain.write(net, SPEC, tmp_path, Form(opset=17))
    plain.quantize(tmp_path, written, tmp_path, INT8, to_model_input(pixels, SPEC))
    with pytest.raises(errors.ConversionFailed, match="uint8"):
        tensorrt_rules.check(onnx.load(tmp_path / "model.onnx"))

"""Files from outside: sound ones pass, every known attack is named.

The models are made by each format's own library and read by ours.
"""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from small_models import MAIN, WEIGHTS, onnx_model, openvino_model, packed, sound, tflite_model

from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.exporters import check_onnx
from edgessl.exporters.untrusted import MAX_BYTES, OPENED, check_files


def put(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def refused(folder, format, said, names=None):
    with pytest.raises(FileInvalid, match=said) as caught:
        check_files(format, folder, names or OPENED[format])
    assert caught.value.hint or "changed" in caught.value.message


formats = pytest.mark.parametrize("format", list(MAIN))


@formats
def test_a_sound_file_passes(tmp_path, format):
    check_files(format, put(tmp_path, sound(format)), OPENED[format])


def test_the_checks_run_where_no_runtime_is_installed(tmp_path):
    put(tmp_path, sound("openvino"))
    code = (
        "import sys; from pathlib import Path\n"
        "from edgessl.exporters.untrusted import check_files\n"
        "check_files('openvino', Path(sys.argv[1]), ['model.xml', 'model.bin'])\n"
        "native = {'onnx', 'google', 'flatbuffers', 'openvino', 'onnxruntime', 'ai_edge_litert',"
        " 'torch', 'numpy'}\n"
        "assert not native & set(sys.modules), native & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


# ---- the folder --------------------------------------------------------------------------------


def fifo(path):
    os.mkfifo(path)


def linked_out(path):
    outside = path.parent.parent / "secret"
    outside.write_bytes(WEIGHTS)
    path.symlink_to(outside)


def sparse(path):
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (fifo, "not a regular file"),
        (linked_out, "a link that leads out"),
        (lambda path: path.symlink_to("/dev/zero"), "a link that leads out"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
        (sparse, "are accepted"),
        (lambda path: None, "cannot be read"),
    ],
    ids=["fifo", "link out", "link to a device", "link to itself", "folder", "empty", "2 GiB",
         "missing"],
)  # fmt: skip
def test_what_is_no_plain_file_in_its_folder_is_refused(tmp_path, place, said):
    folder = tmp_path / "export"
    folder.mkdir()
    place(folder / "model.onnx")
    refused(folder, "onnx", said)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a\\b", "c:x", "a\0b", ""])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    put(tmp_path, sound("openvino"))
    refused(tmp_path, "openvino", "outside its folder", ["model.xml", "model.bin", name])


def test_a_file_that_was_not_sealed_is_not_opened(tmp_path):
    put(tmp_path, {"model.onnx": b"evil", "other.onnx": b"sealed"})
    refused(tmp_path, "onnx", "runtime opens model", ["other.onnx"])
    put(tmp_path, sound("onnx"))
    refused(tmp_path, "onnx", "runtime opens model", ["other.onnx", "model.onnx"])
    with pytest.raises(FileInvalid, match="format 'pickle'"):
        check_files("pickle", tmp_path, [])


def test_an_artifact_nested_without_end_is_refused(tmp_path):
    (tmp_path / "artifact.json").write_text('{"kind": ' + "[" * 100_000)
    with pytest.raises(FileInvalid, match="not readable JSON"):
        Artifact.load(tmp_path)


# ---- ONNX --------------------------------------------------------------------------------------


def external(model, helper):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="../../etc/passwd")


def huge(model, helper):
    model.graph.initializer[0].dims[:] = [1 << 40, 4]


def overflowing(model, helper):
    model.graph.initializer[0].dims[:] = [1 << 32, 1 << 32]


def negative(model, helper):
    model.graph.initializer[0].dims[:] = [-3, -4]


def promising(model, helper):
    model.graph.initializer[0].dims[:] = [3, 5]


def elsewhere(model, helper):
    model.graph.initializer[0].float_data.extend([1.0] * 12)


def large_input(model, helper):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 60


def foreign(model, helper):
    model.graph.node[0].domain = "evil"


def context(model, helper):
    node = helper.make_node("EPContext", ["input"], ["logits"], domain="com.microsoft")
    node.attribute.append(helper.make_attribute("ep_cache_context", "/home/user/x.so"))
    model.graph.node[0].CopyFrom(node)


def settings(model, helper):
    model.metadata_props.add(key="ort_config", value='{"session_options": {}}')


def functions(model, helper):
    model.functions.add(name="f", domain="").node.add(op_type="f")


def sparse_weights(model, helper):
    model.graph.sparse_initializer.add(dims=[1 << 40])


def within(depth):
    """Graphs inside the attributes of nodes, written by hand as protobuf's own writer recurses."""

    def field(number, data):
        size, length = b"", len(data)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"body") + field(6, graph + field(12, field(1, b"y")))
        graph = field(1, field(4, b"If") + field(5, attribute))
    return b"\x08\x09" + field(7, graph + field(12, field(1, b"y"))) + field(8, b"\x10\x12")


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (external, "'w' lies in another file"),
        (huge, "promises more than"),
        (overflowing, "promises more than"),
        (negative, "a side of -3"),
        (promising, "promises 60 bytes and holds 48"),
        (elsewhere, "in two places"),
        (large_input, "promises more than"),
        (foreign, "evil.Gemm is not one"),
        (context, "EPContext is not one"),
        (settings, "settings for the runtime"),
        (functions, "functions of its own"),
        (sparse_weights, "sparse tensors"),
    ],
)
def test_an_attack_by_onnx_is_named(tmp_path, attack, said):
    helper = pytest.importorskip("onnx", reason="needs the extra onnx").helper
    model = onnx_model()
    attack(model, helper)
    put(tmp_path, {"model.onnx": model.SerializeToString()})
    refused(tmp_path, "onnx", said)


def test_onnx_is_bounded_in_depth_and_work_and_read_in_one_way(tmp_path, monkeypatch):
    monkeypatch.setattr(check_onnx, "MAX_FIELDS", 10_000)
    cases = [
        (within(2000), "nested more than"),
        (b"\x08\x09" + b"\x28\x00" * 2, "is there twice"),
        (b"\x08\x09" + b"\xf8\x3f\x00" * 11_000, "more than 10000 fields"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x0a\x02\x08\x09", "is of wire type 2"),
        (b"\x3a\xff\xff\xff\xff\x0f", r"promises 4294967295 bytes"),
        (b"\x0b\x0c", "wire type 3"),
        (b"not a model at all", "no protobuf field|cut"),
        (b"\x08\x09", "no graph"),
    ]
    for data, said in cases:
        refused(put(tmp_path, {"model.onnx": data}), "onnx", said)
    check_files("onnx", put(tmp_path, {"model.onnx": within(3)}), ["model.onnx"])


# ---- OpenVINO ----------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><net '
WITHIN = '<layer id="9" name="x" type="If" version="opset8"><then_body><layers><layer id="0" />'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<net ", LAUGHS, "DOCTYPE"),
        ("<layers>", '<!ENTITY x SYSTEM "file:///etc/passwd"><layers>', "ENTITY"),
        ('<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>', "encoded|well-formed"),
        ("<layers>", "<?php evil ?><layers>", "processing instruction"),
        ('offset="0" size="48"', 'offset="4" size="48"', "ends at byte 52 of its weights"),
        ('offset="0" size="48"', 'offset="-4" size="48"', "lies at '-4'"),
        ('offset="0" size="48"', 'offset="0" size="44"', "promises 48 bytes and holds 44"),
        ('shape="3, 4"', 'shape="3, 4000000000"', "promises more than"),
        ('shape="3, 4" ', "", "no type or no shape"),
        ('element_type="f32" shape="3', 'element_type="string" shape="3', "of type 'string'"),
        ('shape="1,4"', 'shape="1,40000000000"', "promises more than"),
        ("<dim>4</dim>", "<dim>99999999999</dim>", "promises more than"),
        ('version="opset1">\n<data transpose', 'version="evil">\n<data transpose', "opset 'evil'"),
        ('transpose_a="false"', 'lib="../../x.so"', "holds a path"),
        ('transpose_a="false"', 'lib="/home/user/x.so"', "holds a path"),
        ("<rt_info>", '<rt_info><__weights_path value="/etc/passwd" />', "weights by a path"),
        ('id="1" name="w"', 'id="0" name="w"', "none or taken"),
        ("</layers>", WITHIN, "a <then_body>"),
        ('from-layer="1"', 'from-layer="7"', "not there or taken"),
        ('from-layer="0" from-port="0"', 'from-layer="2" from-port="2"', "a circle"),
        ('<edge from-layer="1" from-port="0" to-layer="2" to-port="1" />', "", "from nowhere"),
        ("<rt_info>", "<a>" * 40, "inside each other"),
        ('version="11"', 'version="1"', "of version 1"),
        ("</net>", "", "not well-formed"),
        ("<?xml", "\ufeff<?xml", "does not begin"),
        ('type="Parameter"', 'type="Const"', "."),
    ],
)  # fmt: skip
def test_an_attack_by_an_ir_is_named(tmp_path, old, new, said):
    text = openvino_model()
    assert old in text
    put(tmp_path, {"model.xml": text.replace(old, new, 1).encode(), "model.bin": WEIGHTS})
    refused(tmp_path, "openvino", said)


def test_an_ir_in_another_encoding_cannot_hide_its_entities(tmp_path):
    text = openvino_model().replace("<net ", LAUGHS).encode("utf-16")
    refused(put(tmp_path, {"model.xml": text, "model.bin": WEIGHTS}), "openvino", "UTF-8")


# ---- TensorFlow Lite ---------------------------------------------------------------------------


def lite(change):
    """Return the bytes of the small model once ``change(model, graph, schema)`` altered it."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs tflite")
    model = tflite_model()
    change(model, model.subgraphs[0], schema)
    return packed(model)


def set_to(path, value):
    def change(model, graph, schema):
        *way, last = path.split(".")
        place = model if way[0] == "model" else graph
        for step in way[1:]:
            place = place[int(step)] if step.isdigit() else getattr(place, step)
        if last.isdigit():
            place[int(last)] = value
        else:
            setattr(place, last, value)

    return change


def custom(model, graph, schema):
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "evil"


def loop(model, graph, schema):
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE


def external_group(model, graph, schema):
    group = schema.ExternalBufferGroupT()
    group.name = "../../etc/passwd"
    model.externalBufferGroups = [group]


def second_graph(model, graph, schema):
    model.subgraphs.append(graph)


def sparse_tensor(model, graph, schema):
    graph.tensors[1].sparsity = schema.SparsityParametersT()


def standing_still(model, graph, schema):
    code, operator = model.operatorCodes[0], graph.operators[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    operator.builtinOptions = schema.Conv2DOptionsT()  # strides of 0


def many_scales(model, graph, schema):
    graph.tensors[1].quantization = quantization = schema.QuantizationParametersT()
    quantization.scale = np.ones(7, np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("graph.tensors.1.shape", [3, 5]), "promises 60 bytes and holds 48"),
        (set_to("graph.tensors.1.shape", [3, 2**31 - 1]), "promises more than"),
        (set_to("graph.tensors.0.shape", [1, -4]), "a side of -4"),
        (set_to("graph.tensors.1.buffer", 9), "buffer 9 is named"),
        (set_to("graph.tensors.1.type", 5), "of type 5"),
        (set_to("graph.tensors.0.isVariable", True), "a variable"),
        (set_to("graph.operators.0.inputs", [0, 7, -1]), "tensor 7 is named"),
        (set_to("graph.operators.0.inputs", [0, -1, 1]), "tensor -1 is named"),
        (set_to("graph.operators.0.inputs", [0, 2, -1]), "read before it is written"),
        (set_to("graph.operators.0.outputs", [1]), "holds data already"),
        (set_to("graph.operators.0.opcodeIndex", 3), "operator code 3 is named"),
        (set_to("graph.outputs", [5]), "tensor 5 is named"),
        (set_to("graph.operators", []), "an output that nothing writes"),
        (set_to("graph.inputs", [1]), "an input and holds data"),
        (set_to("model.version", 7), "schema 7"),
        (set_to("model.buffers.1.size", 1 << 40), None),
        (custom, "operator 32"),
        (loop, "operator 119"),
        (external_group, "in other files"),
        (second_graph, "has 2 graphs"),
        (sparse_tensor, "sparse"),
        (standing_still, "of 0"),
        (many_scales, "7 scales|along axis"),
    ],
)  # fmt: skip
def test_an_attack_by_tflite_is_named(tmp_path, change, said):
    put(tmp_path, {"model.tflite": lite(change)})
    if said is None:  # a size without an offset means nothing
        check_files("tflite", tmp_path, OPENED["tflite"])
    else:
        refused(tmp_path, "tflite", said)


def test_offsets_out_of_a_tflite_file_are_refused(tmp_path):
    good = sound("tflite")["model.tflite"]
    far = struct.pack("<I", len(good) + 4)
    for data, said in (
        (far + good[4:], "out of the file"),
        (b"\0\0\0\0" + good[4:], "out of the file"),
        (b"\x02\0\0\0" + good[4:], "not aligned"),
        (good[:4] + b"TFL2" + good[8:], "TFL3"),
        (good[:-9], r"cut|out of|fit|outside|does not end"),
        (good[:6], "TFL3"),
    ):
        refused(put(tmp_path, {"model.tflite": data}), "tflite", said)


def test_a_behind_lying_buffer_stays_in_the_file(tmp_path):
    def behind(model, graph, schema):
        model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, 1 << 20, 48

    refused(put(tmp_path, {"model.tflite": lite(behind)}), "tflite", "a buffer ends at byte")

"""A tiny sound model of each format, made without a converter, and ways to damage it."""

from __future__ import annotations

import random
import re
import struct

import pytest

WEIGHTS = struct.pack("<12f", *range(12))
MAIN = {"onnx": "model.onnx", "openvino": "model.xml", "tflite": "model.tflite"}


def sound(format: str) -> dict[str, bytes]:
    """The files of a small model, by name; the test is skipped where they cannot be made."""
    if format == "openvino":
        return {"model.xml": openvino_model().encode(), "model.bin": WEIGHTS}
    if format == "onnx":
        pytest.importorskip("onnx", reason="needs the extra onnx")
        return {"model.onnx": onnx_model().SerializeToString()}
    pytest.importorskip("ai_edge_litert", reason="needs the extra tflite")
    return {"model.tflite": packed(tflite_model())}


def onnx_model(**changes):
    """A linear layer as a ModelProto; ``changes`` replace its nodes or its weights."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", [1, 4]), ("logits", [1, 3]))
    ]
    weights = changes.get("weights") or helper.make_tensor(
        "w", TensorProto.FLOAT, [3, 4], WEIGHTS, raw=True
    )
    nodes = changes.get("nodes") or [helper.make_node("Gemm", ["input", "w"], ["logits"], transB=1)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def openvino_model():
    """The same as the text of an IR; its ``.bin`` is :data:`WEIGHTS`."""

    def port(number, *sides):
        inside = "".join(f"<dim>{side}</dim>" for side in sides)
        return f'<port id="{number}" precision="FP32">{inside}</port>'

    return f"""<?xml version="1.0"?>
<net name="model" version="11">
<layers>
<layer id="0" name="input" type="Parameter" version="opset1">
<data shape="1,4" element_type="f32" /><output>{port(0, 1, 4)}</output></layer>
<layer id="1" name="w" type="Const" version="opset1">
<data element_type="f32" shape="3, 4" offset="0" size="48" />
<output>{port(0, 3, 4)}</output></layer>
<layer id="2" name="m" type="MatMul" version="opset1">
<data transpose_a="false" transpose_b="true" />
<input>{port(0, 1, 4)}{port(1, 3, 4)}</input><output>{port(2, 1, 3)}</output></layer>
<layer id="3" name="logits" type="Result" version="opset1">
<input>{port(0, 1, 3)}</input></layer>
</layers>
<edges>
<edge from-layer="0" from-port="0" to-layer="2" to-port="0" />
<edge from-layer="1" from-port="0" to-layer="2" to-port="1" />
<edge from-layer="2" from-port="2" to-layer="3" to-port="0" />
</edges>
<rt_info><info name="OpenVINO Runtime" value="2026.4.1-releases/2026/4" /></rt_info>
</net>
"""


def tflite_model():
    """The same as the objects of LiteRT's schema; :func:`packed` writes them."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name, shape, buffer):
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, shape, buffer
        made.type = schema.TensorType.FLOAT32
        return made

    def buffer(data=None):
        made = schema.BufferT()
        made.data = data
        return made

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("input", [1, 4], 0), tensor("w", [3, 4], 1), tensor("logits", [1, 3], 0)
    ]  # fmt: skip
    graph.inputs, graph.outputs, graph.operators, graph.name = [0], [2], [operator], "main"
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(), buffer(np.frombuffer(WEIGHTS, np.uint8))]
    return model


def packed(model):
    """The bytes of a :func:`tflite_model`."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


NUMBERS = (0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
STEPS = (-64, -8, -4, -2, -1, 1, 2, 4, 8, 64)
DIGITS = re.compile(rb"(?<=[\"=, >])-?\d+(?=[\"<, ])")
WORDS = re.compile(rb'"[A-Za-z]\w+"')


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut, lengthen or alter a file where it hurts: lengths, offsets, numbers, names."""
    kind = chance.random()
    if kind < 0.05:
        return data[: chance.randrange(len(data))]
    if kind < 0.08:
        return data + chance.randbytes(chance.randrange(1, 200))
    other = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if data[:1] == b"<" and kind < 0.85:
            _alter_text(other, chance)
        elif kind < 0.55:
            _alter_number(other, chance)
        else:
            other[chance.randrange(len(other))] ^= 1 << chance.randrange(8)
    return bytes(other)


def _alter_number(data: bytearray, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4))
    at = chance.randrange(len(data) - size)
    at -= at % size if chance.random() < 0.7 else 0
    value = int.from_bytes(data[at : at + size], "little") + chance.choice(STEPS)
    if chance.random() < 0.6:
        value = chance.choice((*NUMBERS, len(data), len(data) - at, chance.getrandbits(32)))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _alter_text(data: bytearray, chance: random.Random) -> None:
    numbers, words = list(DIGITS.finditer(bytes(data))), list(WORDS.finditer(bytes(data)))
    if numbers and chance.random() < 0.7:
        new = chance.choice((*NUMBERS, -1, 7, 10**4, 2**63, 10**30, chance.randrange(64)))
        found = chance.choice(numbers)
        data[found.start() : found.end()] = str(new).encode()
    elif words:
        found, new = chance.choice(words), chance.choice(words).group()
        data[found.start() : found.end()] = new

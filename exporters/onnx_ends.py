"""The two ends of a Q/DQ model: logits that are not rounded, or integers in and out.

A Q/DQ model takes float32, rounds it at once, and widens its last integers to float32. Models are
changed in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgessl.core.artifact import Quantized
from edgessl.exporters.base import INPUT_NAME, OUTPUT_NAME
from edgessl.exporters.onnx_ranges import Range

if TYPE_CHECKING:
    import onnx

SCALE, ZERO_POINT = "_scale", "_zero_point"


def keep_logits_float(model: onnx.ModelProto) -> None:
    """Remove the last Q/DQ pair: a grid of 256 values would tie the best answers."""
    pair = _last_pair(model)
    if pair is None:
        return
    quantize, dequantize = pair
    _rename(model, quantize.input[0], OUTPUT_NAME, but=dequantize)
    for node in pair:
        model.graph.node.remove(node)


def take_uint8(model: onnx.ModelProto, within: Range) -> Quantized:
    """Let the model take the rounded inputs, and return what they stand for.

    Args:
        model: Takes float32.
        within: Of its input; used when no node rounds it, as the first layer stays in float.
    """
    import onnx

    readers = [node for node in model.graph.node if INPUT_NAME in node.input]
    if [node.op_type for node in readers] == ["QuantizeLinear"]:
        (quantize,) = readers
        _rename(model, quantize.output[0], INPUT_NAME, but=quantize)
        model.graph.node.remove(quantize)
        parameters = list(quantize.input[1:])
    else:
        parameters = _add_parameters(model, INPUT_NAME, within)
        real = f"{INPUT_NAME}_real"
        _rename(model, INPUT_NAME, real)
        widen = onnx.helper.make_node(
            "DequantizeLinear", [INPUT_NAME, *parameters], [real], name=f"{real}/DequantizeLinear"
        )
        model.graph.node.insert(0, widen)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return _quantized(model, parameters)


def give_uint8(model: onnx.ModelProto, within: Range) -> Quantized:
    """Let the model give integers, and return what they stand for.

    Args:
        model: Gives float32.
        within: Of its output; used when it is not rounded, as the last layer stays in float.
    """
    import onnx

    pair = _last_pair(model)
    if pair is not None:
        quantize, dequantize = pair
        model.graph.node.remove(dequantize)
        quantize.output[0] = OUTPUT_NAME
        parameters = list(quantize.input[1:])
    else:
        parameters = _add_parameters(model, OUTPUT_NAME, within)
        real = f"{OUTPUT_NAME}_real"
        _rename(model, OUTPUT_NAME, real)
        model.graph.node.append(
            onnx.helper.make_node(
                "QuantizeLinear", [real, *parameters], [OUTPUT_NAME], name=f"{real}/QuantizeLinear"
            )
        )
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return _quantized(model, parameters)


def _last_pair(model: onnx.ModelProto) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return the Q/DQ pair that makes the output; None when something else makes it."""
    makers = {name: node for node in model.graph.node for name in node.output}
    last = makers[OUTPUT_NAME]
    before = makers.get(last.input[0])
    if last.op_type != "DequantizeLinear" or before is None:
        return None
    return (before, last) if before.op_type == "QuantizeLinear" else None


def _rename(model: onnx.ModelProto, old: str, new: str, but: onnx.NodeProto | None = None) -> None:
    """Give a tensor another name wherever it is made and read, except in one node."""
    for node in model.graph.node:
        if but is None or node.name != but.name:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]


def _add_parameters(model: onnx.ModelProto, tensor: str, within: Range) -> list[str]:
    """Store scale and zero point of 8 bits for a range, which is widened to hold zero."""
    import onnx

    low, high = min(float(within[0]), 0.0), max(float(within[1]), 0.0)
    scale = (high - low) / 255 or 1.0
    values = {
        tensor + SCALE: np.array(scale, np.float32),
        tensor + ZERO_POINT: np.array(np.rint(-low / scale), np.uint8),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in values.items()
    )
    return list(values)


def _quantized(model: onnx.ModelProto, parameters: list[str]) -> Quantized:
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scale, zero_point = (onnx.numpy_helper.to_array(constants[name]) for name in parameters)
    return Quantized(scale=float(scale.reshape(())), zero_point=int(zero_point.reshape(())))

"""What TensorRT's ONNX parser demands of a file, checked without TensorRT.

From docs/operators.md and the importers of onnx/onnx-tensorrt, branches 8.5-GA, 8.6-GA and
10.1-GA. A file that keeps the rules can still be refused by a board; one that breaks them is
refused, or, worse, computes something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import INPUT_NAME

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 21)  # 13: the first with per-channel scales; 20: the last that 10.1 reads
OPERATORS = {
    "Add", "AveragePool", "Cast", "Clip", "Concat", "Constant", "Conv", "DequantizeLinear", "Div",
    "Elu", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "PRelu", "Pad", "QuantizeLinear",
    "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Softplus", "Split",
    "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip


def check(model: onnx.ModelProto) -> None:
    """Hold a model against the rules.

    Args:
        model: With the types of its tensors (``value_info``).

    Raises:
        ConversionFailed: Names the first rule that is broken, and where.
    """
    _check_operators(model)
    _check_types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_pair(node, constants)


def _check_operators(model: onnx.ModelProto) -> None:
    for item in model.opset_import:
        if item.domain not in ("", "ai.onnx"):
            _refuse(f"the file declares operators of {item.domain}, it knows ONNX's own only")
        if item.version not in OPSETS:
            _refuse(f"opset {item.version}; its parsers read {OPSETS[0]} to {OPSETS[-1]}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            _refuse(f"{node.name} is an operator of {node.domain}, it knows ONNX's own only")
        if node.op_type not in OPERATORS:
            _refuse(f"{node.name}: {node.op_type} is no operator of its parsers from 8.5 on")
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            _refuse(
                f"{node.name}: ReduceMean with its axes as an input; 8.5 and 8.6 overlook them "
                "and average everything"
            )


def _check_types(model: onnx.ModelProto) -> None:
    import onnx

    kinds = onnx.TensorProto
    for end in (*model.graph.input, *model.graph.output):
        shape = end.type.tensor_type.shape.dim
        if not all(size.dim_value > 0 for size in shape):
            _refuse(f"{end.name} has no static shape")
    readers = [node.op_type for node in model.graph.node if INPUT_NAME in node.input]
    tensors = {
        tensor.name: tensor.type.tensor_type.elem_type
        for tensor in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    known = {kinds.FLOAT, kinds.FLOAT16, kinds.INT8, kinds.INT32, kinds.INT64, kinds.BOOL}
    for name, kind in (tensors | constants).items():
        pixels = name == INPUT_NAME and kind == kinds.UINT8 and set(readers) == {"Cast"}
        if kind not in known and not pixels:
            _refuse(f"{name} is of type {kinds.DataType.Name(kind).lower()}")


def _check_pair(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    import onnx

    if len(node.input) < 3:
        _refuse(f"{node.name} names no zero point")
    if missing := [name for name in node.input[1:] if name not in constants]:
        _refuse(f"{node.name}: {', '.join(missing)} is computed, it must be a constant")
    scale, zero_point = (constants[name] for name in node.input[1:])
    weight = constants.get(node.input[0])
    if zero_point.data_type != onnx.TensorProto.INT8:
        kind = onnx.TensorProto.DataType.Name(zero_point.data_type).lower()
        bias = " (a bias, which must stay float)" if kind == "int32" else ""
        _refuse(f"{node.name} is in {kind}, not in int8{bias}")
    if np.any(onnx.numpy_helper.to_array(zero_point)):
        _refuse(f"{node.name} has a zero point that is not 0")
    scales = onnx.numpy_helper.to_array(scale)
    if not np.all(scales > 0):
        _refuse(f"{node.name} has a scale that is not positive")
    if scales.size > 1 and weight is None:
        _refuse(f"{node.name} gives an activation {scales.size} scales, one is allowed")


def _refuse(breach: str) -> None:
    raise ConversionFailed(
        f"TensorRT would not take the file: {breach}",
        hint="change the layer of the net that this comes from, or take --target onnx",
    )

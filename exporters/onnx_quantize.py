"""Smaller copies of a float32 ONNX model: float16, int8 weights, int8 and w8a16 with Q/DQ pairs.

The quantiser is ONNX Runtime's; the ranges of activations are measured in
:mod:`edgessl.exporters.onnx_ranges`. Nothing is written to disk here.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.exporters import onnx_graph, onnx_layers
from edgessl.exporters.onnx_ranges import Range
from edgessl.exporters.onnx_runtime import import_onnxruntime

if TYPE_CHECKING:
    import onnx

OPSET_OF_16_BITS = 21  # the first whose QuantizeLinear knows 16-bit integers


@dataclass(frozen=True, slots=True)
class QdqStyle:
    """How a runtime wants its Q/DQ pairs.

    Attributes:
        activations: Integers of activations; weights are always int8 per channel, zero point 0.
        symmetric: Zero point 0 for activations too.
        float_bias: Biases stay float32; else int32 with the scale of input times weights.
        own_pairs: A Q/DQ pair for each reader of a tensor instead of one for all.
        ops: Operators with quantised inputs; None for all that ONNX Runtime can.
        float_outputs_of: Operators whose outputs get no pair of their own.
    """

    activations: Literal["uint8", "int8", "uint16"]
    symmetric: bool = False
    float_bias: bool = False
    own_pairs: bool = False
    ops: tuple[str, ...] | None = None
    float_outputs_of: tuple[str, ...] = ()


def to_float16(model: onnx.ModelProto, float_nodes: Collection[str]) -> onnx.ModelProto:
    """Return the model with float16 weights and activations; float32 in and out.

    Weights beyond what float16 holds are clamped to its ends.

    Args:
        model: Float model with the types of its tensors; it is left as it was.
        float_nodes: Nodes that stay as they are.
    """
    import onnx

    import_onnxruntime()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        return convert_float_to_float16(
            copy, keep_io_types=True, disable_shape_infer=True, node_block_list=list(float_nodes)
        )


def to_dynamic(model: onnx.ModelProto, float_nodes: Collection[str]) -> onnx.ModelProto:
    """Return the model with int8 weights per output channel, and no need for images.

    Linear layers become ``MatMulInteger``: their inputs are quantised while it runs.
    Convolutions compute in float32; their weights are stored as int8 and widened by ``Cast`` and
    ``Mul``, which a runtime does once, when it loads the file (``DequantizeLinear`` would be
    computed again for every image). ONNX Runtime's tool would make them ``ConvInteger`` with one
    scale for a whole layer: it lost most of the signal on nets with depthwise layers and ran four
    times slower than float32 on x86.

    Args:
        model: Float model; it is left as it was.
        float_nodes: Convolutions and products that stay as they are.
    """
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quant_utils
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node, rows in onnx_layers.layer_weights(copy):
        if node.op_type == "Conv" and node.name not in float_nodes:
            _store_in_int8(copy, node, rows)
    quant_utils.add_infer_metadata(copy)  # shapes are known; it would go through a file else
    # a Gemm becomes a MatMul of that name, and an Add, before it is looked for
    stay = [*float_nodes, *(f"{name}_MatMul" for name in float_nodes)]
    with _quiet():
        quantizer = ONNXQuantizer(
            copy, per_channel=True, reduce_range=False, mode=QuantizationMode.IntegerOps,
            static=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
            tensors_range=None, nodes_to_quantize=[], nodes_to_exclude=stay,
            op_types_to_quantize=["MatMul"], extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        quantizer.quantize_model()
    return quantizer.model.model


def to_qdq(
    model: onnx.ModelProto, ranges: Mapping[str, Range], style: QdqStyle,
    float_nodes: Collection[str],
) -> onnx.ModelProto:  # fmt: skip
    """Return the model with integer weights and activations between Q/DQ pairs.

    Args:
        model: Float model with the types of its tensors; it is left as it was.
        ranges: Of its activations, see :mod:`edgessl.exporters.onnx_ranges`.
        style: What the runtime wants.
        float_nodes: Nodes that stay as they are.
    """
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, QuantType, quant_utils
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if style.activations == "uint16":
        copy = onnx_graph.raise_opset(copy, OPSET_OF_16_BITS)
    data: dict[str, Any] = {
        name: TensorData(lowest=np.array(low), highest=np.array(high))
        for name, (low, high) in ranges.items()
    }
    integers = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8, "uint16": QuantType.QUInt16}
    quant_utils.add_infer_metadata(copy)  # shapes are known; it would go through a file else
    with _quiet():
        quantizer = QDQQuantizer(
            copy, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8,
            activation_qType=integers[style.activations],
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[], nodes_to_exclude=list(float_nodes),
            op_types_to_quantize=style.ops or sorted({*QDQRegistry, *QLinearOpsRegistry}),
            extra_options={
                "ActivationSymmetric": style.symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not style.float_bias,
                "DedicatedQDQPair": style.own_pairs,
                "OpTypesToExcludeOutputQuantization": list(style.float_outputs_of),
            },
        )  # fmt: skip
        quantizer.quantize_model()
    return quantizer.model.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from logging advice through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _store_in_int8(
    model: onnx.ModelProto, node: onnx.NodeProto, rows: NDArray[np.floating]
) -> None:
    import onnx

    name = node.input[1]
    place = next(i for i, t in enumerate(model.graph.initializer) if t.name == name)
    shape = list(model.graph.initializer[place].dims)
    scale = np.abs(rows).max(axis=1).astype(np.float32) / np.float32(127)
    scale[scale == 0] = 1  # a channel of zeros
    integers = np.rint(rows / scale[:, None]).clip(-127, 127).astype(np.int8).reshape(shape)
    constants = {
        f"{name}_int8": integers,
        f"{name}_scale": scale.reshape(-1, *[1] * (len(shape) - 1)),
    }
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, key) for key, array in constants.items()
    )
    wide, real = f"{name}_wide", f"{name}_real"
    make = onnx.helper.make_node
    for widen in (
        make("Cast", [f"{name}_int8"], [wide], name=wide, to=onnx.TensorProto.FLOAT),
        make("Mul", [wide, f"{name}_scale"], [real], name=real),
    ):
        model.graph.node.append(widen)
    node.input[1] = real
    onnx_graph.drop_unused_initializers(model)

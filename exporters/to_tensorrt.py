"""ONNX prepared for TensorRT: the engine itself is built on the board, by its own TensorRT.

Why opset 17: the parsers of TensorRT 8.5 (JetPack 5) and 8.6 (JetPack 6.0) read opsets up to 17,
those of 10.x (JetPack 6.1 and later) up to 20 and more, says docs/operators.md of the branches of
onnx/onnx-tensorrt. Nothing that a small CNN needs came later.

The files run in ONNX Runtime for parity only: signed activations, which TensorRT wants, are
several times slower than float32 there on x86, so a latency taken here says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters import onnx_quantize, tensorrt_rules
from edgessl.exporters.base import INPUT_NAME, Form, Quantization, Scheme, Written
from edgessl.exporters.to_onnx import OnnxExporter

if TYPE_CHECKING:
    import onnx
    import torch


class TensorrtExporter(OnnxExporter):
    """Write ``model.onnx`` for TensorRT; see :class:`edgessl.exporters.base.Exporter`.

    ``int8`` follows what NVIDIA asks of explicit quantisation: int8 with zero point 0, one scale
    for an activation, one for each channel of a weight, pairs in front of layers but not behind
    them (so that a layer fuses with its activation), biases in float32.
    """

    quantizes: ClassVar[dict[Quantization, tuple[str, ...]]] = {"fp16": (), "int8": ()}
    opset = 17
    styles: ClassVar[dict[Quantization, onnx_quantize.QdqStyle]] = {
        "int8": onnx_quantize.QdqStyle(
            "int8",
            symmetric=True,
            float_bias=True,
            own_pairs=True,
            ops=("Conv", "Gemm", "MatMul", "Add"),
            float_outputs_of=("Conv", "Gemm", "MatMul"),
        )
    }

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as :class:`OnnxExporter` does, within the rules of TensorRT.

        Raises:
            ConversionFailed: A dynamic batch, or a net that breaks a rule; names the first.
        """
        if form.dynamic_batch:
            raise ConversionFailed(
                "files for TensorRT have a static batch: the engine is planned for its shapes",
                hint="leave --dynamic-batch out, or take --target onnx and give trtexec a profile",
            )
        return super().write(module, spec, folder, form)

    def quantize(
        self, source: Path, written: Written, folder: Path, scheme: Scheme,
        calibration: NDArray[Any],
    ) -> Written:  # fmt: skip
        """Write a smaller copy, within the rules of TensorRT.

        ``fp16``: types are in the file (float32 at its ends), so build a strongly typed engine.

        Raises:
            ConversionFailed: As :class:`OnnxExporter`, for integers in and out, and for a file
                that breaks a rule; names the first.
        """
        if scheme.integer_io:
            raise ConversionFailed(
                "files for TensorRT take and give float32; the engine rounds inside",
                hint="leave --integer-io out; --embed-preprocess lets the file take uint8 pixels",
            )
        return super().quantize(source, written, folder, scheme, calibration)

    def _adapt(self, model: onnx.ModelProto) -> None:
        """Widen pixels before they are laid out: TensorRT takes uint8 for nothing but a Cast."""
        readers = [node for node in model.graph.node if INPUT_NAME in node.input]
        if [node.op_type for node in readers] != ["Transpose"]:
            return
        (transpose,) = readers
        behind = [node for node in model.graph.node if transpose.output[0] in node.input]
        if [node.op_type for node in behind] != ["Cast"]:
            return
        (cast,) = behind
        between, result = transpose.output[0], cast.output[0]
        cast.input[0], cast.output[0] = INPUT_NAME, between
        transpose.input[0], transpose.output[0] = between, result

    def _check(self, model: onnx.ModelProto) -> None:
        tensorrt_rules.check(model)

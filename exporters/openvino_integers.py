"""Integers in and out of an int8 graph.

In: the rounding that the graph begins with moves to whoever prepares the image. Out: the logits
are rounded to 256 steps between the smallest and the largest of the calibration images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import OutputSpec, Quantized
from edgessl.core.errors import ConversionFailed
from edgessl.exporters import openvino_model
from edgessl.exporters.base import INPUT_NAME, Written

LEVELS = 256
HINT = "use float input and output (leave integer out), or keep the first layer in int8"


def measured(model: Any, written: Written, calibration: NDArray[Any]) -> Written:
    """Return the contract of the graph with integers at both ends.

    A file that takes pixels takes integers already.

    Args:
        model: The int8 graph, with float ends.
        written: Its contract.
        calibration: (N, ...) as it takes them.

    Raises:
        ConversionFailed: The graph does not begin with one rounding of the whole image.
    """
    given = written.input
    if not given.takes_pixels:
        quantized = _first_rounding(model)
        given = given.model_copy(update={"dtype": "uint8", "quantized": quantized})
    request = openvino_model.compiled(model).create_infer_request()
    logits = [request.infer({0: np.ascontiguousarray(x[None])})[0].copy() for x in calibration]
    low, high = min(0.0, float(np.min(logits))), max(0.0, float(np.max(logits)))
    if not high - low > 0:
        raise ConversionFailed(f"the logits of all calibration images are {low:g}", hint=HINT)
    got = OutputSpec(dtype="uint8", quantized=_quantized(low, high))
    return replace(written, input=given, output=got)


def integer_ends(model: Any, written: Written) -> Any:
    """Return the graph with the ends that ``written`` says."""
    openvino = openvino_model.import_openvino()
    from openvino import opset13 as ops

    parameter, result = model.get_parameters()[0], model.get_results()[0]
    if (quantized := written.input.quantized) is not None:
        (target,) = parameter.output(0).get_target_inputs()
        rounding = target.get_node()
        shape = parameter.get_partial_shape()
        parameter = ops.parameter(shape, openvino.Type.u8, name=INPUT_NAME)
        offset = ops.subtract(ops.convert(parameter, "f32"), _scalar(ops, quantized.zero_point))
        real = ops.multiply(offset, _scalar(ops, quantized.scale))
        for place in rounding.output(0).get_target_inputs():
            place.replace_source_output(real.output(0))
    quantized = written.output.quantized
    assert quantized is not None
    last, low = LEVELS - 1, -quantized.zero_point * quantized.scale
    ends = (low, low + last * quantized.scale, 0, last)
    steps = ops.fake_quantize(
        result.input_value(0), *(_scalar(ops, end) for end in ends), levels=LEVELS
    )
    # the conversion cuts off what is behind the comma, and 3.9999998 would become 3
    whole = ops.convert(ops.round(steps, "half_to_even"), "u8")
    return openvino.Model([ops.result(whole)], [parameter], "model")


def _first_rounding(model: Any) -> Quantized:
    targets = list(model.get_parameters()[0].output(0).get_target_inputs())
    node = targets[0].get_node()
    if len(targets) != 1 or node.get_type_name() != "FakeQuantize":
        raise ConversionFailed(
            f"the graph begins with {node.get_type_name()} in float, so it cannot take integers",
            hint=HINT,
        )
    ends = [node.input_value(side).get_node().data for side in range(1, 5)]
    levels = node.get_attributes()["levels"]
    if levels != LEVELS or any(end.size != 1 for end in ends):
        raise ConversionFailed(
            f"the image is rounded to {levels} steps, by channel: no one scale and zero point",
            hint=HINT,
        )
    low, high, *out = (float(end.item()) for end in ends)
    quantized = _quantized(low, high)
    exact = (
        -quantized.zero_point * quantized.scale,
        (255 - quantized.zero_point) * quantized.scale,
    )
    if not np.allclose([low, high, *out], [*exact, *exact], rtol=0, atol=quantized.scale / 100):
        raise ConversionFailed(
            f"the image is rounded between {low:g} and {high:g}, where no step is zero", hint=HINT
        )
    return quantized


def _quantized(low: float, high: float) -> Quantized:
    scale = float(np.float32((high - low) / (LEVELS - 1)))
    return Quantized(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, LEVELS - 1)))


def _scalar(ops: Any, value: float) -> Any:
    return ops.constant(np.float32(value))

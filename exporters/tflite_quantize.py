"""Quantise a float LiteRT file with ai-edge-quantizer, and check that it did what was asked.

Only its public calls are used, but their arguments have changed from version to version; an
interface that does not fit is an error that says so.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import OutputSpec, Quantized
from edgessl.core.errors import ConversionFailed, EdgeSSLError
from edgessl.exporters import tflite_file, tflite_ranges
from edgessl.exporters.base import Layer, Quantization, Scheme, Written, installed_versions

EVERYTHING = ".*"
# (weights, what the layer gives) as the schema names the types
TYPES: dict[Quantization, tuple[str, str]] = {
    "fp16": ("FLOAT16", "FLOAT32"),
    "dynamic": ("INT8", "FLOAT32"),
    "int8": ("INT8", "INT8"),
    "w8a16": ("INT8", "INT16"),
}
# The version of a matrix product of floats by weights with a scale per channel. The quantiser does
# not note it, and tflite-runtime 2.14, told an older version, gives wrong numbers without a word;
# told this one, it refuses the file.
HYBRID_PER_CHANNEL = 12
ACTIVATION_BITS: dict[Quantization, int] = {"int8": 8, "w8a16": 16}


def quantize(
    source: Path, written: Written, target: Path, scheme: Scheme, calibration: NDArray[Any]
) -> Written:
    """Write a quantised copy of a float32 file.

    Weights are int8 per output channel (float16 for ``fp16``). What stands before the first
    layer of a file that takes pixels stays in float: the mean and std of three channels would
    share one scale.

    Args:
        source: The float file, as :meth:`TfliteExporter.write` left it.
        written: What that returned.
        target: The file to write.
        scheme: What is asked.
        calibration: (N, ...) as the float file takes them; for ``int8`` and ``w8a16``.

    Raises:
        ConversionFailed: The quantiser failed, or a layer did not become what was asked.
        DataInvalid: See :func:`edgessl.exporters.tflite_ranges.measure`.
    """
    static = scheme.precision in ACTIVATION_BITS
    if scheme.integer_io and not static:
        raise ConversionFailed(
            f"{scheme.precision} files compute with float numbers at both ends",
            hint="integers in and out need int8 or w8a16",
        )
    float_nodes = _nodes(written.layers, scheme.float_layers)
    ranges = tflite_ranges.measure(source, calibration, scheme.calibration) if static else None
    with _quietly():
        quantizer = _quantizer(source, scheme, integer_input=not written.input.takes_pixels)
        before = _before(source, written.layers) if written.input.takes_pixels else []
        for node in [*float_nodes, *before]:
            _keep_in_float(quantizer, f"^{re.escape(node)};?$", "ALL_SUPPORTED")
        result = quantizer.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
    model = tflite_file.load(bytes(result.quantized_model))
    tflite_file.keep_metadata(model, tflite_file.KEPT_METADATA)
    _check(model, written.layers, set(float_nodes), scheme.precision)
    if scheme.precision == "dynamic":
        tflite_file.need_version(model, "FULLY_CONNECTED", HYBRID_PER_CHANNEL)
    tflite_file.save(model, target)
    return _described(target, written)


def _quantizer(source: Path, scheme: Scheme, *, integer_input: bool) -> Any:
    """Return a quantiser that was told everything but which layers stay in float."""
    from ai_edge_quantizer import qtyping, quantizer

    made = quantizer.Quantizer(str(source))
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if scheme.precision == "fp16":
        made.add_weight_only_config(
            EVERYTHING,
            every,
            num_bits=16,
            granularity=qtyping.QuantGranularity.TENSORWISE,
            algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
        )
    elif scheme.precision == "dynamic":
        made.add_dynamic_config(EVERYTHING, every, num_bits=8)
    else:
        bits = ACTIVATION_BITS[scheme.precision]
        made.add_static_config(EVERYTHING, every, activation_num_bits=bits, weight_num_bits=8)
        if not (scheme.integer_io and integer_input):
            _keep_in_float(made, EVERYTHING, "INPUT")
        if not scheme.integer_io:
            _keep_in_float(made, EVERYTHING, "OUTPUT")
    return made


def _keep_in_float(quantizer: Any, pattern: str, operation: str) -> None:
    """Except operations from quantising: those whose outputs' names match."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.quantizer import AlgorithmName

    quantizer.update_quantization_recipe(
        regex=pattern,
        operation_name=qtyping.TFLOperationName[operation],
        algorithm_key=AlgorithmName.NO_QUANTIZE,
    )


def _nodes(layers: Sequence[Layer], modules: Sequence[str]) -> list[str]:
    """Return the nodes of modules."""
    known = {layer.module for layer in layers}
    if unknown := [name for name in modules if name not in known]:
        raise ConversionFailed(
            f"no such layer to keep in float: {', '.join(unknown)}",
            hint=f"layers of this net: {', '.join(sorted(known))}",
        )
    return [layer.node for layer in layers if layer.module in modules]


def _before(source: Path, layers: Sequence[Layer]) -> list[str]:
    """Return the nodes of the operations that run before the first layer."""
    nodes = [operator.node for operator in tflite_file.operators(tflite_file.load(source))]
    return nodes[: nodes.index(layers[0].node)] if layers else []


def _check(model: Any, layers: Sequence[Layer], kept: set[str], precision: Quantization) -> None:
    """Refuse a file in which a layer has other types than were asked."""
    types = tflite_file.layer_types(model)
    for layer in layers:
        want = ("FLOAT32", "FLOAT32") if layer.node in kept else TYPES[precision]
        if types.get(layer.node) != want:
            raise ConversionFailed(
                f"weights and output of {layer.module} became {types.get(layer.node)} instead of "
                f"{want}",
                hint="ai-edge-quantizer cannot quantise this layer: keep it in float",
            )


def _described(path: Path, written: Written) -> Written:
    """Return the contract of the quantised file."""
    opened = tflite_file.interpreter(path)
    (given,), (got,) = opened.get_input_details(), opened.get_output_details()
    update: dict[str, Any] = {}
    if (quantized := _integers(given)) is not None:
        update = {"dtype": np.dtype(given["dtype"]).name, "quantized": quantized}
    output = OutputSpec.model_validate(
        {"dtype": np.dtype(got["dtype"]).name, "quantized": _integers(got)}
    )
    return replace(written, input=written.input.model_copy(update=update), output=output)


def _integers(detail: dict[str, Any]) -> Quantized | None:
    scale, zero_point = detail["quantization"]
    return Quantized(scale=float(scale), zero_point=int(zero_point)) if scale > 0 else None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back progress bars and warnings, and turn what the quantiser raises into one error."""
    version = installed_versions("ai-edge-quantizer").get("ai-edge-quantizer", "unknown")
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (EdgeSSLError, ModuleNotFoundError):
        raise
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        raise ConversionFailed(
            f"ai-edge-quantizer {version} has another interface than 0.10: {error}",
            hint="install the version that `pip install edgessl[tflite]` chooses",
        ) from error
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConversionFailed(f"ai-edge-quantizer {version} failed: {cause}") from error

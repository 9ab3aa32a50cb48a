"""Quantise an OpenVINO graph: float16 weights, or NNCF's int8, held to silence and repeatability.

NNCF's bias correction is left out: on trained nets it cost up to four times the seconds and
changed neither answers nor probabilities beyond what another choice of images does.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import ConversionFailed, EdgeSSLError
from edgessl.exporters import openvino_integers, openvino_model
from edgessl.exporters.base import Calibration, Layer, Scheme, Written, installed_versions

# Where NNCF takes the range of an activation from: its smallest and largest value over all
# images; the range with the smallest rounding error for the histogram of all values (NNCF has
# no percentile over images; this one clips rare values, too); the mean over images of an image's
# smallest and largest value. The last is NNCF's own default, and the one that clips most.
RANGES: dict[Calibration, str] = {
    "minmax": "MINMAX", "percentile": "HISTOGRAM", "moving_average": "MEAN_MINMAX"
}  # fmt: skip


def quantize(
    source: Path, written: Written, folder: Path, scheme: Scheme, calibration: NDArray[Any]
) -> Written:
    """Write a quantised copy of a float32 file.

    ``int8``: weights per output channel, symmetric activations as in NNCF's preset PERFORMANCE;
    layers inside squeeze-and-excitation have int8 weights and compute in float.
    ``dynamic``: weights alone are int8 and computing is in float, which saves bytes and no
    time. ``fp16``: the same with float16.

    Args:
        source: Folder of the float file.
        written: What :meth:`OpenvinoExporter.write` returned for it.
        folder: Where the copy goes.
        scheme: What is asked.
        calibration: (N, ...) as the float file takes them; for ``int8``.

    Raises:
        ConversionFailed: It cannot be had as asked, or NNCF failed.
    """
    precision, modules = scheme.precision, scheme.float_layers
    if scheme.integer_io and precision != "int8":
        raise ConversionFailed(
            f"{precision} files of OpenVINO compute in float at both ends",
            hint="integers in and out need int8",
        )
    if precision == "fp16" and modules:
        raise ConversionFailed(
            "OpenVINO halves all weights or none", hint="leave out the layers to keep in float"
        )
    kept = _nodes(written.layers, modules)
    model = openvino_model.read(source / openvino_model.MODEL)
    # pixels are exact before the first layer, and its rounding is enough
    before = openvino_model.before(model, written.layers[0].node) if written.layers else []
    made = replace(written, files=list(openvino_model.FILES))
    if precision == "dynamic":
        model = _compress(model, [*kept, *before])
    elif precision == "int8":
        model = _calibrate(model, [*kept, *before], scheme.calibration, calibration)
        # NNCF passes over the layers inside squeeze-and-excitation: their weights would stay
        # half of the file
        done = _with_integer_weights(model, written.layers)
        model = _compress(model, [*kept, *before, *done])
    elif precision != "fp16":
        raise ConversionFailed(
            f"OpenVINO files are not written in {precision}",
            hint="it is offered in dynamic, fp16 and int8",
        )
    if precision != "fp16":
        _check(model, written.layers, set(kept), precision)
    if scheme.integer_io:
        made = openvino_integers.measured(model, made, calibration)
        model = openvino_integers.integer_ends(model, made)
    model = openvino_model.tidied(model, {x.node: x.node for x in written.layers})
    openvino_model.save(model, folder, half=precision == "fp16")
    return made


def _nodes(layers: Sequence[Layer], modules: Sequence[str]) -> list[str]:
    known = {layer.module: layer.node for layer in layers}
    if unknown := [name for name in modules if name not in known]:
        raise ConversionFailed(
            f"no such layer to keep in float: {', '.join(unknown)}",
            hint=f"layers of this net: {', '.join(known)}",
        )
    return [known[name] for name in modules]


def _calibrate(model: Any, kept: list[str], method: Calibration, images: NDArray[Any]) -> Any:
    if len(images) == 0:
        raise ConversionFailed("no calibration images", hint="give some with --calib")
    with _quiet_nncf() as nncf:
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        advanced = nncf.AdvancedQuantizationParameters(
            disable_bias_correction=True,
            activations_range_estimator_params=getattr(RangeEstimatorParametersSet, RANGES[method]),
        )
        return nncf.quantize(
            model,
            nncf.Dataset([np.ascontiguousarray(image[None]) for image in images]),
            subset_size=len(images),
            # symmetric activations: MIXED kept as many answers and took a fifth more time on x86
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
            advanced_parameters=advanced,
        )


def _compress(model: Any, kept: list[str]) -> Any:
    with _quiet_nncf() as nncf:
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_ASYM,
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        )


def _check(model: Any, layers: Sequence[Layer], kept: set[str], precision: str) -> None:
    """Refuse a graph in which a layer's weights are not stored as was asked."""
    integers = set(_with_integer_weights(model, layers))
    for layer in layers:
        if (layer.node in integers) == (layer.node in kept):
            raise ConversionFailed(
                f"in {precision} the weights of {layer.module} became "
                f"{'integers' if layer.node in integers else 'no integers'}, which was not asked",
                hint="please report it with the versions of `edgessl doctor`",
            )


def _with_integer_weights(model: Any, layers: Sequence[Layer]) -> list[str]:
    nodes = openvino_model.node_named(model)
    found = [layer.node for layer in layers if layer.node in nodes]
    return [
        name
        for name in found
        if openvino_model.stored_type(nodes[name].input_value(1)) in ("i8", "u8")
    ]


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[Any]:
    """Import NNCF without telemetry and progress bars; what it raises becomes one error."""
    openvino_model.import_openvino()
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            import nncf

            yield nncf
    except (EdgeSSLError, ModuleNotFoundError):
        raise
    except Exception as error:
        version = installed_versions("nncf").get("nncf", "unknown")
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConversionFailed(f"NNCF {version} failed: {cause}") from error

"""LiteRT (TensorFlow Lite): converted from torch by litert-torch, with NHWC input.

Quantising is in :mod:`edgessl.exporters.tflite_quantize`, the file format in
:mod:`edgessl.exporters.tflite_file`.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters import snippets_tflite, tflite_file, tflite_quantize
from edgessl.exporters.base import (
    CONTRACT_KEY,
    Form,
    Layer,
    Quantization,
    Scheme,
    Session,
    Written,
    check_signature,
    installed_versions,
    opening,
    plain_copy,
)
from edgessl.exporters.layers import match, modules_in_order
from edgessl.exporters.preprocess import check_resize, embedded, embedded_spec

if TYPE_CHECKING:
    import torch

# Set before the converter's first import. jax, which it brings along, must not look for
# accelerators; both libraries chat on stderr. (Its model hubs are never imported on this path.)
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "LITERT_TORCH_SHOW_PROGRESS": "n",
}
QUANTIZES: dict[Quantization, tuple[str, ...]] = {
    "dynamic": ("ai_edge_quantizer",),
    "fp16": ("ai_edge_quantizer",),
    "int8": ("ai_edge_quantizer",),
    "w8a16": ("ai_edge_quantizer",),
}


class TfliteExporter:
    """Write and run ``model.tflite``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "tflite"
    layout: Literal["NCHW", "NHWC"] = "NHWC"
    main_file = "model.tflite"
    needs = ("torch", "litert_torch", "ai_edge_litert")
    quantizes = QUANTIZES

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.tflite`` taking (1, height, width, 3).

        The converter's file is not kept as it is: see :mod:`edgessl.exporters.tflite_file`. A
        layer's node is the tensor that it gives, called like the module.

        Raises:
            ConversionFailed: No file, other shapes, a form that LiteRT cannot have, or no
                converter for this machine.
        """
        if form.dynamic_batch:
            raise ConversionFailed(
                "LiteRT files have a fixed batch of one",
                hint="leave the dynamic batch out, or export to onnx or openvino",
            )
        if form.opset is not None:
            raise ConversionFailed("LiteRT files have no opset", hint="leave the opset out")
        check_resize(spec, form)
        litert_torch = _import_converter()
        import torch

        plain = plain_copy(module)
        spec = spec.with_layout(self.layout)
        if form.embed:
            spec, channels_last = embedded_spec(spec, form), embedded(module, spec, form)
        else:
            # the transposes at the input cancel against those of the first convolution
            channels_last = litert_torch.to_channel_last_io(plain, args=[0]).eval()
        example = torch.zeros(spec.shape, dtype=torch.uint8 if form.embed else torch.float32)
        with tempfile.TemporaryDirectory(prefix="edgessl-") as name:
            converted = Path(name) / self.main_file
            litert_torch.convert(channels_last, (example,)).export(str(converted))
            if not converted.is_file():
                raise ConversionFailed("litert-torch wrote no file")
            model = tflite_file.load(converted.read_bytes())
        modules = modules_in_order(plain, torch.zeros(1, 3, spec.height, spec.width))
        layers = tflite_file.tidy(model, match(modules, tflite_file.layer_weights(model)))
        path = folder / self.main_file
        tflite_file.save(model, path)
        interpreter = tflite_file.interpreter(path)
        ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        shapes = tuple(tuple(int(n) for n in end["shape"]) for end in ends)
        check_signature("the LiteRT model", shapes, spec.shape)
        return Written([self.main_file], spec, layers=layers)

    def quantize(
        self, source: Path, written: Written, folder: Path, scheme: Scheme,
        calibration: NDArray[Any],
    ) -> Written:  # fmt: skip
        """Write a quantised copy with ai-edge-quantizer; weights are int8 per channel.

        See :func:`edgessl.exporters.tflite_quantize.quantize`. ``w8a16`` has no fast kernels on
        processors: it is for NPUs.
        """
        name = self.main_file
        return tflite_quantize.quantize(source / name, written, folder / name, scheme, calibration)

    def describe(self, folder: Path, contract: str) -> None:
        """Store the contract as metadata of the flatbuffer; runtimes pass over it."""
        path = folder / self.main_file
        with opening(path):
            model = tflite_file.load(path)
        tflite_file.set_metadata(model, CONTRACT_KEY, contract)
        tflite_file.save(model, path)

    def described(self, folder: Path) -> str | None:
        """Return the contract that the flatbuffer holds, or None."""
        path = folder / self.main_file
        with opening(path):
            return tflite_file.get_metadata(tflite_file.load(path), CONTRACT_KEY)

    def open(self, folder: Path) -> Session:
        """Run ``model.tflite`` with the LiteRT interpreter (XNNPACK kernels)."""
        path = folder / self.main_file
        with opening(path):
            interpreter = tflite_file.interpreter(path)
            entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

        def infer(image: NDArray[Any]) -> NDArray[Any]:
            interpreter.set_tensor(entry["index"], image)
            interpreter.invoke()
            return interpreter.get_tensor(result["index"])

        shape = tuple(int(n) for n in entry["shape"])
        return Session(shape, np.dtype(entry["dtype"]).name, infer)

    def activations(
        self, folder: Path, layers: Sequence[Layer], inputs: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what layers give inside the file, on the kernels that :meth:`open` uses.

        An operation of LiteRT includes the BatchNorm and the ReLU or ReLU6 behind it, so that is
        what comes out; hard-swish and sigmoid are operations of their own.

        Returns:
            By module, (N, H, W, C) for convolutions and (N, C) for linear layers.
        """
        path = folder / self.main_file
        with opening(path):
            interpreter = tflite_file.interpreter(path, keep=True)
            tensors = {d["name"]: d for d in reversed(interpreter.get_tensor_details())}
        places = {layer.module: tensors[layer.node] for layer in layers if layer.node in tensors}
        entry = interpreter.get_input_details()[0]["index"]
        got: dict[str, list[NDArray[np.float32]]] = {module: [] for module in places}
        for image in inputs:
            interpreter.set_tensor(entry, image[None])
            interpreter.invoke()
            for module, detail in places.items():
                got[module].append(_real(interpreter.get_tensor(detail["index"]), detail))
        return {module: np.concatenate(rows) for module, rows in got.items() if rows}

    def snippet(self, written: Written, classes: Sequence[str]) -> str:
        """Return a script for ai_edge_litert or tflite_runtime, in the syntax of Python 3.8."""
        return snippets_tflite.script(written, classes)

    def versions(self) -> dict[str, str]:
        """Return the versions of torch, converter, quantiser and runtime."""
        return installed_versions(
            "torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"
        )


def _import_converter() -> Any:
    """Import litert-torch quietly, telling a missing package from a missing build."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import litert_torch
    except ModuleNotFoundError as error:
        machine = f"{platform.system()} {platform.machine()}"
        if error.name == "litert_torch" and machine != "Linux x86_64":
            raise ConversionFailed(
                f"the TFLite converter has no build for {machine}",
                hint="convert on x86-64 Linux and copy the folder here; the file runs anywhere",
            ) from error
        raise
    return litert_torch


def _real(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    """Return a tensor as real numbers; what an operation gives has one scale."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)

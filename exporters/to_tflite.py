"""LiteRT (TensorFlow Lite): converted from torch by litert-torch, with NHWC input."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import (
    Form,
    Session,
    Written,
    check_signature,
    installed_versions,
    opening,
    plain_copy,
)

if TYPE_CHECKING:
    import torch

# Set before the converter's first import. jax, which it brings along, must not look for
# accelerators; both libraries chat on stderr. (Its model hubs are never imported on this path.)
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "LITERT_TORCH_SHOW_PROGRESS": "n",
}


class TfliteExporter:
    """Write and run ``model.tflite``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "tflite"
    layout: Literal["NCHW", "NHWC"] = "NHWC"
    main_file = "model.tflite"
    needs = ("torch", "litert_torch", "ai_edge_litert")

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.tflite`` taking (1, height, width, 3).

        Raises:
            ConversionFailed: No file, other shapes, or no converter for this machine.
        """
        litert_torch = _import_converter()
        import torch

        shape = (1, spec.height, spec.width, 3)
        # the transposes at the input cancel against those of the first convolution
        nhwc = litert_torch.to_channel_last_io(plain_copy(module), args=[0]).eval()
        path = folder / self.main_file
        path.unlink(missing_ok=True)
        litert_torch.convert(nhwc, (torch.zeros(shape),)).export(str(path))
        if not path.is_file():
            raise ConversionFailed(f"litert-torch wrote no {path}")
        interpreter = _open(path)
        ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        shapes = tuple(tuple(int(n) for n in end["shape"]) for end in ends)
        check_signature("the LiteRT model", shapes, shape)
        return Written([self.main_file], spec.with_layout(self.layout))

    def open(self, folder: Path) -> Session:
        """Run ``model.tflite`` with the LiteRT interpreter (XNNPACK kernels)."""
        path = folder / self.main_file
        with opening(path):
            interpreter = _open(path)
        entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

        def infer(image: NDArray[np.float32]) -> NDArray[np.float32]:
            interpreter.set_tensor(entry["index"], image)
            interpreter.invoke()
            return interpreter.get_tensor(result["index"])

        return Session(tuple(int(n) for n in entry["shape"]), "float32", infer)

    def versions(self) -> dict[str, str]:
        """Return the versions of torch, litert-torch, its converter and ai-edge-litert."""
        return installed_versions("torch", "litert-torch", "litert-converter", "ai-edge-litert")


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


def _open(path: Path) -> Any:
    """Open a file for inference on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter

"""OpenVINO IR, converted from the torch module itself.

Not by way of ONNX: that route drops ``antialias`` of resize layers without a word.
"""

from __future__ import annotations

import sys
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
    INPUT_NAME,
    OUTPUT_NAME,
    check_signature,
    installed_versions,
    opening,
    plain_copy,
)

if TYPE_CHECKING:
    import torch


class OpenvinoExporter:
    """Write and run ``model.xml``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "openvino"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    main_file = "model.xml"
    needs = ("torch", "openvino")
    weights_file = "model.bin"

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.xml`` and ``model.bin`` with float32 weights."""
        openvino = _import_openvino()
        import torch

        shape = (1, 3, spec.height, spec.width)
        model = openvino.convert_model(
            plain_copy(module), example_input=torch.zeros(shape), input=[list(shape)]
        )
        ends = [*model.inputs, *model.outputs]
        shapes = tuple(
            tuple(end.get_shape()) if end.partial_shape.is_static else () for end in ends
        )
        check_signature("the OpenVINO model", shapes, shape)
        _normalise_names(model)
        # save_model halves the weights to float16 unless told otherwise
        openvino.save_model(model, folder / self.main_file, compress_to_fp16=False)
        names = [self.main_file, self.weights_file]
        for name in names:
            if not (folder / name).is_file() or (folder / name).stat().st_size == 0:
                raise ConversionFailed(f"OpenVINO wrote no {name} in {folder}")
        return Written(names, spec.with_layout(self.layout))

    def open(self, folder: Path) -> Session:
        """Run ``model.xml`` with the CPU plugin held to float32.

        By default the plugin computes in bfloat16 where the processor can: a hundred times the
        error of a faithful export, which would hide a broken one.

        Raises:
            ConversionFailed: The plugin does not accept the precision.
        """
        openvino = _import_openvino()
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
        }
        core = openvino.Core()
        path = folder / self.main_file
        with opening(path):
            compiled = core.compile_model(path, "CPU", config)
        precision = compiled.get_property("INFERENCE_PRECISION_HINT")
        if precision != openvino.Type.f32:
            raise ConversionFailed(f"OpenVINO runs in {precision}, asked for f32")
        request = compiled.create_infer_request()
        return Session(
            tuple(compiled.input(0).shape), "float32", lambda x: request.infer({0: x})[0]
        )

    def versions(self) -> dict[str, str]:
        """Return the versions of torch and openvino."""
        return installed_versions("torch", "openvino")


def _import_openvino() -> Any:
    """Import openvino without its telemetry.

    The package openvino-telemetry, which openvino requires, sends an event for each conversion
    unless the user opted out on this machine. openvino imports it inside ``try`` and falls back
    to a stub of its own, so an entry of None, which makes the import fail, turns it off before
    any code of it runs. If another library imported openvino first, the modules that hold the
    real package are given the stub instead.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino
    from openvino.tools.ovc import telemetry_stub

    for name, loaded in list(sys.modules.items()):
        if name.startswith("openvino.") and hasattr(loaded, "tm"):
            vars(loaded)["tm"] = telemetry_stub
    return openvino


def _normalise_names(model: Any) -> None:
    """Name the ends, and number the layers by their position in the graph.

    Automatic names carry a process-wide counter, so the same net converted later in a process
    would get other bytes; the position is the same every time.
    """
    for place, layer in enumerate(model.get_ordered_ops()):
        layer.set_friendly_name(f"{layer.get_type_name()}_{place}")
        for port in layer.outputs():
            port.get_tensor().set_names(set())
    model.inputs[0].get_tensor().set_names({INPUT_NAME})
    model.inputs[0].get_node().set_friendly_name(INPUT_NAME)
    model.outputs[0].get_tensor().set_names({OUTPUT_NAME})
    model.set_friendly_name("model")

"""ONNX: PyTorch's dynamo exporter, one self-contained file, run with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
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
    import onnx
    import torch

OPSET = 18  # the lowest the dynamo exporter honours, so the one most runtimes read


class OnnxExporter:
    """Write and run ``model.onnx``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "onnx"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    main_file = "model.onnx"
    needs = ("torch", "onnx", "onnxscript", "onnxruntime")

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.onnx`` with weights inside and no private metadata."""
        import onnx
        import onnxscript  # noqa: F401  the exporter needs it; without it, fail by its name
        import torch

        shape = (1, 3, spec.height, spec.width)
        program = torch.onnx.export(
            plain_copy(module),
            (torch.zeros(shape),),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            external_data=False,
            optimize=True,
            verbose=False,
        )
        if program is None:
            raise ConversionFailed("torch.onnx.export returned no program")
        model = program.model_proto
        _strip(model)
        _check(model, shape)
        onnx.checker.check_model(model, full_check=True)
        # the seal is over the bytes, so they must not depend on the order of map fields
        files.write_bytes(folder / self.main_file, model.SerializeToString(deterministic=True))
        return Written([self.main_file], spec.with_layout(self.layout))

    def open(self, folder: Path) -> Session:
        """Run ``model.onnx`` with ONNX Runtime's CPU provider."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # one thread adds in one order: the same logits on every run
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = folder / self.main_file
        with opening(path):
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        entry = session.get_inputs()[0]
        return Session(
            tuple(entry.shape),
            "float32",
            lambda x: np.asarray(session.run(None, {entry.name: x})[0]),
        )

    def versions(self) -> dict[str, str]:
        """Return the versions of torch, onnx, onnxscript and onnxruntime."""
        return installed_versions("torch", "onnx", "onnxscript", "onnxruntime")


def _strip(model: onnx.ModelProto) -> None:
    """Remove metadata and documentation strings.

    The exporter stores Python stack traces with absolute paths (hence user names) on every
    node: private, useless to a runtime, and different bytes on every machine.
    """
    graphs: list[Any] = [model.graph, *model.functions]
    carriers: list[Any] = [model, *graphs]
    for graph in graphs:
        carriers += [*graph.node, *graph.value_info]
    carriers += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for carrier in carriers:
        carrier.ClearField("metadata_props")
        carrier.ClearField("doc_string")


def _check(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Compare the result with what was asked: the exporter may change both without an error."""
    opsets = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    if opsets != {"ai.onnx": OPSET}:
        raise ConversionFailed(
            f"the ONNX exporter wrote opset {opsets}, asked for {OPSET}",
            hint="install the torch and onnxscript versions that 'edgessl doctor' accepts",
        )
    ends = [*model.graph.input, *model.graph.output]
    if [end.name for end in ends] != [INPUT_NAME, OUTPUT_NAME]:
        raise ConversionFailed(f"the ONNX graph ends are {[end.name for end in ends]}")
    shapes = (tuple(d.dim_value for d in end.type.tensor_type.shape.dim) for end in ends)
    check_signature("the ONNX graph", tuple(shapes), shape)

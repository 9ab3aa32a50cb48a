"""An OpenVINO graph in memory: import without telemetry, names, weights, files.

openvino is imported inside functions; graphs are ``Any``, as the package has no types for most
of what is used here.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import INPUT_NAME, OUTPUT_NAME

MODEL, WEIGHTS = "model.xml", "model.bin"
FILES = [MODEL, WEIGHTS]

# true float32: by default the CPU plugin computes in bfloat16 where the processor can, with a
# hundred times the error of a faithful export, which would hide a broken one
TRUE_FLOAT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def import_openvino() -> Any:
    """Import openvino without its telemetry.

    The package openvino-telemetry, which openvino requires, sends an event for each conversion
    unless the user opted out on this machine. openvino imports it inside ``try`` and falls back
    to a stub of its own, so an entry of None, which makes the import fail, turns it off before
    any code of it runs; NNCF does the same. If another library imported openvino first, the
    modules that hold the real package are given the stub instead.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino
    from openvino.tools.ovc import telemetry_stub

    for name, loaded in list(sys.modules.items()):
        if name.startswith("openvino.") and hasattr(loaded, "tm"):
            vars(loaded)["tm"] = telemetry_stub
    return openvino


def convert(module: Any, example: Any, shape: list[int]) -> Any:
    """Return the graph of a torch module; -1 in ``shape`` stands for any size.

    From the module itself and not by way of ONNX: that route drops ``antialias`` of resize
    layers without a word.
    """
    openvino = import_openvino()
    with warnings.catch_warnings():
        # the converter traces, which torch deprecates; nothing for the user to do
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        return openvino.convert_model(module, example_input=example, input=[shape])


def read(path: Path, *, mapped: bool = True) -> Any:
    """Read a graph; ``mapped`` keeps the weights on disk, so that it must not be overwritten."""
    core = import_openvino().Core()
    core.set_property({"ENABLE_MMAP": mapped})
    return core.read_model(path)


def tidied(model: Any, names: Mapping[str, str]) -> Any:
    """Return the same graph without the traces of how it was made.

    Automatic names carry a process-wide counter, so the same net converted later in a process
    would get other bytes; the position is the same every time. The notes of converters (their
    version, parameters and source files) stay behind in the old graph.

    Args:
        model: Graph of one input and one output; its operations go into the new one.
        names: New names of operations by their present ones; all others are numbered.
    """
    openvino = import_openvino()
    for place, node in enumerate(model.get_ordered_ops()):
        auto = f"{node.get_type_name()}_{place}"
        node.set_friendly_name(names.get(node.get_friendly_name(), auto))
        for port in node.outputs():
            port.get_tensor().set_names(set())
    model.inputs[0].get_tensor().set_names({INPUT_NAME})
    model.inputs[0].get_node().set_friendly_name(INPUT_NAME)
    model.outputs[0].get_tensor().set_names({OUTPUT_NAME})
    results, sinks, parameters = model.get_results(), model.get_sinks(), model.get_parameters()
    return openvino.Model(results, sinks, parameters, "model")


def save(model: Any, folder: Path, *, half: bool = False) -> None:
    """Write ``model.xml`` and ``model.bin``, with float16 weights if ``half``.

    They are written beside and then put in place, so that a graph can replace its own files.

    Raises:
        ConversionFailed: A file was not written.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".openvino-") as name:
        # save_model halves the weights unless told otherwise
        openvino.save_model(model, Path(name) / MODEL, compress_to_fp16=half)
        for file in FILES:
            written = Path(name) / file
            if not written.is_file() or written.stat().st_size == 0:
                raise ConversionFailed(f"OpenVINO wrote no {file}")
        for file in FILES:
            (Path(name) / file).replace(folder / file)


def shapes(model: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all inputs, then of all outputs; 0 where a side is not fixed."""
    ends = [*model.inputs, *model.outputs]
    return tuple(
        tuple(side.get_length() if side.is_static else 0 for side in end.get_partial_shape())
        for end in ends
    )


def layer_weights(model: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """List convolutions and products with constants of a float graph in execution order.

    Returns:
        Name, and weights (O, K), the K in the order (input channel of its group, row, column).
    """
    found = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Convolution", "GroupConvolution", "MatMul"):
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        weights = constant.data
        if kind == "MatMul" and not node.get_attributes()["transpose_b"]:
            weights = weights.T
        if kind == "GroupConvolution":  # (groups, O of a group, ...)
            weights = weights.reshape(-1, *weights.shape[2:])
        rows = weights.reshape(len(weights), -1).astype(np.float32)
        found.append((node.get_friendly_name(), rows))
    return found


def node_named(model: Any) -> dict[str, Any]:
    """Return the operations of a graph by name."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def before(model: Any, name: str) -> list[str]:
    """Return the operations whose results reach the input of an operation; no constants."""
    found: dict[str, None] = {}
    waiting = [node_named(model)[name].input_value(0).get_node()]
    while waiting:
        node = waiting.pop()
        if node.inputs() and node.get_friendly_name() not in found:
            found[node.get_friendly_name()] = None
            waiting += [node.input_value(side).get_node() for side in range(len(node.inputs()))]
    return list(found)


def with_bias(node: Any) -> Any:
    """Return the output of a layer: after its bias, which is an addition of its own."""
    targets = list(node.output(0).get_target_inputs())
    after = targets[0].get_node() if len(targets) == 1 else node
    if after.get_type_name() == "Add":
        # a float16 bias is converted first
        sources = [after.input_value(side).get_node() for side in range(2)]
        sources = [s.input_value(0).get_node() if _is(s, "Convert") else s for s in sources]
        if any(_is(source, "Constant") for source in sources):
            return after.output(0)
    return node.output(0)


def compiled(model: Any) -> Any:
    """Compile for one thread of the CPU in true float32.

    Raises:
        ConversionFailed: The plugin does not accept the precision.
    """
    openvino = import_openvino()
    ready = openvino.Core().compile_model(model, "CPU", TRUE_FLOAT)
    precision = ready.get_property("INFERENCE_PRECISION_HINT")
    if precision != openvino.Type.f32:
        raise ConversionFailed(f"OpenVINO runs in {precision}, asked for f32")
    return ready


def _is(node: Any, kind: str) -> bool:
    return node.get_type_name() == kind


def stored_type(port: Any) -> str:
    """Return the type of the constant that a value is computed from, ``f32`` for example."""
    node = port.get_node()
    while not _is(node, "Constant"):
        if not node.inputs():
            return "nothing"
        node = node.input_value(0).get_node()
    return str(node.get_output_element_type(0).get_type_name())

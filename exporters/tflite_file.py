"""LiteRT flatbuffers, read and rewritten with the schema that ships with the runtime.

The converter calls a tensor after every module, class and operation it passed through: hundreds of
letters, some of them the user's own class names. Here a tensor gets a short name, and weights
start at multiples of 16 bytes, as the schema asks but neither the converter nor the Python
packer sees to (processors without unaligned loads depend on it).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import ConversionFailed, FileInvalid
from edgessl.exporters.base import INPUT_NAME, OUTPUT_NAME, Layer

MAGIC = b"TFL3"
LARGEST = 2**31 - 1  # offsets inside the format are signed 32-bit numbers
ALIGNMENT = 16
# which runtime a file needs; nothing else that a converter notes is kept
KEPT_METADATA = (b"min_runtime_version",)
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
LAYER_KINDS = (*CONVOLUTIONS, "FULLY_CONNECTED")


@dataclass(frozen=True, slots=True)
class Operator:
    """One operation; tensors are those of the schema, absent optional inputs are None.

    Attributes:
        kind: Name in the schema: ``CONV_2D``.
        inputs: Data first, then weights and bias.
        outputs: At least one.
    """

    kind: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def node(self) -> str:
        """Name of the first output: operations themselves have none."""
        return self.outputs[0].name.decode()


def load(source: Path | bytes) -> Any:
    """Return the model as objects of the schema, weights inline.

    Args:
        source: A file, or what would be in it.

    Raises:
        FileInvalid: Not a LiteRT file, or not one graph.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = source.read_bytes() if isinstance(source, Path) else source
    if len(content) > LARGEST or content[4:8] != MAGIC:
        raise FileInvalid(f"{len(content)} bytes that are no LiteRT model", hint="export it again")
    try:
        model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        for buffer in model.buffers:
            if buffer.offset > 1:  # weights that were put behind the flatbuffer
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        (_,) = model.subgraphs
    except Exception as error:
        raise FileInvalid(f"a LiteRT model that cannot be read: {error}") from error
    return model


def save(model: Any, path: Path) -> None:
    """Write a model: equal models give equal bytes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(schema.BufferT):
        def Pack(self, builder: Any) -> Any:
            # the packer builds from the end; the vector that follows needs no padding then
            builder.Prep(ALIGNMENT, 0 if self.data is None else len(self.data))
            return super().Pack(builder)

    _drop_unused_buffers(model)
    model.buffers = [Aligned(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(sum(0 if b.data is None else len(b.data) for b in model.buffers))
    builder.Finish(model.Pack(builder), file_identifier=MAGIC)
    files.write_bytes(path, bytes(builder.Output()))


def interpreter(path: Path, *, keep: bool = False) -> Any:
    """Open a file for inference on one thread.

    Args:
        path: The file.
        keep: Leave what every operation gives in memory until the next run. The kernels are the
            same; only their buffers are not shared.
    """
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():  # about the memory that this takes
        warnings.simplefilter("ignore")
        opened = Interpreter(
            model_path=str(path), num_threads=1, experimental_preserve_all_tensors=keep
        )
    opened.allocate_tensors()
    return opened


def layer_types(model: Any) -> dict[str, tuple[str, str]]:
    """Return the types of the stored weights and of the output of every layer, by node.

    Weights that are int8 but not per output channel are told as ``INT8 per tensor``.
    """
    steps = list(operators(model))
    source = {id(step.outputs[0]): step for step in steps}
    found = {}
    for step in steps:
        if step.kind not in LAYER_KINDS or step.inputs[1] is None:
            continue
        weights, given = step.inputs[1], step.outputs[0]
        if (origin := source.get(id(weights))) is not None and origin.kind == "DEQUANTIZE":
            weights = origin.inputs[0]
        stored, channels = type_name(weights), given.shape[-1]
        if stored == "INT8" and len(weights.quantization.scale) != channels:
            stored = "INT8 per tensor"
        found[step.node] = (stored, type_name(given))
    return found


def type_name(tensor: Any) -> str:
    """Return the type of a tensor as the schema names it: ``FLOAT32``."""
    from ai_edge_litert.schema_py_generated import TensorType

    return {code: name for name, code in vars(TensorType).items()}[tensor.type]


def activations(model: Any) -> list[tuple[str, str]]:
    """Return name and type of the input and of every output of an operation."""
    (graph,) = model.subgraphs
    tensors = [graph.tensors[i] for i in graph.inputs]
    tensors += [tensor for step in operators(model) for tensor in step.outputs]
    return [(tensor.name.decode(), type_name(tensor)) for tensor in tensors]


def operators(model: Any) -> Iterator[Operator]:
    """Yield the operations in the order of execution."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    names = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
    (graph,) = model.subgraphs

    def tensors(indices: Sequence[int]) -> tuple[Any, ...]:
        return tuple(None if i < 0 else graph.tensors[i] for i in indices)

    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        yield Operator(kind, tensors(operator.inputs), tensors(operator.outputs))


def layer_weights(model: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """Return output name and weights (O, K) of every layer whose weights are float32.

    K runs over input channel, row, column, as in PyTorch; the file has channels last, and
    depthwise weights as (1, rows, columns, O).
    """
    found = []
    for operator in operators(model):
        weights = operator.inputs[1] if operator.kind in LAYER_KINDS else None
        if weights is None or type_name(weights) != "FLOAT32":
            continue
        if (data := model.buffers[weights.buffer].data) is None:
            continue
        array = data.view(np.float32).reshape(weights.shape)
        if operator.kind == "DEPTHWISE_CONV_2D":
            array = array.transpose(3, 0, 1, 2)
        elif operator.kind == "CONV_2D":
            array = array.transpose(0, 3, 1, 2)
        found.append((operator.node, array.reshape(len(array), -1)))
    return found


def tidy(model: Any, layers: Sequence[Layer] = ()) -> list[Layer]:
    """Give a converted model short names, and drop what the converter noted about itself.

    Outputs of layers are called like their modules, their constants ``<module>.weight`` and
    ``<module>.bias``; other tensors after the operation that gives them.

    Args:
        model: Changed in place.
        layers: What was recognised, under the converter's names.

    Returns:
        The layers under their new names.

    Raises:
        ConversionFailed: The model has no signature, or not one input and one output.
    """
    (graph,) = model.subgraphs
    ends = [(s.inputs, s.outputs) for s in model.signatureDefs or []]
    if [(len(given), len(got)) for given, got in ends] != [(1, 1)]:
        raise ConversionFailed("the converter wrote a model without one input and one output")
    model.description = None
    keep_metadata(model, KEPT_METADATA)
    by_node = {layer.node: layer for layer in layers}
    named: dict[int, str] = {}  # by identity: tensors have no other
    taken: set[str] = set()

    def name(tensor: Any, wish: str) -> None:
        if tensor is None or id(tensor) in named:
            return
        new, copies = wish, 1
        while new in taken:
            copies += 1
            new = f"{wish}_{copies}"
        taken.add(new)
        named[id(tensor)] = new

    steps = list(operators(model))
    own = [step for step in steps if step.node in by_node]
    for step in own:  # modules first: nothing else may take their names
        name(step.outputs[0], by_node[step.node].module)
    for step in own:
        for tensor, part in zip(step.inputs[1:], ("weight", "bias"), strict=False):
            name(tensor, f"{by_node[step.node].module}.{part}")
    name(graph.tensors[graph.inputs[0]], INPUT_NAME)
    name(graph.tensors[graph.outputs[0]], OUTPUT_NAME)
    for step in steps:
        for tensor in (*step.outputs, *step.inputs):
            constant = tensor is not None and model.buffers[tensor.buffer].data is not None
            name(tensor, "constant" if constant else step.kind.lower())
    renamed = [replace(by_node[s.node], node=named[id(s.outputs[0])]) for s in own]
    graph.tensors = list(graph.tensors)
    for place, tensor in enumerate(graph.tensors):
        tensor.name = named.get(id(tensor), f"unused_{place}").encode()
    graph.name = b"main"
    ends[0][0][0].name, ends[0][1][0].name = INPUT_NAME.encode(), OUTPUT_NAME.encode()
    return renamed


def need_version(model: Any, kind: str, version: int) -> None:
    """Have runtimes refuse the file unless they know this version of an operation."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    for code in model.operatorCodes:
        if code.builtinCode == getattr(BuiltinOperator, kind):
            code.version = max(code.version, version)


def keep_metadata(model: Any, keys: Sequence[bytes]) -> None:
    """Drop all metadata of the file but some."""
    model.metadata = [entry for entry in model.metadata or [] if entry.name in keys]


def set_metadata(model: Any, key: str, text: str) -> None:
    """Store a text under a key, in place of what is there."""
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT

    others = [entry for entry in model.metadata or [] if entry.name != key.encode()]
    model.buffers = [*model.buffers, BufferT(np.frombuffer(text.encode(), np.uint8))]
    model.metadata = [*others, MetadataT(key.encode(), len(model.buffers) - 1)]


def get_metadata(model: Any, key: str) -> str | None:
    """Return the text under a key, or None.

    Raises:
        FileInvalid: It is not UTF-8.
    """
    for entry in model.metadata or []:
        if entry.name == key.encode() and model.buffers[entry.buffer].data is not None:
            try:
                return model.buffers[entry.buffer].data.tobytes().decode()
            except UnicodeDecodeError as error:
                raise FileInvalid(f"the file's metadata {key!r} is not text") from error
    return None


def _drop_unused_buffers(model: Any) -> None:
    """Keep each buffer that something points to, once; buffer 0 is the empty one."""
    kept = [type(model.buffers[0])()]
    places: dict[int, int] = {}
    for owner in (*model.subgraphs[0].tensors, *(model.metadata or [])):
        data = model.buffers[owner.buffer].data
        if data is None or len(data) == 0:
            owner.buffer = 0
            continue
        if owner.buffer not in places:
            places[owner.buffer] = len(kept)
            kept.append(model.buffers[owner.buffer])
        owner.buffer = places[owner.buffer]
    model.buffers = kept

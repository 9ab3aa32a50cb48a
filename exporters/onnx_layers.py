"""The layers of an ONNX graph: which nodes they are, what they are called, what they give."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

LAYER_OPS = ("Conv", "Gemm", "MatMul")
NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules of a node


def name_nodes(model: onnx.ModelProto, prefix: str = "") -> None:
    """Name each node after its PyTorch module: ``features.0.2/HardSwish``.

    Args:
        model: As the exporter wrote it, with its notes.
        prefix: Module that stands around the plain net; left out of the names.
    """
    for node in model.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get(NAME_SCOPES, "[]"))
        # the last one is the operation inside its module
        module = scopes[-2] if len(scopes) > 1 else ""
        rename(node, f"{module}.".removeprefix(f"{prefix}.").removesuffix("."))
    make_names_unique(model)


def rename(node: onnx.NodeProto, module: str) -> None:
    """Name one node after a module."""
    node.name = f"{module}/{node.op_type}" if module else node.op_type


def make_names_unique(model: onnx.ModelProto) -> None:
    """Add a number to node names that were there before, from the second on."""
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        seen[node.name] += 1
        if seen[node.name] > 1:
            node.name = f"{node.name}_{seen[node.name]}"


def layer_weights(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, NDArray[np.floating]]]:
    """List convolutions and products with constant weights, in the order of execution.

    Returns:
        Each node with its weights (O, K): one row for an output channel.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in LAYER_OPS or node.input[1] not in constants:
            continue
        weights = onnx.numpy_helper.to_array(constants[node.input[1]])
        rows_first = node.op_type == "Conv" or any(
            a.name == "transB" and a.i for a in node.attribute
        )
        if not rows_first:
            weights = weights.T
        found.append((node, weights.reshape(len(weights), -1)))
    return found


# what ONNX Runtime fuses into the layer before it
FUSED_BEHIND = (
    "Relu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip


def operation_modules(model: onnx.ModelProto) -> dict[str, str]:
    """Return the module of every node and of every tensor, by their names.

    An activation right behind a layer counts as that layer, as runtimes fuse the two and name the
    result after either.
    """
    maker = {tensor: node for node in model.graph.node for tensor in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        origin, steps = node, 0
        while origin.op_type in FUSED_BEHIND and origin.input[0] in maker and steps < 4:
            origin, steps = maker[origin.input[0]], steps + 1
        if origin.op_type not in LAYER_OPS:
            origin = node
        module = origin.name.rpartition("/")[0]
        if module:
            found |= dict.fromkeys([node.name, *node.output], module)
    return found


def nodes_before(model: onnx.ModelProto, layers: set[str]) -> list[str]:
    """Return the nodes in front of the first layer: what preprocessing put there."""
    names = [node.name for node in model.graph.node]
    return names[: min((names.index(layer) for layer in layers), default=0)]


def result_of(model: onnx.ModelProto, node: str, fused: tuple[str, ...]) -> str:
    """Return the tensor that others read as the result of a node.

    Args:
        model: Any model.
        node: Name of the node.
        fused: Operators right behind it that count as part of it.

    Returns:
        What its only reader of those gives, and, where it is rounded next, the rounded values as
        real numbers; integers are left to the graph's own end.
    """
    given = {end.name for end in model.graph.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for reader in model.graph.node:
        for name in reader.input:
            readers.setdefault(name, []).append(reader)
    tensor = next(n.output[0] for n in model.graph.node if n.name == node)
    for wanted in (fused, ("QuantizeLinear",), ("DequantizeLinear",)):
        behind = readers.get(tensor, [])
        # pairs of their own for each reader are all alike
        alone = len(behind) == 1 or wanted == ("QuantizeLinear",)
        fits = bool(behind) and alone and all(reader.op_type in wanted for reader in behind)
        if fits and not (wanted == ("QuantizeLinear",) and behind[0].output[0] in given):
            tensor = behind[0].output[0]
    return tensor

"""What is done to an ONNX graph whatever its precision: opset, cleaning, checks.

Nothing here knows of PyTorch or of a runtime; models are changed in place.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.core import files
from edgessl.core.errors import ConversionFailed, FileInvalid
from edgessl.exporters.base import INPUT_NAME, OUTPUT_NAME, check_signature

if TYPE_CHECKING:
    import onnx


def load(path: Path) -> onnx.ModelProto:
    """Read a file; nothing outside it is opened, whatever it refers to.

    Raises:
        FileInvalid: It is not there, is no ONNX file, or keeps tensors elsewhere.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:
        cause = "no such file" if isinstance(error, OSError) else "it is no whole ONNX file"
        raise FileInvalid(
            f"{path.name} cannot be read: {cause}", hint="export it again: edgessl export"
        ) from error
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise FileInvalid(f"{path.name} keeps weights in other files, which are not read")
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a file whole; equal models give equal bytes."""
    # the seal is over the bytes, so they must not depend on the order of map fields
    files.write_bytes(path, model.SerializeToString(deterministic=True))


def finish(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a clean and checked model: the last step before it is written.

    The exporter stores Python stack traces with absolute paths (hence user names) on every
    node: private, useless to a runtime, and different bytes on every machine. Quantisers
    declare operator sets that no node uses, which picky parsers refuse.

    Raises:
        ConversionFailed: ONNX's own checker refuses the model.
    """
    import onnx

    strip(model)
    drop_unused_initializers(model)  # a runtime would warn of each
    sort_nodes(model)
    domains = {node.domain for node in model.graph.node}
    used = [item for item in model.opset_import if item.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(sorted(used, key=lambda item: item.domain))
    model.ir_version = onnx.helper.find_min_ir_version_for(used, ignore_unknown=True)
    model.producer_name, model.producer_version = "edgessl", ""
    model.graph.name = "model"
    del model.graph.value_info[:]
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise ConversionFailed(f"the ONNX graph is not valid: {cause}") from error
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove metadata and documentation strings from every part of a model."""
    graphs: list[Any] = [model.graph, *model.functions]
    carriers: list[Any] = [model, *graphs]
    for graph in graphs:
        carriers += [*graph.node, *graph.value_info]
    carriers += [*model.graph.input, *model.graph.output, *model.graph.initializer]
    for carrier in carriers:
        carrier.ClearField("metadata_props")
        carrier.ClearField("doc_string")


def pool_globally(model: onnx.ModelProto) -> None:
    """Write means over height and width as GlobalAveragePool, which they are.

    The exporter writes ReduceMean. ONNX Runtime has no 8-bit kernel for it, opset 18 gave it
    another form, and TensorRT 8.5 and 8.6 overlook that form's axes: they average everything.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rank = {info.name: len(info.type.tensor_type.shape.dim) for info in model.graph.value_info}
    nodes = []
    for node in model.graph.node:
        nodes.append(_copied(node))
        if node.op_type != "ReduceMean" or rank.get(node.input[0]) != 4:
            continue
        axes = constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is None or sorted(onnx.numpy_helper.to_array(axes) % 4) != [2, 3]:
            continue
        keep = all(a.i for a in node.attribute if a.name == "keepdims")
        pool = onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]])
        pool.metadata_props.extend(node.metadata_props)
        nodes[-1:] = [pool]
        if not keep:
            pool.output[0] += "_pooled"
            flat = onnx.helper.make_node("Flatten", [pool.output[0]], [node.output[0]], axis=1)
            flat.metadata_props.extend(node.metadata_props)
            nodes.append(flat)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_initializers(model)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put nodes behind those that they read from, as ONNX demands; quantisers append at the end.

    Nodes that are in order already keep it.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    ordered: list[onnx.NodeProto] = []
    placed: set[str] = set()
    for last in model.graph.node:
        waiting = [last]
        while waiting:
            node = waiting[-1]
            before = [n for n in node.input if n in made_by and made_by[n].output[0] not in placed]
            waiting += [made_by[name] for name in reversed(before)]
            if not before:
                waiting.pop()
                if node.output[0] not in placed:
                    placed.add(node.output[0])
                    ordered.append(node)
    ordered = [_copied(node) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = type(node)()
    copy.CopyFrom(node)
    return copy


def flatten_reshapes(model: onnx.ModelProto) -> None:
    """Write a Reshape from (B, C, H, W) to (B, C * H * W) as Flatten, which it is.

    With a dynamic batch the exporter computes its shape in five more nodes.
    """
    import onnx

    shapes = {
        info.name: [size.dim_value for size in info.type.tensor_type.shape.dim]
        for info in (*model.graph.value_info, *model.graph.output)
    }
    for node in model.graph.node:
        before, after = (shapes.get(name, []) for name in (node.input[0], node.output[0]))
        whole = len(before) == 4 and len(after) == 2 and all(before[1:])
        if node.op_type == "Reshape" and whole and math.prod(before[1:]) == after[1]:
            node.op_type = "Flatten"
            del node.input[1:]
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", 1))
    drop_unused_nodes(model)


def drop_unused_nodes(model: onnx.ModelProto) -> None:
    """Remove the nodes whose results nobody reads, and the constants that only they read."""
    used = {end.name for end in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(_copied(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    drop_unused_initializers(model)


def drop_unused_initializers(model: onnx.ModelProto) -> None:
    """Remove the constants that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operator set."""
    return next((item.version for item in model.opset_import if item.domain == ""), 0)


def lower_opset(model: onnx.ModelProto, opset: int) -> None:
    """Declare an older opset, where every operator of the graph is the same in both.

    Raises:
        ConversionFailed: An operator is newer than that or changed since; names it.
    """
    import onnx

    now = opset_of(model)
    for kind in sorted({node.op_type for node in model.graph.node}):
        since = onnx.defs.get_schema(kind, now).since_version
        if since > opset:
            raise ConversionFailed(
                f"opset {opset} cannot express this net: its {kind} is that of opset {since}",
                hint=f"ask for opset {since} or higher, or leave the opset to the target",
            )
    for item in model.opset_import:
        if item.domain == "":
            item.version = opset


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model in ``opset`` where it is older.

    Raises:
        ConversionFailed: ONNX's converter did not do it.
    """
    import onnx

    if opset_of(model) >= opset:
        return model
    names = [node.name for node in model.graph.node]
    try:
        raised = onnx.version_converter.convert_version(model, opset)
    except Exception as error:
        raise ConversionFailed(f"opset {opset} was not reached: {error}") from error
    if opset_of(raised) != opset or [node.name for node in raised.graph.node] != names:
        raise ConversionFailed(
            f"raising the opset to {opset} changed the graph (opset {opset_of(raised)}, "
            f"{len(raised.graph.node)} nodes where there were {len(names)})",
            hint=f"write the float file in opset {opset}: --opset {opset}",
        )
    return raised


def check_ends(model: onnx.ModelProto, shape: tuple[int, ...], opset: int) -> None:
    """Compare a file with what was asked: the exporter may change it without an error.

    Args:
        model: As it will be written.
        shape: Of the input; 0 for any batch.
        opset: What was asked.

    Raises:
        ConversionFailed: Names, shapes or opset differ.
    """
    seen = {item.domain or "ai.onnx": item.version for item in model.opset_import}
    if seen != {"ai.onnx": opset}:
        raise ConversionFailed(
            f"the ONNX exporter wrote opset {seen}, asked for {opset}",
            hint="leave the opset to the target, or install the torch and onnxscript versions "
            "that 'edgessl doctor' accepts",
        )
    ends = [*model.graph.input, *model.graph.output]
    if [end.name for end in ends] != [INPUT_NAME, OUTPUT_NAME]:
        raise ConversionFailed(f"the ONNX graph ends are {[end.name for end in ends]}")
    shapes = (tuple(d.dim_value for d in end.type.tensor_type.shape.dim) for end in ends)
    check_signature("the ONNX graph", tuple(shapes), shape)

"""ONNX: PyTorch's dynamo exporter, one self-contained file, run with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec, OutputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters import onnx_ends, onnx_graph, onnx_layers, onnx_quantize, onnx_ranges
from edgessl.exporters.base import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    Form,
    Layer,
    Quantization,
    Scheme,
    Session,
    Written,
    installed_versions,
    opening,
    plain_copy,
)
from edgessl.exporters.onnx_runtime import open_session
from edgessl.exporters.snippets_onnx import script

if TYPE_CHECKING:
    import onnx
    import torch

LOWEST_EXPORTED = 18  # the dynamo exporter writes no older opset, whatever it is asked
LARGEST_BATCH = 1024
FUSED = ("Relu", "Clip")  # what follows a layer and disappears into it when it is quantised


class OnnxExporter:
    """Write, quantise and run ``model.onnx``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "onnx"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    main_file = "model.onnx"
    needs: tuple[str, ...] = ("torch", "onnx", "onnxscript", "onnxruntime")
    quantizes: ClassVar[dict[Quantization, tuple[str, ...]]] = {
        "dynamic": (), "fp16": (), "int8": (), "w8a16": (),
    }  # fmt: skip
    opset = LOWEST_EXPORTED  # so the one that most runtimes read
    styles: ClassVar[dict[Quantization, onnx_quantize.QdqStyle]] = {
        # ONNX Runtime has fast kernels on x86 for unsigned activations only
        "int8": onnx_quantize.QdqStyle("uint8"),
        "w8a16": onnx_quantize.QdqStyle("uint16"),
    }

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.onnx`` with weights inside and no private metadata.

        Nodes are named after the modules that they come from. An opset below 18 is reached from
        18, when every operator of the net is the same in both.
        """
        from edgessl.exporters.preprocess import NET

        opset = form.opset or self.opset
        model = self._converted(module, spec, form, max(opset, LOWEST_EXPORTED))
        onnx_graph.pool_globally(model)
        onnx_graph.flatten_reshapes(model)
        onnx_layers.name_nodes(model, prefix=NET if form.embed else "")
        layers = _matched(model, module, spec)
        if opset < LOWEST_EXPORTED:
            onnx_graph.lower_opset(model, opset)
        self._adapt(model)
        model = onnx_graph.finish(model)
        taken = _input_spec(spec, form).with_layout("NHWC" if form.embed else self.layout)
        batch = 0 if form.dynamic_batch else 1
        onnx_graph.check_ends(model, (batch, *taken.shape[1:]), opset)
        self._check(model)
        onnx_graph.save(model, folder / self.main_file)
        return Written([self.main_file], taken, layers=layers)

    def _converted(
        self, module: torch.nn.Module, spec: InputSpec, form: Form, opset: int
    ) -> onnx.ModelProto:
        import onnxscript  # noqa: F401  the exporter needs it; without it, fail by its name
        import torch

        from edgessl.exporters.preprocess import embedded, example_input

        net = embedded(module, spec, form) if form.embed else plain_copy(module)
        # an example of one image would be taken for a constant
        example = example_input(spec, form, batch=2 if form.dynamic_batch else 1)
        batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},) if form.dynamic_batch else None,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=opset,
            external_data=False,
            optimize=True,
            verbose=False,
        )
        if program is None:
            raise ConversionFailed("torch.onnx.export returned no program")
        if (seen := onnx_graph.opset_of(program.model_proto)) != opset:
            raise ConversionFailed(
                f"the ONNX exporter wrote opset {seen}, asked for {opset}",
                hint="leave the opset to the target: without --opset",
            )
        return program.model_proto

    def _adapt(self, model: onnx.ModelProto) -> None:
        """Change what a target wants otherwise; nothing for ONNX itself."""

    def _check(self, model: onnx.ModelProto) -> None:
        """Hold a finished model against the rules of a target; ONNX's own are kept already."""

    def quantize(
        self, source: Path, written: Written, folder: Path, scheme: Scheme,
        calibration: NDArray[Any],
    ) -> Written:  # fmt: skip
        """Write a smaller copy.

        ``dynamic``: linear layers quantise their inputs while they run, convolutions compute in
        float32 from int8 weights. ``int8`` and ``w8a16``: Q/DQ pairs, weights in int8 per
        channel; ReLU and clipping move into the range of what comes before them.

        Raises:
            ConversionFailed: Integers in and out for something else than int8, a layer that is
                not in the file, or a result that is no valid ONNX.
        """
        if scheme.precision not in self.quantizes:
            raise ConversionFailed(
                f"this target offers no {scheme.precision}",
                hint=f"one of: none, {', '.join(self.quantizes)}",
            )
        if scheme.integer_io and scheme.precision != "int8":
            raise ConversionFailed(
                f"integers in and out go with int8, not with {scheme.precision}, in ONNX",
                hint="leave --integer-io out, or ask for --quantize int8",
            )
        model = onnx_graph.load(source / self.main_file)
        nodes = {layer.module: layer.node for layer in written.layers}
        if unknown := [name for name in scheme.float_layers if name not in nodes]:
            raise ConversionFailed(f"no layer {', '.join(unknown)} is in the file to stay float")
        float_nodes = [nodes[name] for name in scheme.float_layers]
        if written.input.takes_pixels:  # normalisation is exact in float, and cheap
            float_nodes += onnx_layers.nodes_before(model, set(nodes.values()))
        taken, given = written.input, written.output
        if scheme.precision == "fp16":
            small = onnx_quantize.to_float16(model, float_nodes)
        elif scheme.precision == "dynamic":
            small = onnx_quantize.to_dynamic(model, float_nodes)
        else:
            ranges = onnx_ranges.activation_ranges(model, calibration, scheme.calibration)
            style = self.styles[scheme.precision]
            small = onnx_quantize.to_qdq(model, ranges, style, float_nodes)
            if scheme.integer_io:
                taken, given = _integer_ends(small, taken, ranges)
            else:
                onnx_ends.keep_logits_float(small)
        self._adapt(small)
        layers = _found_again(model, small, written.layers)
        small = onnx_graph.finish(small)
        self._check(small)
        onnx_graph.save(small, folder / self.main_file)
        return Written([self.main_file], taken, given, layers)

    def describe(self, folder: Path, contract: str) -> None:
        """Store a JSON text under :data:`CONTRACT_KEY` in the model's ``metadata_props``."""
        model = onnx_graph.load(folder / self.main_file)
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = CONTRACT_KEY, contract
        onnx_graph.save(model, folder / self.main_file)

    def described(self, folder: Path) -> str | None:
        """Return that text; None when there is none."""
        model = onnx_graph.load(folder / self.main_file)
        return {entry.key: entry.value for entry in model.metadata_props}.get(CONTRACT_KEY)

    def open(self, folder: Path) -> Session:
        """Run ``model.onnx`` with ONNX Runtime's CPU provider."""
        path = folder / self.main_file
        with opening(path):
            session = open_session(str(path))
        entry = session.get_inputs()[0]
        kind = entry.type.removeprefix("tensor(").removesuffix(")")
        return Session(
            tuple(size if isinstance(size, int) else 0 for size in entry.shape),
            "float32" if kind == "float" else kind,
            lambda x: np.asarray(session.run(None, {entry.name: x})[0]),
        )

    def activations(
        self, folder: Path, layers: Sequence[Layer], inputs: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what layers give; a ReLU or clipping right behind a layer belongs to it.

        Quantisers move these into the layer, so only that can be compared between files. In Q/DQ
        files it is what the next layer reads: rounded, and real again.
        """
        model = onnx_graph.load(folder / self.main_file)
        tensors = {
            layer.module: onnx_layers.result_of(model, layer.node, FUSED) for layer in layers
        }
        names = list(dict.fromkeys(tensors.values()))
        session = onnx_ranges.session_with_outputs(model, names)
        rows: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for place in range(len(inputs)):
            image = np.ascontiguousarray(inputs[place : place + 1])
            for name, value in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
                rows[name].append(value)
        return {
            module: np.concatenate(rows[name]).astype(np.float32)
            for module, name in tensors.items()
        }

    def snippet(self, written: Written, classes: Sequence[str]) -> str:
        """Return ``example.py``: ONNX Runtime and numpy only."""
        return script(written, classes)

    def versions(self) -> dict[str, str]:
        """Return the versions of torch, onnx, onnxscript and onnxruntime."""
        return installed_versions("torch", "onnx", "onnxscript", "onnxruntime")


def _input_spec(spec: InputSpec, form: Form) -> InputSpec:
    from edgessl.exporters.preprocess import embedded_spec

    if form.embed:
        return embedded_spec(spec, form)
    return spec.model_copy(update={"dtype": "float32", "quantized": None, "raw": None})


def _matched(model: onnx.ModelProto, module: torch.nn.Module, spec: InputSpec) -> list[Layer]:
    """Find the layers of the net among the nodes and name these after them."""
    import torch

    from edgessl.exporters.layers import match, modules_in_order

    found = onnx_layers.layer_weights(model)
    example = torch.zeros(1, 3, spec.height, spec.width)
    modules = modules_in_order(plain_copy(module), example)
    matched = match(modules, [(node.name, weights) for node, weights in found])
    nodes = {node.name: node for node, _ in found}
    for layer in matched:
        onnx_layers.rename(nodes[layer.node], layer.module)
    onnx_layers.make_names_unique(model)
    return [Layer(layer.module, nodes[layer.node].name, layer.op) for layer in matched]


def _integer_ends(
    model: onnx.ModelProto, taken: InputSpec, ranges: dict[str, onnx_ranges.Range]
) -> tuple[InputSpec, OutputSpec]:
    """Let a Q/DQ model take and give integers; pixels stay pixels."""
    given = onnx_ends.give_uint8(model, ranges[OUTPUT_NAME])
    if not taken.takes_pixels:
        scale = onnx_ends.take_uint8(model, ranges[INPUT_NAME])
        taken = taken.model_copy(update={"dtype": "uint8", "quantized": scale})
    return taken, OutputSpec(dtype="uint8", quantized=given)


def _found_again(
    before: onnx.ModelProto, after: onnx.ModelProto, layers: Sequence[Layer]
) -> list[Layer]:
    """Return the layers with the nodes that give their results in another model.

    A quantiser that replaces a node by several keeps the name of what they give.
    """
    gave = {node.name: node.output[0] for node in before.graph.node}
    names = {node.name for node in after.graph.node}
    makers = {name: node.name for node in after.graph.node for name in node.output}
    return [
        Layer(x.module, x.node if x.node in names else makers[gave[x.node]], x.op) for x in layers
    ]

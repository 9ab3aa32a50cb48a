"""OpenVINO IR, converted from the torch module itself and quantised by NNCF.

The graph in memory is handled in :mod:`edgessl.exporters.openvino_model`, quantising is in
:mod:`edgessl.exporters.openvino_quantize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters import openvino_model, preprocess, snippets_openvino
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

if TYPE_CHECKING:
    import torch

QUANTIZES: dict[Quantization, tuple[str, ...]] = {
    "dynamic": ("nncf",), "fp16": (), "int8": ("nncf",)
}  # fmt: skip


class OpenvinoExporter:
    """Write and run ``model.xml``; see :class:`edgessl.exporters.base.Exporter`."""

    format = "openvino"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    main_file = openvino_model.MODEL
    needs = ("torch", "openvino")
    quantizes = QUANTIZES

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` as ``model.xml`` and ``model.bin`` with float32 weights.

        A layer is called like its module and its type, ``features.0.0/Convolution``: profiles of
        OpenVINO's tools show that name.
        """
        if form.opset is not None:
            raise ConversionFailed(
                f"OpenVINO IR has no opset to choose, got {form.opset}", hint="leave the opset out"
            )
        import torch

        preprocess.check_resize(spec, form)
        plain = plain_copy(module)
        update = {"dtype": "float32", "layout": self.layout, "quantized": None, "raw": None}
        contract, net = spec.model_copy(update=update), plain
        if form.embed:
            contract = preprocess.embedded_spec(spec, form)
            net = preprocess.embedded(plain, spec, form)
        batch = -1 if form.dynamic_batch else 1
        shape = [batch, *contract.shape[1:]]
        model = openvino_model.convert(net, preprocess.example_input(spec, form), shape)
        modules = modules_in_order(plain, torch.zeros(1, 3, spec.height, spec.width))
        layers = match(modules, openvino_model.layer_weights(model))
        nodes = openvino_model.node_named(model)
        names = {x.node: f"{x.module}/{nodes[x.node].get_type_name()}" for x in layers}
        model = openvino_model.tidied(model, names)
        expected = (max(batch, 0), *contract.shape[1:])
        check_signature("the OpenVINO model", openvino_model.shapes(model), expected)
        openvino_model.save(model, folder)
        layers = [replace(layer, node=names[layer.node]) for layer in layers]
        return Written(list(openvino_model.FILES), contract, layers=layers)

    def quantize(
        self, source: Path, written: Written, folder: Path, scheme: Scheme,
        calibration: NDArray[Any],
    ) -> Written:  # fmt: skip
        """Write a quantised copy; see :func:`edgessl.exporters.openvino_quantize.quantize`."""
        from edgessl.exporters.openvino_quantize import quantize

        return quantize(source, written, folder, scheme, calibration)

    def describe(self, folder: Path, contract: str) -> None:
        """Store the contract as an entry of the graph's ``rt_info``, and read it back.

        Raises:
            ConversionFailed: The entry came back altered.
        """
        path = folder / self.main_file
        with opening(path):
            model = openvino_model.read(path, mapped=False)
        model.set_rt_info(contract, [CONTRACT_KEY])
        openvino_model.save(model, folder)
        if (seen := self.described(folder)) != contract:
            raise ConversionFailed(f"OpenVINO stored another contract: {str(seen)[:200]}")

    def described(self, folder: Path) -> str | None:
        """Return the contract that the graph holds, or None."""
        path = folder / self.main_file
        with opening(path):
            model = openvino_model.read(path)
            if not model.has_rt_info([CONTRACT_KEY]):
                return None
            return str(model.get_rt_info([CONTRACT_KEY]).astype(str))

    def open(self, folder: Path) -> Session:
        """Run ``model.xml`` with the CPU plugin held to float32 wherever it is not integer.

        Raises:
            ConversionFailed: The plugin does not accept the precision.
        """
        path = folder / self.main_file
        with opening(path):
            model = openvino_model.read(path)
            (shape, _), dtype = openvino_model.shapes(model), model.input(0).get_element_type()
            request = openvino_model.compiled(model).create_infer_request()
        return Session(shape, dtype.to_dtype().name, lambda x: request.infer({0: x})[0])

    def activations(
        self, folder: Path, layers: Sequence[Layer], inputs: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what layers give, with their bias (a folded BatchNorm's), before activation.

        In an int8 file that is the real number before the next rounding.

        Returns:
            By module, (N, C, H, W) for convolutions and (N, C) for linear layers.
        """
        openvino = openvino_model.import_openvino()
        path = folder / self.main_file
        with opening(path):
            model = openvino_model.read(path)
        nodes = openvino_model.node_named(model)
        kept = [layer for layer in layers if layer.node in nodes]
        ports = [openvino_model.with_bias(nodes[layer.node]) for layer in kept]
        request = openvino_model.compiled(
            openvino.Model(ports, model.get_parameters(), "layers")
        ).create_infer_request()
        got: list[list[NDArray[np.float32]]] = [[] for _ in kept]
        for image in inputs:
            answers = request.infer({0: np.ascontiguousarray(image[None])})
            for place, rows in enumerate(got):
                rows.append(np.array(answers[place], np.float32))
        return {
            layer.module: np.concatenate(rows)
            for layer, rows in zip(kept, got, strict=True)
            if rows
        }

    def snippet(self, written: Written, classes: Sequence[str]) -> str:
        """Return a script for openvino and numpy."""
        return snippets_openvino.script(written, classes)

    def versions(self) -> dict[str, str]:
        """Return the versions of torch, openvino and NNCF."""
        return installed_versions("torch", "openvino", "nncf")

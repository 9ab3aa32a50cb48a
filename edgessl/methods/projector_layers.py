"""A projector as a list of plain JSON values, to be built again without its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from edgessl.slimming.sliced import Sliced

WIDEST = 65536  # as base.Projector allows


def layers_of(projector: nn.Module) -> list[dict[str, Any]]:
    """Return the layers of a projector, in order; of a sliced one, those of its host.

    Raises:
        ValueError: It has a layer that is no Linear, BatchNorm1d or ReLU.
    """
    module = projector.host if isinstance(projector, Sliced) else projector
    if not isinstance(module, nn.Sequential):
        raise ValueError(f"a projector is a sequence of layers, not a {type(module).__name__}")
    return [_described(layer) for layer in module]


def _described(layer: nn.Module) -> dict[str, Any]:
    match layer:
        case nn.Linear():
            sizes = {"inputs": layer.in_features, "outputs": layer.out_features}
            return {"layer": "linear", **sizes, "bias": layer.bias is not None}
        case nn.BatchNorm1d():
            return {"layer": "batchnorm", "inputs": layer.num_features, "affine": layer.affine}
        case nn.ReLU():
            return {"layer": "relu"}
    raise ValueError(f"a projector has no {type(layer).__name__}")


def projector_of(layers: Sequence[Any], inputs: int) -> nn.Sequential:
    """Build a projector with fresh weights from what :func:`layers_of` returned.

    Args:
        layers: The layers.
        inputs: Features that it must take.

    Raises:
        KeyError, TypeError, ValueError: Malformed, or the layers do not follow each other.
    """
    made: list[nn.Module] = []
    for layer in layers:
        kind = layer["layer"]
        if kind == "relu":
            made.append(nn.ReLU())
            continue
        if _size(layer["inputs"]) != inputs:
            raise ValueError(f"{kind} takes {layer['inputs']}, and {inputs} come in")
        if kind == "batchnorm":
            made.append(nn.BatchNorm1d(inputs, affine=bool(layer["affine"])))
        elif kind == "linear":
            outputs = _size(layer["outputs"])
            made.append(nn.Linear(inputs, outputs, bias=bool(layer["bias"])))
            inputs = outputs
        else:
            raise ValueError(f"unknown layer {kind!r}")
    return nn.Sequential(*made)


def _size(value: Any) -> int:
    if not isinstance(value, int) or not 0 < value <= WIDEST:
        raise ValueError(f"{value!r} is no number of features")
    return value

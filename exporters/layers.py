"""Which operation of a file is which PyTorch module: told by the weights, not by names.

Converters rename, reorder and fuse; what they cannot hide is the direction of each output
channel's weights. Folding BatchNorm scales a channel (with a negative scale it also flips it),
so weights are compared row by row, brought to unit length, up to sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import Layer

if TYPE_CHECKING:
    import torch

Op = Literal["conv", "linear"]

# distance of two unit rows: rounding to float16 moves one by up to 5e-4
TOLERANCE = 1e-3


def modules_in_order(
    module: torch.nn.Module, example: torch.Tensor
) -> list[tuple[str, Op, NDArray[np.float32]]]:
    """Run a net once and list its convolutions and linear layers as they are executed.

    Args:
        module: Net in evaluation mode; a module that runs twice is listed twice.
        example: One input.

    Returns:
        Name as in ``named_modules()``, kind, and the weights (O, K) float32: O output channels,
        the K weights of each in the order (input channel of its group, row, column).
    """
    import torch

    found: list[tuple[str, Op, NDArray[np.float32]]] = []
    handles = []
    for name, layer in module.named_modules():
        if not isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            continue
        op: Op = "conv" if isinstance(layer, torch.nn.Conv2d) else "linear"
        rows = layer.weight.detach().cpu().float().reshape(len(layer.weight), -1).numpy()

        def note(*_: object, row: tuple[str, Op, NDArray[np.float32]] = (name, op, rows)) -> None:
            found.append(row)

        handles.append(layer.register_forward_hook(note))
    try:
        with torch.inference_mode():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def match(
    modules: Sequence[tuple[str, Op, NDArray[np.float32]]],
    found: Sequence[tuple[str, NDArray[np.floating]]],
    tolerance: float = TOLERANCE,
) -> list[Layer]:
    """Give every operation of a file the module that its weights came from.

    Each module is used once. Where several fit equally well (equal layers, or layers with one
    weight per channel) the order of execution decides. Operations that no module explains are
    passed over when all modules have found theirs: preprocessing inside the graph has some.

    Args:
        modules: As :func:`modules_in_order` lists them.
        found: Operations of the file in the order of execution: name and weights (O, K), the K
            in the same order as there. A channel of zeros fits any: a BatchNorm scale of zero
            leaves it.
        tolerance: Largest distance between two rows of unit length.

    Returns:
        Layers in the order of ``found``.

    Raises:
        ConversionFailed: A module has no operation; names it and the operations that are left.
    """
    free: list[tuple[str, Op, NDArray[np.float64]]] = [
        (name, op, _unit_rows(weights)) for name, op, weights in modules
    ]
    layers, left = [], []
    for node, weights in found:
        rows = _unit_rows(weights)
        fits = [
            (round(distance, 5), place)
            for place, (_, _, candidate) in enumerate(free)
            if (distance := _distance(candidate, rows)) <= tolerance
        ]
        if not fits:
            left.append((node, weights.shape))
            continue
        name, op, _ = free.pop(min(fits)[1])
        layers.append(Layer(name, node, op))
    if free:
        modules_left = ", ".join(f"{name} {rows.shape}" for name, _, rows in free[:3])
        nodes_left = ", ".join(f"{node} {shape}" for node, shape in left[:3]) or "none"
        raise ConversionFailed(
            f"{len(free)} layer(s) of the net are not in the file with their weights: "
            f"{modules_left}; operations of the file that fit no layer: {nodes_left}",
            hint="the converter changed the net; please report it with the versions of "
            "`edgessl doctor`",
        )
    return layers


def _unit_rows(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = weights.astype(np.float64)
    # by the largest value first: squares of tiny weights would vanish
    for length in (lambda x: np.abs(x).max(axis=1), lambda x: np.linalg.norm(x, axis=1)):
        size = length(rows)[:, None]
        rows = np.divide(rows, size, out=np.zeros_like(rows), where=size != 0)
    return rows


def _distance(module: NDArray[np.float64], file: NDArray[np.float64]) -> float:
    """Return the largest distance between rows up to sign; infinite for other shapes or NaN."""
    if module.shape != file.shape:
        return np.inf
    sign = np.where((module * file).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    lengths = np.linalg.norm(module - sign * file, axis=1)
    largest = lengths[file.any(axis=1)].max(initial=0.0)
    return float(largest) if np.isfinite(largest) else np.inf

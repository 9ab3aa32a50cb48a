"""Ranges of activations for static quantisation, one calibration image at a time.

ONNX Runtime's own calibrators keep what they collect until all images are through, average in
an order that depends on how the images were handed over, and name their helper tensors at
random. Here memory holds one image's activations, and equal images give equal ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import INPUT_NAME, Calibration
from edgessl.exporters.onnx_runtime import open_session

if TYPE_CHECKING:
    import onnx

PERCENTILE = 99.99  # of the values of an activation lie inside its range

Range = tuple[np.float32, np.float32]


def activation_ranges(
    model: onnx.ModelProto, inputs: NDArray[Any], method: Calibration
) -> dict[str, Range]:
    """Return the lowest and the highest value that each float tensor shall represent.

    Args:
        model: Float model with the types of its tensors (``value_info``).
        inputs: (N, ...) as it takes them.
        method: ``minmax``: over all images. ``percentile``: the same, without the 0.005 % smallest
            and the 0.005 % largest values; a tensor of fewer than 20,000 values over all images
            keeps them all. ``moving_average``: the mean over images of an image's smallest and
            of its largest value.

    Raises:
        ConversionFailed: No images, or an activation is not finite.
    """
    if len(inputs) == 0:
        raise ConversionFailed("no calibration images", hint="give some with --calib")
    trackers: dict[str, Tracker] = {}
    for place, tensors in enumerate(_activations(model, inputs)):
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise ConversionFailed(
                    f"calibration image {place} gives a value that is not finite in {name}",
                    hint="check the float file first: edgessl export --quantize none",
                )
            if name not in trackers:
                trackers[name] = _tracker(method, values.size * len(inputs))
            trackers[name].add(values.ravel())
    return {name: tracker.range() for name, tracker in trackers.items()}


def _activations(
    model: onnx.ModelProto, inputs: NDArray[Any]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    import onnx

    tensors = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    types = {tensor.name: tensor.type.tensor_type.elem_type for tensor in tensors}
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if types.get(name) == onnx.TensorProto.FLOAT
    ]
    session = session_with_outputs(model, names)
    floats = types[INPUT_NAME] == onnx.TensorProto.FLOAT
    for place in range(len(inputs)):
        image = np.ascontiguousarray(inputs[place : place + 1])
        found = dict(zip(names, session.run(names, {INPUT_NAME: image}), strict=True))
        yield found | ({INPUT_NAME: image} if floats else {})


def session_with_outputs(model: onnx.ModelProto, names: list[str]) -> Any:
    """Open a copy of a model in memory that also gives inner tensors; one thread, CPU."""
    import onnx

    more = onnx.ModelProto()
    more.CopyFrom(model)
    given = {end.name for end in model.graph.output}
    for name in names:
        if name not in given:
            given.add(name)
            more.graph.output.append(onnx.ValueInfoProto(name=name))
    return open_session(more.SerializeToString())


class _Extremes:
    """The smallest and the largest value so far."""

    def __init__(self) -> None:
        self.low, self.high = np.float32(np.inf), np.float32(-np.inf)

    def add(self, values: NDArray[np.float32]) -> None:
        self.low = min(self.low, values.min())
        self.high = max(self.high, values.max())

    def range(self) -> Range:
        return np.float32(self.low), np.float32(self.high)


class _Mean:
    """The mean of the extremes of each image."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.count = 0

    def add(self, values: NDArray[np.float32]) -> None:
        self.low += float(values.min())
        self.high += float(values.max())
        self.count += 1

    def range(self) -> Range:
        return np.float32(self.low / self.count), np.float32(self.high / self.count)


class _Tails:
    """The extremes after the same number of values was dropped at both ends: exact."""

    def __init__(self, total: int) -> None:
        self.keep = 1 + int(total * (100 - PERCENTILE) / 200 + 1e-9)
        self.largest = np.empty(0, np.float32)
        self.smallest_negated = np.empty(0, np.float32)

    def add(self, values: NDArray[np.float32]) -> None:
        self.largest = self._merged(self.largest, values)
        self.smallest_negated = self._merged(self.smallest_negated, -values)

    def _merged(
        self, kept: NDArray[np.float32], values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if len(kept) == self.keep:
            values = values[values > kept.min()]
        kept = np.concatenate([kept, values])
        if len(kept) <= self.keep:
            return kept
        return np.partition(kept, -self.keep)[-self.keep :]

    def range(self) -> Range:
        return np.float32(-self.smallest_negated.min()), np.float32(self.largest.min())


Tracker = _Extremes | _Mean | _Tails


def _tracker(method: Calibration, total: int) -> Tracker:
    if method == "percentile":
        return _Tails(total)
    return _Mean() if method == "moving_average" else _Extremes()

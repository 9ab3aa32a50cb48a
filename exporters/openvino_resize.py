"""Resize and crop inside an OpenVINO graph, as Pillow does it."""

from __future__ import annotations

import math
from typing import Any

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed
from edgessl.exporters.openvino_model import import_openvino

# beyond this the picture would be cut before it is resized
LONGEST_ASPECT = 16


def placed(spec: InputSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size (height, width) that ``spec.raw`` is resized to, and where it is cut.

    The short side becomes ``spec.resize`` pixels, more where the crop would not fit; the crop
    (top, left) is in the centre. The rule of :func:`edgessl.data.decode.fit`.

    Raises:
        ConversionFailed: The picture is too long for its width.
    """
    h, w = spec.raw or (spec.height, spec.width)
    longest = LONGEST_ASPECT * max(spec.height / spec.width, spec.width / spec.height)
    if max(h, w) > longest * min(h, w):
        raise ConversionFailed(
            f"pictures of {w} x {h} are longer than {longest:g} short sides",
            hint="give the width and height that the camera really has",
        )
    least = min(h, w)
    short = max(spec.resize, math.ceil(spec.height * least / h), math.ceil(spec.width * least / w))
    height, width = (int(short * h / w), short) if w <= h else (short, int(short * w / h))
    height, width = max(height, spec.height), max(width, spec.width)
    return (height, width), (round((height - spec.height) / 2), round((width - spec.width) / 2))


def resizing(model: Any, spec: InputSpec) -> Any:
    """Put the resize and the crop in front of a graph that takes uint8 (B, H, W, 3).

    Args:
        model: Graph for pictures of ``spec.height`` x ``spec.width``.
        spec: ``raw`` is the size of the pictures that go in.
    """
    openvino = import_openvino()
    from openvino.preprocess import PrePostProcessor, ResizeAlgorithm

    (height, width), (top, left) = placed(spec)
    shape = openvino.PartialShape([model.input(0).get_partial_shape()[0], *spec.side, 3])
    builder = PrePostProcessor(model)
    entry, layout = builder.input(), openvino.Layout("NHWC")
    entry.tensor().set_element_type(openvino.Type.u8).set_layout(layout).set_shape(shape)
    entry.model().set_layout(layout)
    steps = entry.preprocess()
    if (height, width) != spec.side:
        steps.resize(ResizeAlgorithm.RESIZE_BILINEAR_PILLOW, height, width)
    if (height, width) != (spec.height, spec.width):
        # any end beyond the batch stands for all of it
        end = [2**31 - 1, top + spec.height, left + spec.width, 3]
        steps.crop([0, top, left, 0], end)
    return builder.build()

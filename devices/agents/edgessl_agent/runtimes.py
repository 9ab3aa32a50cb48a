"""The runtimes a model can be opened with.

A class takes the imported module and the plan. It says ``name``, ``shape`` and ``dtype`` of its
input and has in ``proof`` what really runs; ``run`` takes one input and returns logits and the
nanoseconds of the parts that the runtime separates. ``prepare`` does what is done once for a board
and is never part of ``load``; ``layers`` tells the time of each layer in a run of its own.
"""

from __future__ import annotations

from typing import Any

from .run_litert import LiteRt
from .run_onnxruntime import OnnxRuntime
from .run_openvino import OpenVino
from .run_tensorrt import TensorRt

OPENERS: dict[str, Any] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "litert": LiteRt,
    "tensorrt": TensorRt,
}

"""The runtimes that the agent knows: what they read, what is imported, what a user installs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs a format.

    Attributes:
        formats: Names as in ``Artifact.format``.
        provider: Execution provider, device or delegate that is taken if nothing else is asked.
        precision: Arithmetic that is asked for where the runtime would choose another one itself.
        packages: Distributions that bring it; the first is what is installed where there is none.
        extra: Of ``pip install edgessl[extra]`` on this machine.
        page: The npm package that runs it in a browser, "" where there is none.
    """

    formats: tuple[str, ...]
    provider: str
    precision: str | None
    packages: tuple[str, ...]
    extra: str
    page: str = ""

    @property
    def package(self) -> str:
        """The distribution to install."""
        return self.packages[0]

    def is_among(self, names: Iterable[str]) -> bool:
        """Whether one of its packages is among those that a board names."""
        return not {*self.packages, self.page}.isdisjoint(names)


RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": Runtime(
        ("onnx",),
        "CPUExecutionProvider",
        None,
        ("onnxruntime", "onnxruntime-gpu"),
        "onnx",
        "onnxruntime-web",
    ),
    # bfloat16 is its own choice on many processors: asked for float32, and checked
    "openvino": Runtime(("openvino",), "CPU", "f32", ("openvino",), "openvino"),
    "litert": Runtime(
        ("tflite",),
        "XNNPACK",
        None,
        ("ai-edge-litert", "tflite-runtime"),
        "tflite",
        "@litertjs/core",
    ),
    # comes with JetPack; nothing on this machine builds or runs its engines
    "tensorrt": Runtime(("onnx",), "TensorRT", None, ("tensorrt",), ""),
}


def readers_of(form: str) -> tuple[str, ...]:
    """Return the runtimes that read a format, the one that it is made for first."""
    return tuple(name for name, runtime in RUNTIMES.items() if form in runtime.formats)

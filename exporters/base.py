"""What every exporter does: write one format from a plain net, quantise it, open it here.

Files have a static batch of one unless asked otherwise: classifiers on boards see one image at
a time, and a static shape is what every runtime plans best for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec, OutputSpec
from edgessl.core.errors import ConversionFailed, DataInvalid, EdgeSSLError, FileInvalid

if TYPE_CHECKING:
    import torch

INPUT_NAME, OUTPUT_NAME = "input", "logits"
# under this key a file's own metadata holds the contract, where the format has a place for it
CONTRACT_KEY = "edgessl"

Quantization = Literal["dynamic", "fp16", "int8", "w8a16"]
Calibration = Literal["minmax", "percentile", "moving_average"]


@dataclass(frozen=True, slots=True)
class Form:
    """How the file is laid out, whatever its precision.

    Attributes:
        embed: Put normalisation (and the transpose) into the graph: uint8 NHWC pixels in.
        raw: Height and width of whole pictures that the graph itself resizes and crops; needs
            ``embed``.
        dynamic_batch: Any batch size instead of one.
        opset: ONNX opset; None for that of the target.
    """

    embed: bool = False
    raw: tuple[int, int] | None = None
    dynamic_batch: bool = False
    opset: int | None = None


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a float file is quantised.

    Attributes:
        precision: ``dynamic``: int8 weights, activations as the runtime likes. ``fp16``: float16
            weights. ``int8``: weights per channel and activations in 8 bits. ``w8a16``: weights
            in 8, activations in 16 bits.
        calibration: How the range of an activation follows from the calibration images.
        float_layers: Modules (``Layer.module``) that stay in float.
        integer_io: Integers in and out instead of float32.
    """

    precision: Quantization
    calibration: Calibration = "minmax"
    float_layers: tuple[str, ...] = ()
    integer_io: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or matrix product of the file, and the PyTorch module it came from.

    Attributes:
        module: Name of the module, as in ``named_modules()`` of the plain net.
        node: Name of the operation in the file; where operations have no names, of its output
            tensor.
        op: ``conv`` or ``linear``.
    """

    module: str
    node: str
    op: Literal["conv", "linear"]


@dataclass(frozen=True, slots=True)
class Written:
    """What an exporter wrote.

    Attributes:
        files: Names, the one that a runtime opens first.
        input: What the file takes.
        output: What it gives.
        layers: In the order of execution.
    """

    files: list[str]
    input: InputSpec
    output: OutputSpec = field(default_factory=OutputSpec)
    layers: list[Layer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Session:
    """A file that was opened for inference on one thread.

    Attributes:
        shape: Of the input tensor; 0 stands for any size.
        dtype: Of the input tensor, as numpy names it.
        infer: One input of that shape and dtype to the output (B, C), in the file's dtype. The
            input must not be reused while it runs; the output may be overwritten by the next call.
    """

    shape: tuple[int, ...]
    dtype: str
    infer: Callable[[NDArray[Any]], NDArray[Any]]


class Exporter(Protocol):
    """One target format.

    Attributes:
        format: Name of the format, as in ``Artifact.format``.
        layout: Layout of the input that the written file takes, unless pixels go in.
        main_file: The file a runtime opens.
        needs: Packages that writing and running float32 import, by the names they are imported by.
        quantizes: For every precision that is offered, the packages it imports beyond ``needs``.
    """

    format: str
    layout: Literal["NCHW", "NHWC"]
    main_file: str
    needs: tuple[str, ...]
    quantizes: dict[Quantization, tuple[str, ...]]

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path, form: Form) -> Written:
        """Write ``module`` in float32 into ``folder``.

        Args:
            module: Net from (B, 3, height, width) float32 to (B, C); it is left as it was.
            spec: Contract of the net; its layout and dtype are not used.
            folder: Existing folder; files of the same names are replaced.
            form: How the file is laid out.

        Raises:
            ConversionFailed: The converter gave something other than what was asked, or the
                format cannot have that form.
            ModuleNotFoundError: A package of the target's extra is not installed.
        """
        ...

    def quantize(
        self, source: Path, written: Written, folder: Path, scheme: Scheme,
        calibration: NDArray[Any],
    ) -> Written:  # fmt: skip
        """Write a quantised copy of a float32 file.

        Args:
            source: Folder that :meth:`write` wrote into; it is left as it was.
            written: What it wrote.
            folder: Another existing folder; files of the same names are replaced.
            scheme: What is asked; its precision is one of :attr:`quantizes`.
            calibration: Inputs (N, ...) as the float file takes them; not used by ``fp16`` and
                ``dynamic``.

        Returns:
            The same layers under the names they have in the new file, and its contract.

        Raises:
            ConversionFailed: The quantiser gave something other than what was asked.
            ModuleNotFoundError: A package is not installed.
        """
        ...

    def describe(self, folder: Path, contract: str) -> None:
        """Store a JSON text in the file's own metadata under :data:`CONTRACT_KEY`."""
        ...

    def described(self, folder: Path) -> str | None:
        """Return that text; None when there is none."""
        ...

    def open(self, folder: Path) -> Session:
        """Open the file in ``folder``: true float32 where it is float, one thread, no torch.

        Boards and ``edgessl predict`` have the runtime only.

        Raises:
            FileInvalid: The file is not there or cannot be read; see :func:`opening`.
            ModuleNotFoundError: The runtime is not installed.
        """
        ...

    def activations(
        self, folder: Path, layers: Sequence[Layer], inputs: NDArray[Any]
    ) -> dict[str, NDArray[np.float32]]:
        """Return what layers give inside the file, as real numbers.

        Args:
            folder: Where the file is.
            layers: As its :class:`Written` lists them.
            inputs: (N, ...) as the file takes them.

        Returns:
            By module, (N, ...) float32 in the file's layout; a layer whose output the file does
            not keep (because it was fused) is left out.
        """
        ...

    def snippet(self, written: Written, classes: Sequence[str]) -> str:
        """Return a Python script that uses the runtime and numpy only.

        Put beside the file and ``golden.npz``, it reproduces the golden logits and exits with 0,
        or says by how much they differ and exits with 1.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of converter, quantiser and runtime, installed ones only."""
        ...


def plain_copy(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy that converters can trace: CPU, float32, contiguous, evaluation mode.

    A channels_last net makes some converters add transposes or abort, and a net in training
    mode would be exported with batch statistics.
    """
    import torch

    plain = copy.deepcopy(module).to("cpu", torch.float32)
    return plain.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn whatever a runtime raises while it reads a file into one error.

    Raises:
        FileInvalid: Names the file and the cause.
    """
    try:
        yield
    except (EdgeSSLError, ModuleNotFoundError):
        raise
    except Exception as error:
        cause = " ".join(str(error).split())[:300] or type(error).__name__
        raise FileInvalid(
            f"{path.name} cannot be read: {cause}", hint="export it again: edgessl export"
        ) from error


def run_file(exporter: Exporter, folder: Path, inputs: NDArray[Any]) -> NDArray[Any]:
    """Run a file on images one by one and stack what it gives to (N, C), in the file's dtype.

    Args:
        exporter: Of the file's target.
        folder: Where the file is.
        inputs: (N, ...) of the file's dtype and layout.

    Raises:
        DataInvalid: No images, or their shape or dtype differs from the file's.
        FileInvalid, ModuleNotFoundError: See :meth:`Exporter.open`.
    """
    session = exporter.open(folder)
    shape = session.shape
    fits = len(shape) == inputs.ndim and all(
        want in (0, seen) for want, seen in zip(shape[1:], inputs.shape[1:], strict=True)
    )
    if str(inputs.dtype) != session.dtype or not fits or len(inputs) == 0:
        raise DataInvalid(
            f"the file takes {session.dtype} images of shape {shape[1:]}, got {len(inputs)} of "
            f"{inputs.dtype} {inputs.shape[1:]}",
            hint="prepare the images with the input contract in artifact.json",
        )
    images = np.ascontiguousarray(inputs)
    return np.concatenate([np.array(session.infer(images[i : i + 1])) for i in range(len(images))])


def check_signature(
    what: str, seen: tuple[tuple[int, ...], ...], spec_shape: tuple[int, ...]
) -> None:
    """Refuse a written file whose input and output are not one image in, one (1, C) row out.

    Args:
        what: Name of the file, for the message.
        seen: Shapes of all inputs, then of all outputs; 0 stands for any batch.
        spec_shape: The input shape that was asked for.

    Raises:
        ConversionFailed: The shapes differ.
    """
    fits = len(seen) == 2 and seen[0] == spec_shape
    if not (fits and len(seen[1]) == 2 and seen[1][0] == spec_shape[0]):
        raise ConversionFailed(
            f"{what} has the shapes {', '.join(map(str, seen))}; wanted {spec_shape} in and "
            f"({spec_shape[0]}, classes) out",
            hint="the net must take one batch of images and return one matrix of logits",
        )


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the version of each installed package, without importing it."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

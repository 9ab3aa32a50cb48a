"""What every exporter does: write one format from a plain net, and run the file here.

Files are float32 with a static batch of one: classifiers on boards see one image at a time, and
a static shape is what every runtime plans best for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import ConversionFailed, DataInvalid, EdgeSSLError, FileInvalid

if TYPE_CHECKING:
    import torch

INPUT_NAME, OUTPUT_NAME = "input", "logits"


class Exporter(Protocol):
    """One target format.

    Attributes:
        format: Name of the format, as in ``Artifact.format``.
        layout: Layout of the input that the written file takes.
        main_file: The file a runtime opens.
        needs: Packages that writing and running import, by the names they are imported by.
    """

    format: str
    layout: Literal["NCHW", "NHWC"]
    main_file: str
    needs: tuple[str, ...]

    def write(self, module: torch.nn.Module, spec: InputSpec, folder: Path) -> list[str]:
        """Write ``module`` into ``folder`` and return the file names, the main one first.

        Args:
            module: Net from (1, 3, height, width) float32 to (1, C); it is left as it was.
            spec: Gives height and width; its layout is not used.
            folder: Existing folder; files of the same names are replaced.

        Raises:
            ConversionFailed: The converter gave something other than what was asked.
            ModuleNotFoundError: A package of the target's extra is not installed.
        """
        ...

    def run(self, folder: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the file in ``folder`` in true float32 on one thread, image by image.

        It must not import torch: boards and ``edgessl predict`` have the runtime only.

        Args:
            folder: Where :meth:`write` put its files.
            inputs: (N, ...) normalised images in the file's layout.

        Returns:
            Logits (N, C).

        Raises:
            DataInvalid: The inputs do not have the shape or dtype that the file takes.
            FileInvalid: The file is not there or cannot be read; see :func:`opening`.
            ModuleNotFoundError: The runtime is not installed.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of the converter and the runtime, installed ones only."""
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


def run_one_by_one(
    inputs: NDArray[np.float32],
    shape: tuple[int, ...],
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Call ``infer`` on each image as a batch of one and stack the logits to (N, C).

    Args:
        inputs: (N, ...) float32.
        shape: The file's input shape, batch included.
        infer: Takes an array of ``shape``, returns (1, C); may reuse that array between calls.

    Raises:
        DataInvalid: No images, or their shape or dtype differs from the file's.
    """
    if inputs.dtype != np.float32 or inputs.shape[1:] != shape[1:] or len(inputs) == 0:
        raise DataInvalid(
            f"the file takes float32 images of shape {shape[1:]}, got {len(inputs)} of "
            f"{inputs.dtype} {inputs.shape[1:]}",
            hint="prepare the images with the input contract in artifact.json",
        )
    images = np.ascontiguousarray(inputs)
    return np.concatenate([np.array(infer(images[i : i + 1])) for i in range(len(images))])


def check_signature(
    what: str, seen: tuple[tuple[int, ...], ...], spec_shape: tuple[int, ...]
) -> None:
    """Refuse a written file whose input and output are not one image in, one (1, C) row out.

    Args:
        what: Name of the file, for the message.
        seen: Shapes of all inputs, then of all outputs.
        spec_shape: The input shape that was asked for.

    Raises:
        ConversionFailed: The shapes differ.
    """
    fits = len(seen) == 2 and seen[0] == spec_shape and len(seen[1]) == 2 and seen[1][0] == 1
    if not fits:
        raise ConversionFailed(
            f"{what} has the shapes {', '.join(map(str, seen))}; wanted {spec_shape} in and "
            "(1, classes) out",
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

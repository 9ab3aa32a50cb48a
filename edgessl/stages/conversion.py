"""The tasks that run in a child process: write a target's files, and run them.

Each takes and returns JSON values; arrays travel as ``.npy`` files.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.errors import FileInvalid
from edgessl.core.registry import missing_extra
from edgessl.exporters import EXPORTERS

TRAIN_PACKAGES = {"torch", "torchvision"}


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Write a plain net for a target.

    Args:
        job: ``target``; ``model_folder`` with the sealed net; ``out_folder``, existing.

    Returns:
        ``files`` (names, the main one first), ``format``, ``layout``, ``versions`` of converter
        and runtime, ``seconds`` of the conversion.

    Raises:
        EdgeSSLError: The net cannot be read, a package is missing, or the converter failed.
    """
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        from edgessl.encoders.loading import load_model

        module, artifact = load_model(Path(job["model_folder"]))
        began = time.monotonic()
        names = exporter.write(module, artifact.input, Path(job["out_folder"]))
    return {
        "files": names,
        "format": exporter.format,
        "layout": exporter.layout,
        "versions": exporter.versions(),
        "seconds": time.monotonic() - began,
    }


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Run a target's file on saved inputs; imports the runtime and no torch.

    Args:
        job: ``target``; ``folder`` with the files; ``inputs``, a .npy of (N, ...) float32 in
            the file's layout; ``outputs``, the .npy to write, (N, C) float32.

    Returns:
        ``n`` and ``versions``.

    Raises:
        EdgeSSLError: The inputs cannot be used, or the runtime is missing.
    """
    import numpy as np

    try:
        inputs = np.load(job["inputs"], allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileInvalid(f"{job['inputs']} is not a readable .npy array: {error}") from error
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        logits = exporter.run(Path(job["folder"]), inputs)
    buffer = io.BytesIO()
    np.save(buffer, logits, allow_pickle=False)
    files.write_bytes(Path(job["outputs"]), buffer.getvalue())
    return {"n": len(logits), "versions": exporter.versions()}


def check_installed(target: str) -> None:
    """Refuse a target whose converter or runtime is not installed, without importing them.

    Raises:
        MissingExtra: Names the package and the extra that brings it.
    """
    for package in EXPORTERS.load(target).needs:
        if find_spec(package) is None:
            extra = "train" if package in TRAIN_PACKAGES else EXPORTERS[target].extra
            raise missing_extra(f"target '{target}'", package, extra)


TASKS = {"convert": convert, "predict": predict}


@contextmanager
def extra_of(target: str) -> Iterator[None]:
    """Name the pip extra of a package of ``target`` that is missing.

    Exporters import their packages inside functions, so a missing one shows only here.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "?").split(".")[0]
        if package == "edgessl":
            raise
        extra = "train" if package in TRAIN_PACKAGES else EXPORTERS[target].extra
        raise missing_extra(f"target '{target}'", package, extra) from error

"""The tasks that run in a child process: write a target's files, quantise, open and compare them.

Each takes and returns JSON values; arrays travel as ``.npy`` files.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edgessl.core import files
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.registry import missing_extra
from edgessl.exporters import EXPORTERS, offered_by

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgessl.exporters.base import Written

TRAIN_PACKAGES = {"torch", "torchvision"}
WARM_UP, PAIRS, RACE_S = 5, 60, 20.0


def convert(job: dict[str, Any]) -> dict[str, Any]:
    """Write a plain net for a target in float32.

    Args:
        job: ``target``; ``model_folder`` with the sealed net; ``out_folder``, existing; ``form``,
            the fields of :class:`edgessl.exporters.base.Form`.

    Returns:
        ``written`` (see :func:`as_json`), ``format``, ``versions`` of converter and runtime,
        ``seconds`` of the conversion.

    Raises:
        EdgeSSLError: The net cannot be read, a package is missing, or the converter failed.
    """
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        from edgessl.encoders.loading import load_model
        from edgessl.exporters.base import Form

        raw = job["form"].get("raw")
        form = Form(**job["form"] | {"raw": tuple(raw) if raw else None})
        module, artifact = load_model(Path(job["model_folder"]))
        began = time.monotonic()
        written = exporter.write(module, artifact.input, Path(job["out_folder"]), form)
    return {
        "written": as_json(written),
        "format": exporter.format,
        "versions": exporter.versions(),
        "seconds": time.monotonic() - began,
    }


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """Quantise a float32 file.

    Args:
        job: ``target``; ``source``, folder of the float file; ``written``, what was written
            there; ``out_folder``, existing; ``scheme``, the fields of
            :class:`edgessl.exporters.base.Scheme`; ``images``, a .npy of uint8 (N, H, W, 3).

    Returns:
        ``written``, ``versions`` and ``seconds``.

    Raises:
        EdgeSSLError: A package is missing, or the quantiser failed.
    """
    from edgessl.core.images import to_model_input
    from edgessl.exporters.base import Scheme

    with extra_of(job["target"]):
        exporter, source = EXPORTERS.load(job["target"])(), written_from(job["written"])
        names = tuple(job["scheme"]["float_layers"])
        scheme = Scheme(**job["scheme"] | {"float_layers": names})
        inputs = to_model_input(_array(job["images"]), source.input)
        began = time.monotonic()
        folder, out = Path(job["source"]), Path(job["out_folder"])
        written = exporter.quantize(folder, source, out, scheme, inputs)
    return {
        "written": as_json(written),
        "versions": exporter.versions(),
        "seconds": time.monotonic() - began,
    }


def finish(job: dict[str, Any]) -> dict[str, Any]:
    """Store the contract in the file itself, and return a script that runs it.

    Args:
        job: ``target``; ``folder``; ``written``; ``contract``, a JSON text; ``classes``.

    Returns:
        ``snippet``, the text of the script.
    """
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        exporter.describe(Path(job["folder"]), job["contract"])
        return {"snippet": exporter.snippet(written_from(job["written"]), job["classes"])}


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Run a target's file on saved images; imports the runtime and no torch.

    Args:
        job: ``target``; ``folder`` with the files; ``written``; ``images``, a .npy of uint8
            (N, H, W, 3); ``outputs``, the .npy to write, (N, C) float32.

    Returns:
        ``n`` and ``versions``.

    Raises:
        EdgeSSLError: The images cannot be used, or the runtime is missing.
    """
    import numpy as np

    from edgessl.exporters.base import run_file

    images, written = _array(job["images"]), written_from(job["written"])
    with extra_of(job["target"]):
        exporter, folder = EXPORTERS.load(job["target"])(), Path(job["folder"])
        logits = in_batches(images, written, lambda x: run_file(exporter, folder, x))
    buffer = io.BytesIO()
    np.save(buffer, logits, allow_pickle=False)
    files.write_bytes(Path(job["outputs"]), buffer.getvalue())
    return {"n": len(logits), "versions": exporter.versions()}


def race(job: dict[str, Any]) -> dict[str, Any]:
    """Time two files of a target image by image, in turn, on one thread.

    Args:
        job: ``target``; ``folders`` and ``written`` of the two; ``images``, a .npy of uint8.

    Returns:
        ``ms``, the median of each in milliseconds, and ``pairs``.
    """
    from edgessl.core.images import to_model_input

    images = _array(job["images"])
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        sessions = [exporter.open(Path(folder)) for folder in job["folders"]]
        inputs = [to_model_input(images, written_from(w).input) for w in job["written"]]
    taken: list[list[float]] = [[], []]
    began = time.monotonic()
    for turn in range(WARM_UP + PAIRS):
        row = turn % len(images)
        for which in (0, 1) if turn % 2 else (1, 0):
            x = inputs[which][row : row + 1]
            start = time.perf_counter()
            sessions[which].infer(x)
            taken[which].append(1000 * (time.perf_counter() - start))
        if time.monotonic() - began > RACE_S and turn > WARM_UP:
            break
    return {"ms": [median(ms[WARM_UP:]) for ms in taken], "pairs": len(taken[0]) - WARM_UP}


def layer_errors(job: dict[str, Any]) -> dict[str, Any]:
    """Compare what every layer gives inside a quantised file with the float file.

    Args:
        job: ``target``; ``folders`` and ``written`` of the float and the quantised file;
            ``images``, a .npy of uint8.

    Returns:
        ``snr_db`` by module.
    """
    from edgessl.core.images import to_model_input
    from edgessl.quantization.sensitivity import file_error

    images = _array(job["images"])
    with extra_of(job["target"]):
        exporter = EXPORTERS.load(job["target"])()
        found = [
            exporter.activations(Path(folder), w.layers, to_model_input(images, w.input))
            for folder, w in zip(job["folders"], map(written_from, job["written"]), strict=True)
        ]
    return {"snr_db": file_error(found[0], found[1])}


TASKS = {
    "convert": convert,
    "quantize": quantize,
    "finish": finish,
    "predict": predict,
    "race": race,
    "layer_errors": layer_errors,
}
BATCH = 256  # images that are prepared at a time


def in_batches(images: NDArray[np.uint8], written: Written, run: Any) -> NDArray[np.float32]:
    """Prepare images as a file takes them, run it, and return its logits (N, C) as float32."""
    import numpy as np

    from edgessl.core.images import to_logits, to_model_input

    parts = [
        to_logits(run(to_model_input(images[i : i + BATCH], written.input)), written.output)
        for i in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


def check_installed(target: str, precision: str = "none") -> None:
    """Refuse a target whose converter, quantiser or runtime is not installed, without importing.

    Raises:
        MissingExtra: Names the package and the extra that brings it.
        UsageProblem: The target is not offered in that precision.
    """
    check_offered(target, precision)
    exporter = EXPORTERS.load(target)
    for package in (*exporter.needs, *exporter.quantizes.get(precision, ())):
        if find_spec(package.split(".")[0]) is None:
            extra = "train" if package in TRAIN_PACKAGES else EXPORTERS[target].extra
            raise missing_extra(f"target '{target}'", package, extra)


def check_offered(target: str, precision: str) -> None:
    """Refuse a precision that a target does not have.

    Raises:
        UsageProblem: Names those that it has.
    """
    offered = offered_by(target)
    if precision not in offered:
        raise UsageProblem(
            f"target '{target}' is not written in {precision}",
            hint=f"choose --quantize {' or '.join(offered)}; see: edgessl list targets",
        )


def as_json(written: Written) -> dict[str, Any]:
    """Return what an exporter wrote as JSON values; :func:`written_from` reads them."""
    return {
        "files": written.files,
        "input": written.input.model_dump(mode="json"),
        "output": written.output.model_dump(mode="json"),
        "layers": [asdict(layer) for layer in written.layers],
    }


def written_from(values: dict[str, Any]) -> Written:
    """Read what :func:`as_json` returned."""
    from edgessl.core.artifact import InputSpec, OutputSpec
    from edgessl.exporters.base import Layer, Written

    return Written(
        files=list(values["files"]),
        input=InputSpec.model_validate(values["input"]),
        output=OutputSpec.model_validate(values["output"]),
        layers=[Layer(**layer) for layer in values["layers"]],
    )


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


def _array(path: str) -> NDArray[np.uint8]:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise FileInvalid(f"{path} is not a readable .npy array: {error}") from error

"""Run a sealed model on prepared images, in a process of its own.

    python -m edgessl.stages.inference JOB.json      see ``edgessl.stages.child``

An exported file runs on its runtime alone, without torch; a plain net runs in torch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.core.images import to_logits, to_model_input
from edgessl.core.registry import missing_extra
from edgessl.core.runs import resolve
from edgessl.exporters import EXPORTERS
from edgessl.exporters.base import run_file
from edgessl.exporters.untrusted import check_files
from edgessl.stages.child import run_child, serve
from edgessl.stages.conversion import extra_of

PROGRAM = ("-m", "edgessl.stages.inference")
PLACES = ("export/*/artifact.json", "extract/*/model.json")
GATE = "gate.json"
BATCH = 256  # images that are float32 at a time
TIMEOUT_S, MEMORY_MB = 3600.0, 8192  # of the process that runs a file


def runnable_folder(what: str | Path | None) -> Path:
    """Return the folder of the sealed model that a path means.

    Args:
        what: Export folder, extracted model, a file in one of them, the folder ``export`` or
            ``extract``, a run folder, or ``last``. Of several exports, the widest net in the
            first format whose runtime is installed is taken; without exports, the extracted net.

    Raises:
        FileInvalid: Nothing there that gives answers, or no such path.
    """
    path = resolve(what, PLACES)
    folder = path if path.is_dir() else path.parent
    if any((folder / name).is_file() for name in ("artifact.json", "model.json", "encoder.json")):
        return folder
    run = folder.parent if folder.name in ("export", "extract") else folder
    exports = [found.parent for found in sorted(run.glob(PLACES[0]))]
    plain = [found.parent for found in sorted(run.glob(PLACES[1]))]
    if folder.name == "extract":
        exports = []
    for candidates in (exports, plain):
        if candidates:
            return min(candidates, key=_preference)
    raise FileInvalid(
        f"{path} holds no model that can answer (looked for {', '.join(PLACES)})",
        hint="cut one out or export one first: edgessl extract, edgessl export",
    )


def _preference(folder: Path) -> tuple[bool, bool, float, int, bool]:
    """Return what to sort by: runs here, not refused, wide, first target, float32."""
    facts = Artifact.load(folder, verify=False).facts
    target = str(facts.get("target", ""))
    order = list(EXPORTERS)
    place = order.index(target) if target in order else len(order)
    smaller = facts.get("quantize", "none") != "none"
    refused = smaller and outcome_of(folder) == "FAIL"
    return not _runs_here(target), refused, -float(facts.get("width", 0)), place, smaller


def outcome_of(folder: Path) -> str | None:
    """Return the verdict on an export; None for float32 and for what was not judged."""
    path = folder / GATE
    return files.read_json(path, "gate")["outcome"] if path.is_file() else None


def _runs_here(target: str) -> bool:
    if target not in tuple(EXPORTERS):
        return True
    runtime = EXPORTERS[target].facts.get("runtime")
    return runtime is None or find_spec(str(runtime)) is not None


def check_runnable(folder: Path, artifact: Artifact) -> None:
    """Refuse a model that cannot answer, before images are decoded.

    Raises:
        FileInvalid: A host network, which is not deployed, or files of an unsafe structure.
        MissingExtra: Its runtime is not installed.
        UsageProblem: It was written for a target that this version does not know.
    """
    if artifact.artifact_kind == "export":
        target = str(artifact.facts.get("target"))
        runtime = EXPORTERS[target].facts.get("runtime")
        if not _runs_here(target):
            raise missing_extra(f"target '{target}'", str(runtime), EXPORTERS[target].extra)
        # what the target writes, not what the document claims, says how its files are checked
        check_files(str(EXPORTERS[target].facts["format"]), folder, list(artifact.files))
    elif artifact.facts.get("form") != "plain":
        raise FileInvalid(
            f"{folder} holds a host network, not the net that is deployed",
            hint=f"cut that one out first: edgessl extract {folder}",
        )
    elif find_spec("torch") is None:
        raise missing_extra("a model that was not exported", "torch", "train")


def run_model(folder: Path, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run the sealed model in ``folder`` in a child process.

    Args:
        folder: Of an export or of a plain net.
        images_NHWC: uint8 (N, height, width, 3), prepared as its ``InputSpec`` says.

    Returns:
        float32 (N, C) logits, or (N, F) features of an embedding model.

    Raises:
        NativeCrash, ConversionFailed, MissingExtra: See ``run_child``.
    """
    with tempfile.TemporaryDirectory(prefix="edgessl-") as name:
        given, got = Path(name) / "images.npy", Path(name) / "outputs.npy"
        np.save(given, images_NHWC, allow_pickle=False)
        job = {"folder": str(folder), "images": str(given), "outputs": str(got)}
        limits = {"timeout_s": TIMEOUT_S, "memory_mb": MEMORY_MB}
        run_child("infer", job, program=PROGRAM, **limits)
        return np.load(got, allow_pickle=False)


def infer(job: dict[str, Any]) -> dict[str, Any]:
    """Run a sealed model on the images in a .npy file; see :func:`run_model`."""
    folder = Path(job["folder"])
    images = np.load(job["images"], mmap_mode="r", allow_pickle=False)
    artifact = Artifact.load(folder, verify=False)  # the parent did
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    run = _exported if artifact.artifact_kind == "export" else _plain
    np.save(job["outputs"], np.concatenate(run(folder, artifact, parts)), allow_pickle=False)
    return {"n": len(images)}


def _exported(
    folder: Path, artifact: Artifact, parts: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    target = artifact.facts["target"]
    with extra_of(target):
        exporter = EXPORTERS.load(target)()
        return [
            to_logits(
                run_file(exporter, folder, to_model_input(part, artifact.input)), artifact.output
            )
            for part in parts
        ]


def _plain(
    folder: Path, artifact: Artifact, parts: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    from edgessl.encoders.loading import load_model
    from edgessl.evaluation.outputs import outputs

    network, _ = load_model(folder)
    return [outputs(network, part, artifact.input) for part in parts]


if __name__ == "__main__":
    sys.exit(serve({"infer": infer}, sys.argv))

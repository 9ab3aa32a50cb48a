"""Export: a plain net to a runtime's file, proven on real images before it is sealed as good.

Converter and runtime run in child processes: a native crash there is a message here.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import GateFailed
from edgessl.core.images import to_model_input
from edgessl.encoders.loading import load_model
from edgessl.evaluation.outputs import outputs
from edgessl.exporters import EXPORTERS
from edgessl.exporters.parity import FLOAT32_TOLERANCE, Parity, compare
from edgessl.stages.child import run_child
from edgessl.stages.context import Context, clear
from edgessl.stages.roles import Split
from edgessl.stages.rows import accuracy_row, write_predictions
from edgessl.stages.seen import check_unseen

GOLDEN = 16


@dataclass(frozen=True)
class Source:
    """The plain net to export, with its float32 outputs on the proof images."""

    folder: Path
    artifact: Artifact
    logits: NDArray[np.float32]

    @classmethod
    def load(cls, context: Context, folder: Path) -> Source:
        """Load a plain net and run it in PyTorch on the proof images."""
        network, artifact = load_model(folder)
        return cls(folder, artifact, outputs(network, context.images.proof.images, artifact.input))


def _name(source: Source, target: str) -> str:
    return f"{source.artifact.facts['width']:g}x {target}"


def export_folder(context: Context, artifact: Artifact, target: str) -> Path:
    """Return where the export of a plain net for a target lies in the run folder."""
    width = f"{artifact.facts['width']:g}x"
    return context.folder("export", f"{width}-{target}-{context.recipe.export.quantize}")


def run_export(context: Context, source: Source, target: str) -> Path:
    """Write, run and prove one target.

    Returns:
        Folder with the target's files, ``artifact.json``, ``golden.npz``, ``parity.json`` and
        ``predictions.csv``.

    Raises:
        UsageProblem: No such target.
        GateFailed: The file does not give the answers of the PyTorch net; both outputs are kept
            in ``mismatch.npz``.
        ConversionFailed, NativeCrash, OutOfMemory, MissingExtra: See ``run_child``.
    """
    EXPORTERS[target]
    check_unseen(context, source.folder)
    folder = export_folder(context, source.artifact, target)
    identity = {
        "source": source.artifact.seal,
        "target": target,
        "quantize": context.recipe.export.quantize,
        "data": context.images.proof.data_sha256,
    }

    def work() -> Path:
        clear(folder)
        folder.mkdir(parents=True)
        _export(context, source, target, folder)
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    return context.stage(f"export {target}", folder, identity, work, load)


def _export(context: Context, source: Source, target: str, folder: Path) -> None:
    section, test = context.recipe.export, context.images.proof
    context.reporter.say(f"export: {_name(source, target)} ...")
    log = folder / "converter.log"
    job = {"target": target, "model_folder": str(source.folder), "out_folder": str(folder)}
    limits: dict[str, Any] = {"timeout_s": section.timeout_s, "memory_mb": section.memory_mb}
    written = run_child("convert", job, log=log, **limits)
    spec = source.artifact.input.with_layout(written["layout"])
    logits = _run(target, folder, to_model_input(test.images, spec), limits, log)
    log.unlink(missing_ok=True)
    artifact = Artifact.sealed(
        folder, written["files"], artifact_kind="export", format=written["format"], input=spec,
        labels=source.artifact.labels, parents=(source.artifact.seal,),
        facts={
            "target": target,
            "quantize": section.quantize,
            "width": source.artifact.facts["width"],
            "architecture": source.artifact.facts["architecture"],
            "tolerance": FLOAT32_TOLERANCE,
            "versions": written["versions"],
        },
    )  # fmt: skip
    _write_golden(folder / "golden.npz", test, source.logits, logits, artifact.seal)
    parity = compare(source.logits, logits)
    _write_parity(folder / "parity.json", parity, artifact, source, test)
    if source.artifact.labels:
        write_predictions(folder / "predictions.csv", test.sha256, test.labels, logits)
        _put_rows(context, source, target, artifact, logits, parity)
    if not parity.passed:
        buffer = io.BytesIO()
        np.savez(buffer, reference=source.logits, got=logits)
        files.write_bytes(folder / "mismatch.npz", buffer.getvalue())
        raise GateFailed(
            f"{target}: logits differ from PyTorch by {parity.max_abs:.2e} of the largest logit "
            f"(allowed {parity.tolerance:.0e}) on {parity.n} images; agreement "
            f"{100 * parity.agreement:.1f} %",
            hint=f"both outputs are in {folder / 'mismatch.npz'}",
        )
    context.reporter.say(
        f"export: {_name(source, target)} agrees with PyTorch on {100 * parity.agreement:.1f} % of "
        f"{parity.n} images, largest difference {parity.max_abs:.1e} of the largest logit"
    )


def _run(
    target: str, folder: Path, inputs: NDArray[np.float32], limits: dict[str, Any], log: Path
) -> NDArray[np.float32]:
    """Run the written file on inputs in a fresh process that has the runtime only."""
    with tempfile.TemporaryDirectory(prefix="edgessl-") as name:
        given, got = Path(name) / "inputs.npy", Path(name) / "outputs.npy"
        np.save(given, inputs, allow_pickle=False)
        job = {
            "target": target, "folder": str(folder), "inputs": str(given), "outputs": str(got),
        }  # fmt: skip
        run_child("predict", job, log=log, **limits)
        return np.load(got, allow_pickle=False)


def golden_rows(test: Split) -> NDArray[np.int64]:
    """Return the first images of every class in turn, up to :data:`GOLDEN`."""
    rank = np.zeros(len(test.labels), np.int64)
    for label in np.unique(test.labels):
        members = np.flatnonzero(test.labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((test.labels, rank))[:GOLDEN]


def _write_golden(
    path: Path, test: Split, reference: NDArray[np.float32], own: NDArray[np.float32], seal: str
) -> None:
    rows = golden_rows(test)
    buffer = io.BytesIO()
    np.savez(
        buffer, images=test.images[rows], reference=reference[rows], expected=own[rows],
        seal=np.array(seal),
    )  # fmt: skip
    files.write_bytes(path, buffer.getvalue())


def _write_parity(
    path: Path, parity: Parity, artifact: Artifact, source: Source, test: Split
) -> None:
    check = parity.as_check("tensors").model_dump(mode="json", by_alias=True)
    body = {
        "seal": artifact.seal,
        "source_seal": source.artifact.seal,
        "where": "workstation",
        "images": {"split": test.name, "n": parity.n, "data_sha256": test.data_sha256},
        "checks": [check],
        "snr_db": parity.snr_db,
        "differing": [list(pair) for pair in parity.differing],
        "bounds": f"{parity.n} real images; says nothing of inputs unlike them",
    }
    files.write_json(path, "parity", body)


def _put_rows(
    context: Context, source: Source, target: str, artifact: Artifact,
    logits: NDArray[np.float32], parity: Parity,
) -> None:  # fmt: skip
    test, facts = context.images.proof, source.artifact.facts
    width = f"{facts['width']:g}x"
    parents = context.ledger.find(stage="extract", artifact_sha256=source.artifact.seal)
    common: dict[str, Any] = {
        "stage": "export", "variant": facts.get("variant", "model"), "width": width,
        "artifact_sha256": artifact.seal, "target": target, "quantize": "none", "split": test.name,
        "data_sha256": test.data_sha256, "labels_per_class": facts.get("labels_per_class"),
        "seed": facts.get("seed"), "draw": facts.get("draw"),
    }  # fmt: skip
    name = f"export/{width}-{target}-none"
    rows = [
        accuracy_row(
            logits.argmax(1) == source.logits.argmax(1), id=f"{name}/agreement",
            metric="agreement", note=f"max abs {parity.max_abs:.1e} of the largest logit",
            **common,
        )
    ]  # fmt: skip
    if (test.labels >= 0).all():  # images that were trained on have none here
        right = logits.argmax(1) == test.labels
        before = source.logits.argmax(1) == test.labels
        note = None if parity.passed else "failed the parity gate"
        compared = (parents[0], before) if parents else None
        row = accuracy_row(right, compared=compared, id=name, metric="top1", note=note, **common)
        rows.insert(0, row)
    context.ledger.put(rows)

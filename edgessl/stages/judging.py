"""The verdict on a quantised file: written, asked for again after labelling, carried out."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.core import files
from edgessl.core.archives import read_npz
from edgessl.core.artifact import Artifact
from edgessl.core.errors import EdgeSSLError, GateFailed, NotProvable
from edgessl.core.recipe import Export
from edgessl.quantization.gate import Bounds, Verdict, as_record, judge
from edgessl.stages.context import Context
from edgessl.stages.export_records import Outputs
from edgessl.stages.flips import FOLDER, TABLE, with_labels, write_flips
from edgessl.stages.inference import GATE
from edgessl.stages.proving import Material
from edgessl.stages.roles import Split

JUDGED = "judged"  # .json and .npz: the answers that a verdict rests on


def bounds_of(section: Export) -> Bounds:
    """Return the bounds of a recipe, as proportions."""
    return Bounds(section.max_drop / 100, section.confidence, section.max_shift / 100)


def write_verdict(
    context: Context, folder: Path, artifact: Artifact, shown: Outputs, known: dict[str, int],
    origin: dict[str, Any],
) -> None:  # fmt: skip
    """Judge a file and write ``gate.json``, and ``flips/`` where labels would help.

    Args:
        context: The run.
        folder: Export folder.
        artifact: The sealed file.
        shown: Its answers on the proof images.
        known: Labels that the user gave: image sha256 to class.
        origin: ``sources`` and ``trained_on`` of :class:`edgessl.stages.proving.Material`.
    """
    bounds = bounds_of(context.recipe.export)
    labels = with_labels(shown.images, known)
    verdict = judge(shown.reference, shown.got, labels, bounds)
    if origin["trained_on"] and verdict.outcome == "PASS":
        why = "the net has learned from these images: unseen ones may flip more often"
        verdict = replace(verdict, outcome="INCONCLUSIVE", reasons=(why, *verdict.reasons))
    body = as_record(verdict, bounds)
    body |= {
        "seal": artifact.seal, "images": origin["sources"], "trained_on": origin["trained_on"],
    }  # fmt: skip
    files.write_json(folder / GATE, "gate", body)
    if verdict.outcome == "INCONCLUSIVE" and verdict.to_label:
        write_flips(
            folder, shown.images, verdict.to_label, (shown.reference, shown.got), artifact.labels,
            known,
        )  # fmt: skip
    _tell(context, artifact, verdict)


def keep_answers(
    folder: Path, shown: Outputs, identity: dict[str, Any], origin: dict[str, Any]
) -> None:
    """Keep what a verdict rests on, so that labels can settle it without another conversion."""
    buffer = io.BytesIO()
    np.savez(
        buffer, reference=shown.reference, got=shown.got,
        sha256=np.array(shown.images.sha256, dtype="U64"),
    )  # fmt: skip
    files.write_bytes(folder / f"{JUDGED}.npz", buffer.getvalue())
    files.write_json(folder / f"{JUDGED}.json", JUDGED, {"identity": identity, "origin": origin})


def judge_again(
    context: Context, folder: Path, identity: dict[str, Any], known: dict[str, int], proof: Any
) -> bool:
    """Judge a finished file with the labels there are now; False when it must be made anew.

    Args:
        context: The run.
        folder: Export folder.
        identity: What the file depends on, labels of flips apart.
        known: Labels that the user gave.
        proof: Called without arguments, gives the :class:`Material` of the run.
    """
    try:
        kept = files.read_json(folder / f"{JUDGED}.json", JUDGED)
        if kept["identity"] != identity:
            return False
        artifact = Artifact.load(folder)
        arrays = read_npz(folder / f"{JUDGED}.npz", ("reference", "got", "sha256"))
    except EdgeSSLError:
        return False
    material: Material = proof()
    images = first(material.proof, len(arrays["sha256"]))
    if list(images.sha256) != arrays["sha256"].tolist():
        return False
    shown = Outputs(images, arrays["reference"], arrays["got"])
    write_verdict(context, folder, artifact, shown, known, kept["origin"])
    return True


def settle(context: Context, folder: Path, target: str) -> None:
    """Carry out the verdict of a finished export.

    Raises:
        GateFailed: The file loses more than is allowed.
        NotProvable: The images cannot decide, and the recipe does not allow that.
    """
    section, name = context.recipe.export, f"{target} {context.recipe.export.quantize}"
    if not (folder / GATE).is_file():
        if section.quantize != "fp16" and not section.allow_inconclusive:
            raise NotProvable(
                f"{name}: an embedding model gives no answers that could be compared; "
                f"{folder / 'parity.json'} says how near its features are",
                hint="fine-tune first, or accept the file with --allow-inconclusive",
            )
        return
    gate = files.read_json(folder / GATE, "gate")
    reasons = "; ".join(gate["reasons"])
    if gate["outcome"] == "FAIL":
        raise GateFailed(
            f"{name}: {reasons}",
            hint=f"see docs/int8.md; what was tried is in {folder / 'search.json'}",
        )
    if gate["outcome"] == "INCONCLUSIVE" and not section.allow_inconclusive:
        raise NotProvable(f"{name}: {reasons}", hint=_way_out(context, folder, gate))


def first(split: Split, n: int) -> Split:
    """Return the first images of a split."""
    return replace(
        split, images=split.images[:n], labels=split.labels[:n], items=split.items[:n],
        sha256=split.sha256[:n], source_sha256=split.source_sha256[:n],
    )  # fmt: skip


def _way_out(context: Context, folder: Path, gate: dict[str, Any]) -> str:
    ways = []
    if gate["to_label"] and (folder / FOLDER / TABLE).is_file():
        ways.append(
            f"fill in the column 'label' of {folder / FOLDER / TABLE} and run this again with "
            f"--resume --out {context.run.path}"
        )
    if gate["needed"]:
        ways.append(f"give about {gate['needed']:,} unseen images with --proof (no labels needed)")
    ways.append("accept it as it is with --allow-inconclusive")
    return ", or ".join(ways)


def _tell(context: Context, artifact: Artifact, verdict: Verdict) -> None:
    target, precision = artifact.facts["target"], artifact.facts["quantize"]
    tell = context.reporter.say if verdict.outcome == "PASS" else context.reporter.warn
    tell(
        f"export: {target} {precision} ({artifact.facts['chosen']}): {verdict.outcome}; "
        f"{'; '.join(verdict.reasons)}"
    )

"""Bench: exported files on a device, figures with verdicts beside them."""

from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import EdgeSSLError, Interrupted, MeasurementNotValid, UsageProblem
from edgessl.core.measurement import VERDICT_ORDER, BenchResult
from edgessl.devices import DEVICES
from edgessl.devices.base import Board, Device
from edgessl.devices.bench import RUNTIME_OF_FORMAT, bench_artifact
from edgessl.devices.protocol import expected_seconds, preset_named
from edgessl.exporters import EXPORTERS, RUN_HERE
from edgessl.exporters.untrusted import check_files
from edgessl.stages.context import Context
from edgessl.stages.roles import Split
from edgessl.stages.rows import accuracy_row
from edgessl.stages.seen import check_unseen

if TYPE_CHECKING:
    from edgessl.stages.export import Source

PACK = "evaluation-pack.npz"


def run_bench(
    context: Context, source: Source | None, folders: list[Path]
) -> tuple[list[BenchResult], list[EdgeSSLError]]:
    """Measure export folders on the recipe's device; finished ones of the same seal are kept.

    Args:
        context: The run.
        source: The plain net the files came from, for agreement on the device; None without.
        folders: Export stage folders.

    Returns:
        What was measured, and what went wrong: folders that could not be measured, and one
        ``MeasurementNotValid`` when a verdict is not VALID and the recipe does not allow that.
    """
    section = context.recipe.bench
    device: Device = DEVICES.load(section.device)(Board(section.device))
    preset = preset_named(section.preset)
    pack, proof = context.folder("bench", PACK), context.pictures.proof
    minutes = expected_seconds(preset) * len(folders) / 60
    context.reporter.say(
        f"bench: {len(folders)} artifact(s) on {device.id}, preset {preset.name}, "
        f"about {minutes:.1f} minutes"
    )
    results: list[BenchResult] = []
    problems: list[EdgeSSLError] = []
    began = time.monotonic()
    if source is not None:
        check_unseen(context, source.folder)
    try:
        evaluation_pack(pack, proof, source.on_proof(context) if source else None)
        for folder in folders:
            try:
                results.append(_one(context, device, folder, pack))
            except Interrupted:
                raise
            except EdgeSSLError as error:
                problems.append(error)
                context.reporter.warn(f"{folder.name}: {error.message}")
    finally:
        pack.unlink(missing_ok=True)
        device.close()
    status = "failed" if problems else "done"
    context.run.finish_stage("bench", time.monotonic() - began, status)
    doubtful = [r for r in results if r.verdict != "VALID"]
    if doubtful and not section.allow_unstable:
        worst = min(doubtful, key=lambda result: VERDICT_ORDER.index(result.verdict))
        problems.append(
            MeasurementNotValid(
                f"{len(doubtful)} of {len(results)} measurements are not valid: "
                f"{'; '.join(worst.reasons) or worst.verdict}",
                hint="close other programs and bench again, or accept it with --allow-unstable",
            )
        )
    return results, problems


def measurable(artifact: Artifact) -> bool:
    """Return whether the runtime that a file is meant for runs here; unknown targets count."""
    target, precision = artifact.facts.get("target"), artifact.facts.get("quantize", "none")
    if target not in tuple(EXPORTERS):
        return True
    scheme = artifact.facts.get("scheme") or {}
    state = EXPORTERS[target].facts.get(scheme.get("precision", precision))
    return state == RUN_HERE


def _one(context: Context, device: Device, folder: Path, pack: Path) -> BenchResult:
    section, artifact = context.recipe.bench, Artifact.load(folder)
    if not measurable(artifact):
        raise UsageProblem(
            f"{folder.name} is prepared for another runtime than this machine has: its latency "
            "here would say nothing",
            hint=f"see docs/target-{artifact.facts['target']}.md for how to time it on the board",
        )
    runtime = RUNTIME_OF_FORMAT.get(artifact.format)
    if runtime is None:
        raise UsageProblem(
            f"no runtime on a device reads {artifact.format} files ({folder.name})",
            hint=f"formats that can be measured: {', '.join(RUNTIME_OF_FORMAT)}",
        )
    check_files(artifact.format, folder, list(artifact.files))
    stem = f"{folder.name}-{runtime}-{section.threads}t-"
    place = context.folder("bench", device.id)
    for finished in sorted(place.glob(f"{stem}*/result.json")):
        kept = BenchResult.model_validate(files.read_json(finished, "bench-result"))
        same = (
            kept.model.get("seal") == artifact.seal
            and kept.protocol["preset"]["name"] == section.preset
            and kept.data.get("data_sha256") == context.pictures.proof.data_sha256
            and kept.device.get("kind") == device.kind
        )
        if same:
            context.reporter.say(f"bench: kept ({finished.parent})")
            return kept
    out = place / f"{stem}{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    preset = preset_named(section.preset)
    with context.reporter.bar(f"bench {folder.name}", total=1) as bar:
        result = bench_artifact(
            device, folder, pack, out, preset=preset, threads=section.threads,
            progress=lambda line: bar.update(0, line),
        )  # fmt: skip
    _put_rows(context, device, folder, artifact, result, out)
    context.reporter.say(f"bench: {folder.name}  {figure(result)}")
    return result


def figure(result: BenchResult) -> str:
    """Say the latency with its verdict; a wrong file has no latency to say."""
    infer = result.latency_ms.get("infer")
    verdict = "; ".join(result.reasons) or ", ".join(result.verdicts)
    if infer is None or infer.p50 is None:
        return f"no figure  [{verdict}]"
    p90 = f", p90 {infer.p90:.3f}" if infer.p90 is not None else ""
    return f"infer p50 {infer.p50:.3f} ms{p90} (n {infer.n})  [{verdict}]"


def _put_rows(
    context: Context, device: Device, folder: Path, artifact: Artifact, result: BenchResult,
    out: Path,
) -> None:  # fmt: skip
    """Put top-1 on the device into the ledger, compared with this file on the workstation."""
    if result.accuracy is None or not artifact.labels:
        return
    here, before = _answers(out / "predictions.csv"), _answers(folder / "predictions.csv")
    exported = context.ledger.find(stage="export", artifact_sha256=artifact.seal, metric="top1")
    facts = exported[0] if exported else None
    comparable = facts is not None and [k for k, _ in here] == [k for k, _ in before]
    target = artifact.facts["target"]
    context.ledger.put(
        [
            accuracy_row(
                _right(here), compared=(facts, _right(before)) if facts and comparable else None,
                id=f"bench/{device.id}/{target}-{context.recipe.bench.threads}t-{artifact.seal[:8]}",
                stage="bench", variant=facts.variant if facts else "model",
                artifact_sha256=artifact.seal, width=f"{artifact.facts['width']:g}x",
                target=target, quantize=artifact.facts["quantize"], where=device.id,
                split="test", data_sha256=context.pictures.proof.data_sha256,
                labels_per_class=facts.labels_per_class if facts else None,
                seed=facts.seed if facts else None, draw=facts.draw if facts else None,
                metric="top1", note=f"verdict {result.verdict}",
            )
        ]
    )  # fmt: skip


def _answers(path: Path) -> list[tuple[str, bool]]:
    """Return (image sha256, answered right) for every line of a ``predictions.csv``."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [(x["sha256"], x["label"] == x["predicted"]) for x in csv.DictReader(stream)]


def _right(answers: list[tuple[str, bool]]) -> NDArray[np.bool_]:
    return np.array([right for _, right in answers])


def find_source(context: Context, folder: Path, runs: list[Path]) -> Source | None:
    """Return the plain net that an export came from, looked for in the runs of its lineage.

    None if it is not there any more, or torch is not installed.
    """
    wanted = Artifact.load(folder).parents
    for run in runs:
        for path in run.glob("extract/*/model.json"):
            if files.read_json(path, "model").get("seal") in wanted:
                try:
                    from edgessl.stages.export import Source

                    return Source.load(context, path.parent)
                except (EdgeSSLError, ModuleNotFoundError) as error:
                    context.reporter.detail(f"no reference outputs: {error}")
    return None


def evaluation_pack(path: Path, test: Split, reference: NDArray[np.float32] | None) -> None:
    """Write the test images as an evaluation pack for a device (see ``devices.pack.Pack``).

    Args:
        path: The ``.npz`` to write.
        test: Images and labels.
        reference: float32 PyTorch logits (N, C), for agreement on the device; None without.
    """
    arrays: dict[str, NDArray[Any]] = {
        "images": test.images,
        "labels": test.labels,
        "sha256": np.array(test.sha256, dtype="U64"),
    }
    if reference is not None:
        arrays["reference"] = reference
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())

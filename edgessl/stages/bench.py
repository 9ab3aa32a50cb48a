"""Bench: exported files on a device, figures with verdicts beside them."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import (
    BoardUnreachable,
    EdgeSSLError,
    GateFailed,
    Interrupted,
    MeasurementNotValid,
    UsageProblem,
)
from edgessl.core.measurement import VERDICT_ORDER, BenchResult
from edgessl.devices.base import Device
from edgessl.devices.bench import bench_artifact
from edgessl.devices.choice import runtime_for
from edgessl.exporters import EXPORTERS, RUN_HERE
from edgessl.exporters.untrusted import check_files
from edgessl.stages.bench_kept import kept_bench
from edgessl.stages.bench_words import energy_line, figure
from edgessl.stages.board_answers import (
    BoardParity,
    compare_answers,
    read_answers,
    write_parity,
)
from edgessl.stages.board_opening import asked_of, bring_runtime, open_device, seconds_on
from edgessl.stages.context import Context
from edgessl.stages.profile_names import operation_modules
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
        What was measured, and what went wrong: folders that could not be measured, a
        ``GateFailed`` for wrong answers, and a ``MeasurementNotValid`` when another verdict is
        not VALID and the recipe does not allow that.

    Raises:
        UsageProblem: No such device.
    """
    section = context.recipe.bench
    device, asked = open_device(section), asked_of(section)
    pack, proof = context.folder("bench", PACK), context.pictures.proof
    results: list[BenchResult] = []
    problems: list[EdgeSSLError] = []
    began = time.monotonic()
    if source is not None:
        check_unseen(context, source.folder)
    try:
        minutes = len(folders) * seconds_on(device, asked) / 60
        context.reporter.say(
            f"bench: {len(folders)} artifact(s) on {device.id}, preset {section.preset}, "
            f"about {minutes:.1f} minutes"
        )
        evaluation_pack(pack, proof, source.on_proof(context) if source else None)
        for folder in folders:
            try:
                result, parity = _one(context, device, folder, pack)
                results.append(result)
                if parity is not None and (failed := parity_problem(folder.name, parity)):
                    problems.append(failed)
            except Interrupted:
                raise
            except EdgeSSLError as error:
                problems.append(error)
                context.reporter.warn(f"{folder.name}: {error.message}")
                if isinstance(error, BoardUnreachable):
                    break  # asking again for every file would only take longer to say the same
    finally:
        pack.unlink(missing_ok=True)
        device.close()
    problems += verdict_problems(results, section.allow_unstable)
    context.run.finish_stage("bench", time.monotonic() - began, "failed" if problems else "done")
    return results, problems


def verdict_problems(results: list[BenchResult], allow: bool) -> list[EdgeSSLError]:
    """Return the errors that the verdicts of results mean.

    Args:
        results: All that were taken.
        allow: Whether figures that are not VALID are accepted; wrong answers never are.
    """
    wrong = [r for r in results if r.verdict == "WRONG_ANSWERS"]
    doubtful = [r for r in results if r.verdict not in ("VALID", "WRONG_ANSWERS")]
    problems: list[EdgeSSLError] = []
    if wrong:
        problems.append(
            GateFailed(
                f"{len(wrong)} of {len(results)} files give wrong answers on the device: "
                f"{'; '.join(wrong[0].reasons)}",
                hint="see docs/verdicts.md; the runtime on the device may be too old for the file",
            )
        )
    if doubtful and not allow:
        worst = min(doubtful, key=lambda result: VERDICT_ORDER.index(result.verdict))
        problems.append(
            MeasurementNotValid(
                f"{len(doubtful)} of {len(results)} measurements are not valid: "
                f"{'; '.join(worst.reasons) or worst.verdict}",
                hint="close other programs and bench again, or accept it with --allow-unstable",
            )
        )
    return problems


def parity_problem(name: str, told: BoardParity) -> EdgeSSLError | None:
    """Return an error for a file that answers otherwise on the device than here.

    Args:
        name: What the message calls the bench.
        told: The comparison.
    """
    if told.outcome != "FAIL":
        return None
    return GateFailed(
        f"{name}: only {100 * told.agreement:.1f} % of the answers on the device are those of the "
        f"workstation (at least {100 * told.least_agreement:g} % wanted), top-1 drops by at least "
        f"{100 * told.drop_low:.2f} points",
        hint="both answers are in predictions.csv, of the bench and of the export",
    )


def measurable(artifact: Artifact, kind: str) -> bool:
    """Return whether a kind of device runs what a file is meant for; unknown targets count."""
    target, precision = artifact.facts.get("target"), artifact.facts.get("quantize", "none")
    if target not in tuple(EXPORTERS) or (target == "tensorrt" and kind == "jetson"):
        return True
    scheme = artifact.facts.get("scheme") or {}
    state = EXPORTERS[target].facts.get(scheme.get("precision", precision))
    return state == RUN_HERE


def _one(
    context: Context, device: Device, folder: Path, pack: Path
) -> tuple[BenchResult, BoardParity | None]:
    section, artifact = context.recipe.bench, Artifact.load(folder)
    asked = asked_of(section)
    if not measurable(artifact, device.kind):
        raise UsageProblem(
            f"{folder.name} is prepared for another runtime than this device has: its latency "
            "here would say nothing",
            hint=f"see docs/target-{artifact.facts['target']}.md for how to time it on the board",
        )
    bring_runtime(context, device, artifact.format)
    runtime, _provider = runtime_for(artifact, asked, device.traits, device.facts())
    check_files(artifact.format, folder, list(artifact.files))
    stem = f"{folder.name}-{runtime}-{section.threads}t-"
    place, images = context.folder("bench", device.id), context.pictures.proof.data_sha256
    kept = kept_bench(place, stem, artifact, device, asked, images, section.allow_unstable)
    if kept is not None:
        context.reporter.say(f"bench: kept ({kept[1]})")
        return kept[0], _recorded(context, device, folder, artifact, kept[0], kept[1])
    out = place / f"{stem}{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    modules = operation_modules(folder, artifact) if asked.profile else {}
    with context.reporter.bar(f"bench {folder.name}", total=1) as bar:
        result = bench_artifact(
            device, folder, pack, out, asked=asked, modules=modules,
            progress=lambda line: bar.update(0, line),
        )  # fmt: skip
    context.reporter.say(f"bench: {folder.name}  {figure(result)}")
    context.reporter.say(f"  {'; '.join(result.conditions)}")
    if result.energy is not None:
        context.reporter.say(f"  {energy_line(result.energy)}")
    return result, _recorded(context, device, folder, artifact, result, out)


def _recorded(
    context: Context, device: Device, folder: Path, artifact: Artifact, result: BenchResult,
    out: Path,
) -> BoardParity | None:  # fmt: skip
    """Write the ledger row and ``parity.json`` of a bench; return what it says, if it can."""
    _put_rows(context, device, folder, artifact, result, out)
    here, there = read_answers(folder / "predictions.csv"), read_answers(out / "predictions.csv")
    precision, admitted = artifact.facts.get("quantize", "none"), context.recipe.export.max_drop
    parity = compare_answers(there, here, precision, admitted / 100)
    if parity is not None:
        write_parity(out / "parity.json", parity, artifact.seal, device.id)
        context.reporter.say(f"  board parity {parity.outcome}: {parity.told}")
    return parity


def _put_rows(
    context: Context, device: Device, folder: Path, artifact: Artifact, result: BenchResult,
    out: Path,
) -> None:  # fmt: skip
    """Put top-1 on the device into the ledger, compared with this file on the workstation."""
    if result.accuracy is None or not artifact.labels:
        return
    here, before = read_answers(out / "predictions.csv"), read_answers(folder / "predictions.csv")
    exported = context.ledger.find(stage="export", artifact_sha256=artifact.seal, metric="top1")
    facts = exported[0] if exported else None
    comparable = facts is not None and [a.image for a in here] == [b.image for b in before]
    target, right = artifact.facts["target"], np.array([a.right for a in here])
    was_right = np.array([b.right for b in before])
    context.ledger.put(
        [
            accuracy_row(
                right, compared=(facts, was_right) if facts and comparable else None,
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

"""Bench: exported files on a device, figures with verdicts beside them."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import EdgeSSLError, MeasurementNotValid
from edgessl.core.measurement import BenchResult
from edgessl.devices import DEVICES
from edgessl.devices.base import Device
from edgessl.devices.bench import RUNTIME_OF_FORMAT, bench_artifact
from edgessl.devices.protocol import expected_seconds, preset_named
from edgessl.stages.context import Context
from edgessl.stages.export import Source, evaluation_pack
from edgessl.stages.rows import accuracy_row

PACK = "evaluation-pack.npz"


def run_bench(context: Context, source: Source | None, folders: list[Path]) -> list[BenchResult]:
    """Measure export folders on the recipe's device; finished ones of the same seal are kept.

    Args:
        context: The run.
        source: The plain net the files came from, for agreement on the device; None without.
        folders: Export stage folders.

    Raises:
        MeasurementNotValid: A verdict is not VALID and the recipe does not allow that. All
            folders are measured first.
        EdgeSSLError: The worst error of a folder that could not be measured.
    """
    section = context.recipe.bench
    device: Device = DEVICES.load(section.device)()
    preset = preset_named(section.preset)
    pack = context.folder("bench", PACK)
    evaluation_pack(pack, context.splits.test, source.logits if source else None)
    minutes = expected_seconds(preset) * len(folders) / 60
    context.reporter.say(
        f"bench: {len(folders)} artifact(s) on {device.id}, preset {preset.name}, "
        f"about {minutes:.1f} minutes"
    )
    results, problems = [], []
    for folder in folders:
        try:
            results.append(_one(context, device, folder, pack))
        except EdgeSSLError as error:
            problems.append(error)
            context.reporter.warn(f"{folder.name}: {error.message}")
    pack.unlink(missing_ok=True)
    if problems:
        raise problems[0]
    doubtful = [r for r in results if r.verdict != "VALID"]
    if doubtful and not section.allow_unstable:
        worst = doubtful[0]
        raise MeasurementNotValid(
            f"{len(doubtful)} of {len(results)} measurements are not valid; "
            f"{worst.verdict}: {'; '.join(worst.reasons) or 'see result.json'}",
            hint="close other programs and bench again, or accept it with --allow-unstable",
        )
    return results


def _one(context: Context, device: Device, folder: Path, pack: Path) -> BenchResult:
    section, artifact = context.recipe.bench, Artifact.load(folder)
    runtime = RUNTIME_OF_FORMAT[artifact.format]
    stem = f"{folder.name}-{runtime}-{section.threads}t-"
    place = context.folder("bench", device.id)
    for finished in sorted(place.glob(f"{stem}*/result.json")):
        kept = BenchResult.model_validate(files.read_json(finished, "bench-result"))
        same = kept.protocol["preset"]["name"] == section.preset
        if kept.model.get("seal") == artifact.seal and same:
            context.reporter.say(f"bench: kept ({finished.parent})")
            return kept
    out = place / f"{stem}{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    preset = preset_named(section.preset)
    with context.reporter.bar(f"bench {folder.name}", total=1) as bar:
        result = bench_artifact(
            device, folder, pack, out, preset=preset, threads=section.threads,
            progress=lambda line: bar.update(0, line),
        )  # fmt: skip
    _put_rows(context, device, artifact, result, out)
    context.reporter.say(f"bench: {folder.name}  {figure(result)}")
    return result


def figure(result: BenchResult) -> str:
    """Say the latency with its verdict; a wrong file has no latency to say."""
    infer, verdict = result.latency_ms.get("infer"), ", ".join(result.verdicts)
    if infer is None or infer.p50 is None:
        return f"no figure  [{verdict}] {'; '.join(result.reasons)}"
    p90 = f", p90 {infer.p90:.3f}" if infer.p90 is not None else ""
    text = f"infer p50 {infer.p50:.3f} ms{p90} (n {infer.n})  [{verdict}]"
    return text + (f" {'; '.join(result.reasons)}" if result.reasons else "")


def _put_rows(
    context: Context, device: Device, artifact: Artifact, result: BenchResult, out: Path
) -> None:
    if result.accuracy is None or not (out / "predictions.csv").is_file():
        return
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    right = np.array([line["label"] == line["predicted"] for line in lines])
    parents = context.ledger.find(stage="export", artifact_sha256=artifact.seal, metric="top1")
    before = _right_on_workstation(context, artifact)
    facts = parents[0] if parents else None
    context.ledger.put(
        [
            accuracy_row(
                right, parent=(facts, before) if facts and before is not None else None,
                id=f"bench/{device.id}/{artifact.facts['target']}-{artifact.seal[:8]}",
                stage="bench", variant=facts.variant if facts else "model",
                artifact_sha256=artifact.seal, width=f"{artifact.facts['width']:g}x",
                target=artifact.facts["target"], quantize=artifact.facts["quantize"],
                where=device.id, split="test", data_sha256=context.splits.test.data_sha256,
                labels_per_class=facts.labels_per_class if facts else None,
                seed=facts.seed if facts else None, draw=facts.draw if facts else None,
                metric="top1", note=f"verdict {result.verdict}",
            )
        ]
    )  # fmt: skip


def _right_on_workstation(context: Context, artifact: Artifact) -> NDArray[np.bool_] | None:
    for path in context.folder("export").glob("*/artifact.json"):
        if files.read_json(path, "export").get("seal") == artifact.seal:
            with (path.parent / "predictions.csv").open(newline="", encoding="utf-8") as stream:
                rows = csv.DictReader(stream)
                return np.array([row["label"] == row["predicted"] for row in rows])
    return None

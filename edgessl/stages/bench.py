"""Bench: exported files on a device, figures with verdicts beside them."""

from __future__ import annotations

import io
import time
from dataclasses import replace
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
from edgessl.core.recipe import Bench
from edgessl.devices import DEVICES
from edgessl.devices.base import Board, Device
from edgessl.devices.bench import bench_artifact
from edgessl.devices.boards import resolve
from edgessl.devices.choice import Asked, asked_values, runtime_for
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import preset_named
from edgessl.devices.runtimes import RUNTIMES, readers_of
from edgessl.devices.setup import set_up
from edgessl.exporters import EXPORTERS, RUN_HERE
from edgessl.exporters.untrusted import check_files
from edgessl.stages.board_answers import compare_answers, read_answers, write_parity
from edgessl.stages.context import Context
from edgessl.stages.profile_names import operation_modules
from edgessl.stages.roles import Split
from edgessl.stages.rows import accuracy_row
from edgessl.stages.seen import check_unseen

if TYPE_CHECKING:
    from edgessl.stages.export import Source

PACK = "evaluation-pack.npz"


def board_of(section: Bench) -> Board:
    """Return the board that a recipe names, by kind or by the name it was added under.

    Raises:
        UsageProblem: No such kind or name, or the kind needs an address.
    """
    return resolve(section.device, section.address, section.python)


def open_device(section: Bench) -> Device:
    """Return the device that a recipe names; nothing is reached yet.

    Raises:
        UsageProblem: As :func:`board_of`.
        MissingExtra: A package that its kind needs is not installed.
    """
    board = board_of(section)
    return DEVICES.load(board.kind)(board)


def asked_of(section: Bench) -> Asked:
    """Return what a recipe asks of a bench."""
    return Asked(
        preset=preset_named(section.preset),
        runtime=section.runtime,
        provider=section.provider,
        threads=section.threads,
        cores=section.cores or (),
        fixed_performance=section.fixed_performance,
        fps=section.fps,
        energy=section.measures_energy,
        battery_wh=section.battery_wh,
        power_csv=Path(section.power_csv) if section.power_csv else None,
        power_scope=section.power_scope,
        profile=section.profile_layers,
    )


def seconds_on(device: Device, asked: Asked) -> float:
    """Return what one artifact takes at least; without a meter nothing waits for one."""
    metered = asked.power_csv is not None or device.traits.meter(device.facts()) is not None
    return asked.seconds if metered else replace(asked, energy=False).seconds


def lacks_runtime(device: Device, form: str) -> bool:
    """Whether no runtime on a device reads a format."""
    packages = device.facts().get("runtimes", {})
    return not any(RUNTIMES[name].is_among(packages) for name in readers_of(form))


def bring_runtime(context: Context, device: Device, form: str) -> None:
    """Bring a runtime for a format to a board that lacks it, where the recipe says so.

    Raises:
        EdgeSSLError: See ``devices.setup.set_up``.
    """
    section = context.recipe.bench
    if not (section.setup and isinstance(device, LinuxDevice) and device.board.address):
        return
    if not lacks_runtime(device, form):
        return
    asked = (section.runtime or "").partition(":")[0]
    name = asked if asked in readers_of(form) else readers_of(form)[0]
    set_up(device, name, say=context.reporter.say)


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
                results.append(_one(context, device, folder, pack))
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
    problems += _parity_problems(context, results)
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


def _parity_problems(context: Context, results: list[BenchResult]) -> list[EdgeSSLError]:
    """Return an error for every file that answers otherwise on the device than here."""
    seals = {result.model.get("seal") for result in results}
    problems: list[EdgeSSLError] = []
    for path in sorted(context.folder("bench").glob("*/*/parity.json")):
        told = files.read_json(path, "board-parity")
        if told.get("outcome") == "FAIL" and told.get("seal") in seals:
            name = path.parent.name
            share, low = 100 * told["agreement"], 100 * told["drop_low"]
            problems.append(
                GateFailed(
                    f"{name}: only {share:.1f} % of the answers on the device are those of the "
                    f"workstation (at least {100 * told['least_agreement']:g} % wanted), top-1 "
                    f"drops by at least {low:.2f} points",
                    hint=f"both answers are in {path.parent / 'predictions.csv'} and in the "
                    "export folder",
                )
            )
    return problems


def measurable(artifact: Artifact, kind: str) -> bool:
    """Return whether a kind of device runs what a file is meant for; unknown targets count."""
    target, precision = artifact.facts.get("target"), artifact.facts.get("quantize", "none")
    if target not in tuple(EXPORTERS) or (target == "tensorrt" and kind == "jetson"):
        return True
    scheme = artifact.facts.get("scheme") or {}
    state = EXPORTERS[target].facts.get(scheme.get("precision", precision))
    return state == RUN_HERE


def _one(context: Context, device: Device, folder: Path, pack: Path) -> BenchResult:
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
    place = context.folder("bench", device.id)
    for finished in sorted(place.glob(f"{stem}*/result.json")):
        kept = BenchResult.model_validate(files.read_json(finished, "bench-result"))
        same = (
            kept.model.get("seal") == artifact.seal
            and kept.protocol["preset"]["name"] == section.preset
            and kept.protocol.get("asked") == asked_values(asked)
            and kept.data.get("data_sha256") == context.pictures.proof.data_sha256
            and kept.device.get("kind") == device.kind
        )
        if same:
            context.reporter.say(f"bench: kept ({finished.parent})")
            return kept
    out = place / f"{stem}{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    modules = operation_modules(folder, artifact) if asked.profile else {}
    with context.reporter.bar(f"bench {folder.name}", total=1) as bar:
        result = bench_artifact(
            device, folder, pack, out, asked=asked, modules=modules,
            progress=lambda line: bar.update(0, line),
        )  # fmt: skip
    _put_rows(context, device, folder, artifact, result, out)
    context.reporter.say(f"bench: {folder.name}  {figure(result)}")
    context.reporter.say(f"  {'; '.join(result.conditions)}")
    if result.energy is not None:
        context.reporter.say(f"  {energy_line(result.energy)}")
    here, there = read_answers(folder / "predictions.csv"), read_answers(out / "predictions.csv")
    precision, admitted = artifact.facts.get("quantize", "none"), context.recipe.export.max_drop
    if (parity := compare_answers(there, here, precision, admitted / 100)) is not None:
        write_parity(out / "parity.json", parity, artifact.seal, device.id)
        context.reporter.say(f"  board parity {parity.outcome}: {parity.told}")
    return result


def figure(result: BenchResult) -> str:
    """Say the latency with its verdict; a wrong file has no latency to say."""
    infer = result.latency_ms.get("infer")
    verdict = "; ".join(result.reasons) or ", ".join(result.verdicts)
    if infer is None or infer.p50 is None:
        return f"no figure  [{verdict}]"
    p90 = f", p90 {infer.p90:.3f}" if infer.p90 is not None else ""
    return f"infer p50 {infer.p50:.3f} ms{p90} (n {infer.n})  [{verdict}]"


def energy_line(energy: dict[str, Any]) -> str:
    """Say the energy of an inference, or why there is none."""
    notes = "; ".join(energy.get("notes", ()))
    if energy.get("scope") is None or energy.get("net_j") is None:
        return f"energy: {notes or 'not measurable here'}"
    hours = energy.get("hours_on_battery")
    lasts = f", {hours:.1f} h on {energy['battery_wh']:g} Wh" if hours is not None else ""
    return (
        f"energy ({energy['scope']}, {energy['source']}): net {1000 * energy['net_j']:.2f} mJ per "
        f"inference [{1000 * energy['net_low']:.2f}, {1000 * energy['net_high']:.2f}], gross "
        f"{1000 * energy['gross_j']:.2f} mJ{lasts}" + (f"; {notes}" if notes else "")
    )


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

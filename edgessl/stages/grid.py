"""A grid of untrained nets on a device: width and resolution are chosen before days are spent."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import BoardUnreachable, EdgeSSLError, Interrupted, UsageProblem
from edgessl.core.measurement import BenchResult
from edgessl.devices.base import Device
from edgessl.devices.bench import bench_artifact
from edgessl.devices.choice import runtime_for
from edgessl.encoders import ENCODERS
from edgessl.evaluation.outputs import outputs
from edgessl.exporters import EXPORTERS
from edgessl.stages.bench import PACK, evaluation_pack
from edgessl.stages.bench_kept import kept_bench
from edgessl.stages.bench_words import figure
from edgessl.stages.board_opening import asked_of, bring_runtime, lacks_runtime, seconds_on
from edgessl.stages.context import Context
from edgessl.stages.conversion import check_installed
from edgessl.stages.export_records import Outputs
from edgessl.stages.profile_names import operation_modules
from edgessl.stages.untrained import Cell, export_untrained, pictures_of, untrained_net


@dataclass(frozen=True, slots=True)
class GridRow:
    """What was found out about one configuration; times in milliseconds, sizes in bytes.

    Percentiles are None where too few samples were taken, or the answers were wrong.
    """

    encoder: str
    width: float
    imgsz: int
    target: str
    quantize: str
    parameters: int
    macs: int
    bytes: int
    runtime: str
    threads: int
    p50: float | None
    ci_low: float | None
    ci_high: float | None
    p90: float | None
    e2e_p50: float | None
    max_rss_mb: float | None
    verdict: str
    result_kind: str
    result: str


def cells_of(encoders: Sequence[str], widths: Sequence[float], sizes: Sequence[int]) -> list[Cell]:
    """Return all combinations, the small images first.

    Raises:
        UsageProblem: An unknown encoder, or nothing to combine.
    """
    for name in encoders:
        ENCODERS[name]
    cells = [Cell(e, w, s) for e, w, s in product(encoders, widths, sorted(sizes))]
    if not cells:
        raise UsageProblem(
            "a grid needs at least one encoder, width and image size",
            hint="edgessl bench --encoder mobilenet_v3_small --width 0.5x,1x --imgsz 128,224",
        )
    return list(dict.fromkeys(cells))


def run_grid(
    context: Context, device: Device, cells: Sequence[Cell], target: str | None, pictures_from: str
) -> tuple[list[GridRow], list[BenchResult], list[EdgeSSLError]]:
    """Write, check and time every configuration on a device.

    Args:
        context: The run; its recipe says the precision and how to bench.
        device: Where to time; closed at the end.
        cells: The configurations.
        target: Name in the table of targets; None takes what the device runs best.
        pictures_from: A source of real images, labels not needed.

    Returns:
        The rows in the order of ``cells``, their results, and what went wrong with others.

    Raises:
        UsageProblem: Nothing can be written here that runs there.
        BoardUnreachable: No connection.
    """
    rows: list[GridRow] = []
    results: list[BenchResult] = []
    problems: list[EdgeSSLError] = []
    began = time.monotonic()
    try:
        section = context.recipe.bench
        target = target or choose_target(device, context.recipe.export.quantize, section.setup)
        bring_runtime(context, device, str(EXPORTERS[target].facts["format"]))
        minutes = len(cells) * seconds_on(device, asked_of(section)) / 60
        context.reporter.say(
            f"grid: {len(cells)} untrained net(s) as {target} on {device.id}, images of "
            f"{pictures_from}; about {minutes:.1f} minutes and the time to write the files"
        )
        for index, cell in enumerate(cells, 1):
            context.reporter.say(f"grid: {index} of {len(cells)}: {cell.name}")
            try:
                row, result = _one(context, device, cell, target, pictures_from)
            except Interrupted:
                raise
            except EdgeSSLError as error:
                problems.append(error)
                context.reporter.warn(f"{cell.name}: {error.message}")
                if isinstance(error, BoardUnreachable):
                    break
                continue
            rows.append(row)
            results.append(result)
            context.reporter.say(f"grid: {cell.name}  {figure(result)}")
            write_grid(context.run.path, rows, device.id, pictures_from)
    finally:
        device.close()
    status = "failed" if problems else "done"
    context.run.finish_stage("bench", time.monotonic() - began, status)
    return rows, results, problems


def write_grid(folder: Path, rows: Sequence[GridRow], device: str, pictures_from: str) -> None:
    """Write ``grid.json`` and ``grid.csv``."""
    values = [asdict(row) for row in rows]
    note = "random weights: the times are those of trained nets, the answers are worth nothing"
    body = {"device": device, "images": pictures_from, "note": note, "rows": values}
    files.write_json(folder / "grid.json", "bench-grid", body)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(values[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)
    files.write_text(folder / "grid.csv", text.getvalue())


def _one(
    context: Context, device: Device, cell: Cell, target: str, pictures_from: str
) -> tuple[GridRow, BenchResult]:
    spec = InputSpec.square(cell.imgsz)
    pictures = pictures_of(context, pictures_from, spec)
    model = context.folder("untrained", cell.name)
    network, net = untrained_net(context, cell, spec, pictures, model)
    reference = outputs(network, pictures.images, spec)
    folder = export_untrained(
        context, cell, target, model, net, Outputs(pictures, reference, reference)
    )
    artifact = Artifact.load(folder)
    asked = asked_of(context.recipe.bench)
    runtime, _provider = runtime_for(artifact, asked, device.traits, device.facts())
    stem = f"{folder.name}-{runtime}-{asked.threads}t-"
    place = context.folder("bench", device.id)
    allow = context.recipe.bench.allow_unstable
    kept = kept_bench(place, stem, artifact, device, asked, pictures.data_sha256, allow)
    if kept is not None:
        found, where = kept
        return _row(context, cell, target, artifact, found, where / "result.json"), found
    out = place / f"{stem}{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}"
    pack = context.folder("bench", PACK)
    try:
        evaluation_pack(pack, pictures, reference)
        with context.reporter.bar(f"bench {cell.name}", total=1) as bar:
            result = bench_artifact(
                device, folder, pack, out, asked=asked,
                modules=operation_modules(folder, artifact) if asked.profile else {},
                progress=lambda line: bar.update(0, line),
            )  # fmt: skip
    finally:
        pack.unlink(missing_ok=True)
    return _row(context, cell, target, artifact, result, out / "result.json"), result


def _row(
    context: Context, cell: Cell, target: str, artifact: Artifact, result: BenchResult, path: Path
) -> GridRow:
    model = files.read_json(context.folder("untrained", cell.name, "model.json"), "model")["facts"]
    infer, e2e = result.latency_ms.get("infer"), result.latency_ms.get("e2e_from_uint8")
    return GridRow(
        encoder=cell.encoder, width=cell.width, imgsz=cell.imgsz, target=target,
        quantize=artifact.facts["quantize"], parameters=model["parameters"], macs=model["macs"],
        bytes=result.model["bytes"], runtime=result.runtime["version"],
        threads=result.runtime["asked"]["threads"],
        p50=infer.p50 if infer else None, ci_low=infer.ci_low if infer else None,
        ci_high=infer.ci_high if infer else None, p90=infer.p90 if infer else None,
        e2e_p50=e2e.p50 if e2e else None, max_rss_mb=result.memory_mb.get("max_rss"),
        verdict=result.verdict, result_kind=result.result_kind,
        result=str(path.relative_to(context.run.path)),
    )  # fmt: skip


def choose_target(device: Device, precision: str, setup: bool = False) -> str:
    """Return the target whose runtime is on the device and whose converter is installed here.

    Args:
        device: Where it is to run.
        precision: As ``--quantize`` takes it.
        setup: A runtime that the device lacks will be brought.

    Raises:
        UsageProblem: There is none.
    """
    said = []
    for target in _by_preference(device):
        if not setup and lacks_runtime(device, str(EXPORTERS[target].facts["format"])):
            said.append(f"{target}: no runtime on the device")
            continue
        try:
            check_installed(target, precision)
        except EdgeSSLError as error:
            said.append(f"{target}: {error.message}")
            continue
        return target
    raise UsageProblem(
        f"no file can be written here and run on {device.id}: {'; '.join(said)}",
        hint="let the bench bring a runtime: --setup; or name --target",
    )


def _by_preference(device: Device) -> Iterator[str]:
    boards = {"android": "tflite", "rpi": "tflite", "browser": "tflite", "jetson": "onnx"}
    first = boards.get(device.kind, "onnx")
    yield first
    yield from (name for name in ("onnx", "tflite", "openvino") if name != first)


def table_rows(rows: Sequence[GridRow], results: Sequence[BenchResult]) -> list[tuple[Any, ...]]:
    """Return the rows as they are printed, with every verdict of their results."""
    return [
        (
            row.encoder, f"{row.width:g}x", row.imgsz, f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e6:.1f}", f"{row.bytes / 1e6:.2f}",
            "-" if row.p50 is None else f"{row.p50:.2f}",
            "-" if row.ci_low is None else f"[{row.ci_low:.2f}, {row.ci_high:.2f}]",
            "-" if row.p90 is None else f"{row.p90:.2f}",
            "-" if row.max_rss_mb is None else f"{row.max_rss_mb:.0f}",
            ", ".join(result.verdicts),
        )
        for row, result in zip(rows, results, strict=True)
    ]  # fmt: skip

"""Everything that is derived from one run, computed once for the page and the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.report.accuracy import Point, accuracy_points, fold_choices
from edgessl.report.answers import Answers, answers
from edgessl.report.exports import ExportView, export_views, file_title, proof_remarks
from edgessl.report.findings import Findings, find_out
from edgessl.report.grid import GridView, grid_view, only_grid, unmeasured_by_grid
from edgessl.report.headline import Headline, Remark, headline
from edgessl.report.judgement import Judgement, judge_pretraining
from edgessl.report.label_table import LabelTable, label_tables
from edgessl.report.latency import BenchView, bench_views, unquotable
from edgessl.report.monitors import Watched, alarm_text, watched
from edgessl.report.read import Run
from edgessl.report.waterfall import Step, waterfall

OTHER_IMAGES = "Images of other kinds, cameras or places than those that were tested."


@dataclass(frozen=True, slots=True)
class Summary:
    """What page and card show; ``unmeasured`` is what this run leaves open."""

    run: Run
    headline: Headline
    points: list[Point]
    judgements: list[Judgement]
    tables: list[LabelTable]
    steps: list[Step]
    benches: list[BenchView]
    grid: GridView | None
    only_grid: bool
    exports: list[ExportView]
    answers: list[Answers]
    findings: Findings
    watched: list[Watched]
    unmeasured: list[str]

    @property
    def title(self) -> str:
        """What the run is about: its net, or the device that a grid was timed on."""
        if self.grid and self.only_grid:
            return f"Untrained nets on {self.grid.device}"
        return self.headline.title

    @property
    def fold_choices(self) -> str:
        """How the learning rate of folds was chosen; empty without folds."""
        return fold_choices(self.points)

    @property
    def choices(self) -> str:
        """What "labels per class" leaves out, as a sentence; empty where not known."""
        told = self.findings.choices
        return f"Labels per class: what training was given, {told}." if told else ""


def summarise(run: Run) -> Summary:
    """Derive everything that is shown from the files of a run."""
    points = accuracy_points(run.rows)
    judgements = judge_pretraining(points)
    grid = grid_view(run)
    in_grid = grid.folders if grid else frozenset()
    views = [view for view in bench_views(run) if view.bench.folder not in in_grid]
    exports = export_views(run)
    steps = waterfall(run)
    findings = find_out(run)
    monitors = watched(run.pretrainings)
    tables = label_tables(run, points, judgements)
    head = headline(run, steps, views, points, judgements, findings)
    told = proof_remarks(exports, head.artifact)
    head.remarks.extend(Remark(text, care=True) for text in told)
    head.remarks.extend(Remark(text, care=True) for text in alarm_text(monitors))
    alone = only_grid(run, grid)
    missing = [*_unmeasured_speed(run, views), *_unmeasured_training(run, judgements, tables)]
    missing += _unmeasured_files(run, findings)
    if grid and alone:
        missing = unmeasured_by_grid(grid)
    return Summary(
        run=run,
        headline=head,
        points=points,
        judgements=judgements,
        tables=tables,
        steps=steps,
        benches=views,
        grid=grid,
        only_grid=alone,
        exports=exports,
        answers=answers(run),
        findings=findings,
        watched=monitors,
        unmeasured=missing if alone else [*missing, OTHER_IMAGES],
    )


def _unmeasured_speed(run: Run, views: Sequence[BenchView]) -> list[str]:
    """List what is not known of the device, so that silence is not read as a good result."""
    found = []
    native = [view for view in views if view.sort == "native"]
    results = [view.bench.result for view in native]
    if not native:
        found.append(f"Latency: {unquotable(views)}.")
    elif all(view.verdict != "VALID" for view in native):
        found.append("A quotable latency: no bench has the verdict VALID.")
    if native and all(view.bench.on_workstation for view in native):
        found.append("A board: every bench ran on the workstation.")
    if run.folded:
        found.append("The accuracy of the exported files: there is no test split, only folds.")
    elif native and not any(result.accuracy for result in results):
        found.append("Accuracy on the device.")
    if not any(view.energy and view.energy.net for view in native):
        found.append("Energy: no power sensor or meter was read.")
    if native and not any(result.memory_mb for result in results):
        found.append("Memory use while running.")
    found += dict.fromkeys(
        f"{view.device}: {condition}"
        for view in views
        for condition in view.bench.result.conditions
        if "not observable" in condition
    )
    return found


def _unmeasured_training(
    run: Run, judgements: Sequence[Judgement], tables: Sequence[LabelTable]
) -> list[str]:
    found = []
    if not judgements:
        found.append("Whether pretraining paid: there is no rival without it to compare with.")
    elif all(judgement.draws < 3 for judgement in judgements):
        found.append("The luck of the draw: fewer than three draws of labels and seeds.")
    absent = dict.fromkeys(name for table in tables for name in table.absent)
    if absent:
        found.append(f"Not run, so not compared: {', '.join(absent)}.")
    if run.rows and not any(row.stage == "evaluate" for row in run.rows):
        found.append("What the frozen features are worth: no evaluation was run.")
    return found


def _unmeasured_files(run: Run, findings: Findings) -> list[str]:
    found = []
    if not any(proof.quantised for proof in run.proofs):
        found.append("Quantised files: only float32 was exported or nothing was.")
    found += [
        f"Whether {file_title(proof)} keeps its accuracy: the images could not decide."
        for proof in run.proofs
        if proof.outcome == "INCONCLUSIVE"
    ]
    if any(proof.target == "tensorrt" for proof in run.proofs):
        found.append(
            "TensorRT: the file ran with ONNX Runtime only; the engine is built on the board."
        )
    if not run.equivalences:
        found.append("That the extracted net equals the slice: there is no equivalence.json.")
    if not findings.recorded:
        found.append("What is in the data: there is neither data.json nor splits.json.")
    elif findings.sources and findings.near is None:
        found.append("Near-duplicates: they were not looked for.")
    return found

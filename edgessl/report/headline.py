"""What a run comes to: which file, how good, how fast, how big, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.core.ledger import LedgerRow
from edgessl.report.accuracy import (
    CHAIN,
    NAMES,
    Judgement,
    Point,
    accuracy_points,
    judge_pretraining,
)
from edgessl.report.formats import MISSING, budget, count, percent, percent_range, plural, points
from edgessl.report.latency import BenchView, bench_views, best
from edgessl.report.read import FoundArtifact, Run
from edgessl.report.waterfall import Step, waterfall


@dataclass(frozen=True, slots=True)
class Headline:
    """The figures of one file: all of them belong to the same artifact."""

    title: str
    encoder: str
    slim_width: str
    host_width: str
    method: str
    imgsz: str
    artifact: FoundArtifact | None
    top1: str
    top1_interval: str
    top1_about: str
    view: BenchView | None
    judgement: Judgement | None
    warning: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything derived from one run, computed once for page and card."""

    run: Run
    headline: Headline
    points: list[Point]
    judgements: list[Judgement]
    steps: list[Step]
    benches: list[BenchView]
    unmeasured: list[str]


def summarise(run: Run) -> Summary:
    """Derive everything that is shown from the files of a run."""
    points_ = accuracy_points(run.rows)
    judgements = judge_pretraining(run.rows)
    views = bench_views(run)
    steps = waterfall(run)
    headline = _headline(run, steps, views, points_, judgements)
    missing = _unmeasured(run, views, judgements)
    return Summary(run, headline, points_, judgements, steps, views, missing)


def _headline(
    run: Run,
    steps: Sequence[Step],
    views: Sequence[BenchView],
    points_: Sequence[Point],
    judgements: Sequence[Judgement],
) -> Headline:
    view = best(views)
    artifact = run.artifact(view.bench.seal) if view else None
    artifact = artifact or _last_artifact(run)
    facts = [a for a in (artifact, *reversed(run.artifacts)) if a]

    def fact(*names: str) -> str:
        return next((text for a in facts if (text := a.fact(*names))), "")

    encoder = fact("architecture") or run.setting("encoder", "name") or "encoder not recorded"
    host, _, slim = run.setting("encoder", "width").partition("-")
    host = host or next((text for a in facts if (text := a.width("host_width"))), "")
    row = _row_of(artifact, steps)
    slim = (
        (row.width if row else None) or (artifact and artifact.width("width", "slim_width")) or slim
    )
    tuned = [r for r in run.rows if r.stage not in (*CHAIN, "pretrain")]
    trained = [r.variant for r in tuned if r.variant not in ("pixels", "scratch")]
    method = (row.variant if row else "") or next(iter(trained), "")
    method = method or run.setting("pretrain", "method") or fact("method")
    spec = artifact.artifact.input if artifact else None
    title = encoder + (f" at {slim}" if slim else "")
    top1, interval, about = _top1(row, view, points_)
    labels = row.labels_per_class if row else None
    judgement = next(
        (j for j in judgements if (j.variant, j.labels_per_class) == (method, labels)),
        judgements[-1] if judgements else None,
    )
    return Headline(
        title=title,
        encoder=encoder,
        slim_width=slim or MISSING,
        host_width=host if slim != host else MISSING,
        method=NAMES.get(method, method) or "not recorded",
        imgsz=f"{spec.height} x {spec.width} px" if spec else MISSING,
        artifact=artifact,
        top1=top1,
        top1_interval=interval,
        top1_about=about,
        view=view,
        judgement=judgement,
        warning=_pixels_do_better(points_, labels),
    )


def _last_artifact(run: Run) -> FoundArtifact | None:
    order = {"export": 2, "model": 1, "encoder": 0}
    ranked = sorted(
        run.artifacts,
        key=lambda a: (order[a.artifact.artifact_kind], a.folder.startswith("extract")),
    )
    return ranked[-1] if ranked else None


def _row_of(artifact: FoundArtifact | None, steps: Sequence[Step]) -> LedgerRow | None:
    seal = artifact.artifact.seal if artifact else None
    rows = [step.row for step in steps]
    return next((r for r in rows if seal and r.artifact_sha256 == seal), rows[-1] if rows else None)


def _top1(
    row: LedgerRow | None, view: BenchView | None, points_: Sequence[Point]
) -> tuple[str, str, str]:
    """Return the accuracy to quote, its interval, and what it was taken on."""
    accuracy = view.bench.result.accuracy if view and not view.withheld else None
    if view and accuracy:
        about = f"on {plural(accuracy.n, 'image')}, answered by {view.device}"
        return percent(accuracy.top1), percent_range(accuracy.ci_low, accuracy.ci_high), about
    if row:
        about = f"on {count(row.n)} {row.split or ''} images, on the workstation"
        return percent(row.value), percent_range(row.ci_low, row.ci_high), " ".join(about.split())
    order = {"diamond": 0, "square": 1, "ring": 2, "round": 3}
    tuned = sorted(points_, key=lambda p: (order[p.shape], p.value))
    if tuned:
        p = tuned[-1]
        about = f"on {plural(p.n, 'image')}, {p.label}, on the workstation"
        return percent(p.value), percent_range(p.low, p.high), about
    return "not measured", "", "no accuracy in the ledger"


def _pixels_do_better(points_: Sequence[Point], labels: int | None) -> str:
    trained = [p for p in points_ if p.shape == "round"]
    trained = trained or [p for p in points_ if p.shape == "ring"]
    trained = [p for p in trained if p.labels_per_class == labels] or trained
    pairs = [
        (floor, own)
        for own in trained
        for floor in points_
        if floor.shape == "diamond"
        and (floor.labels_per_class, floor.split) == (own.labels_per_class, own.split)
    ]
    if not pairs or any(own.value > floor.value for floor, own in pairs):
        return ""
    floor, own = max(pairs, key=lambda pair: pair[1].value)
    return (
        f"{floor.label}: {percent(floor.value)}, "
        f"{points(floor.value - own.value).lstrip('+')} points above {own.label} "
        f"({percent(own.value)}) with {budget(own.labels_per_class)}: these images do not "
        "show that the net is worth its cost."
    )


def _unmeasured(run: Run, views: Sequence[BenchView], judgements: Sequence[Judgement]) -> list[str]:
    """List what this run leaves open, so that silence is not read as a good result."""
    found = []
    results = [view.bench.result for view in views]
    if not views:
        found.append("Latency: no bench was run.")
    elif all(view.verdict != "VALID" for view in views):
        found.append("A quotable latency: no bench has the verdict VALID.")
    if views and all(view.bench.on_workstation for view in views):
        found.append("A board: every bench ran on the workstation.")
    if views and not any(result.accuracy for result in results):
        found.append("Accuracy on the device.")
    if not any(result.energy for result in results):
        found.append("Energy: no power sensor or meter was read.")
    if views and not any(result.memory_mb for result in results):
        found.append("Memory use while running.")
    if not judgements:
        found.append("Whether pretraining paid: there is no net trained from scratch to compare.")
    elif all(judgement.draws < 3 for judgement in judgements):
        found.append("The luck of the draw: fewer than three draws of labels and seeds.")
    quantized = [r for r in run.rows if r.stage == "export" and r.quantize not in (None, "none")]
    if not quantized:
        found.append("Quantised files: only float32 was exported or nothing was.")
    if not run.equivalences:
        found.append("That the extracted net equals the slice: there is no equivalence.json.")
    if not run.splits:
        found.append("What is in the data: there is no splits.json.")
    found += dict.fromkeys(
        f"{view.device}: {condition}"
        for view in views
        for condition in view.bench.result.conditions
        if "not observable" in condition
    )
    return [*found, "Images of other kinds, cameras or places than those in the test split."]

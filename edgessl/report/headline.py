"""What a run comes to, in words: which file, how good, how fast, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.core.ledger import LedgerRow
from edgessl.report.accuracy import Point, fold_choices
from edgessl.report.exports import shipped_words
from edgessl.report.findings import Findings
from edgessl.report.formats import MISSING, budget, count, percent, percent_range, plural, size
from edgessl.report.found import FoundArtifact
from edgessl.report.judgement import Judgement, pixels_do_better
from edgessl.report.latency import BenchView, best, unquotable
from edgessl.report.proofs import Proof
from edgessl.report.read import Run
from edgessl.report.tolerant import first_text, mapping
from edgessl.report.variants import CHAIN, WEIGHTS, is_pretrained, name
from edgessl.report.waterfall import Step


@dataclass(frozen=True, slots=True)
class TopOne:
    """The accuracy to quote, its interval, and what it was taken on."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    about: str
    told: str  # for the sentence: what was answered right
    measured_on: str = ""

    @property
    def text(self) -> str:
        """The figure in percent, or that there is none."""
        return "not measured" if self.value is None else percent(self.value)

    @property
    def interval(self) -> str:
        """The 95% interval in percent; empty when not known."""
        return percent_range(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Remark:
    """An honest sentence that belongs beside the figures; ``care`` marks a warning."""

    text: str
    care: bool = False


@dataclass(frozen=True, slots=True)
class Headline:
    """The figures of one file: all of them belong to the same artifact."""

    title: str
    encoder: str
    slim_width: str
    host_width: str
    method: str
    made: str
    imgsz: str
    artifact: FoundArtifact | None
    proof: Proof | None
    top1: TopOne
    trained_with: str
    view: BenchView | None
    unquoted: str  # why there is no view
    judgement: Judgement | None
    achievement: str
    remarks: list[Remark]


def headline(
    run: Run,
    steps: Sequence[Step],
    views: Sequence[BenchView],
    found: Sequence[Point],
    judgements: Sequence[Judgement],
    findings: Findings,
) -> Headline:
    """Choose the file to speak of (the widest net on the soundest bench) and sum it up."""
    view = best(views, next(iter(run.widths), ""))
    artifact = (run.artifact(view.bench.seal) if view else None) or _last_artifact(run)
    facts = [a for a in (artifact, *reversed(run.trained)) if a]

    def fact(*names: str) -> str:
        return next((text for a in facts if (text := a.fact(*names))), "")

    encoder = fact("architecture") or run.setting("encoder", "name") or "encoder not recorded"
    host, _, slims = run.setting("encoder", "width").partition("-")
    host = host or next((text for a in facts if (text := a.width("host_width"))), "")
    row = _row_of(artifact, steps)
    slim = (
        (row.width if row else None)
        or (artifact and artifact.width("width", "slim_width"))
        or slims.partition("-")[0]
        or next(iter(run.widths), "")
    )
    tuned = [r.variant for r in run.rows if r.stage not in (*CHAIN, "pretrain")]
    trained = [variant for variant in tuned if is_pretrained(variant)]
    method = (row.variant if row else "") or fact("variant") or next(iter(trained), "")
    method = method or run.setting("pretrain", "method") or fact("method")
    labels = row.labels_per_class if row else _usual_budget(found)
    top1 = _top1(row, view, found, slim or "")
    judgement = _judgement(judgements, method, labels, slim or "")
    spec = artifact.artifact.input if artifact else None
    proof = run.proof(artifact.artifact.seal) if artifact else None
    return Headline(
        title=encoder + (f" at {slim}" if slim else ""),
        encoder=encoder,
        slim_width=slim or MISSING,
        host_width=host if host and slim != host else MISSING,
        method=name(method) or "not recorded",
        made=_made(method) + _taught(facts),
        imgsz=f"{spec.height} x {spec.width} px" if spec else MISSING,
        artifact=artifact,
        proof=proof,
        top1=top1,
        trained_with=_trained_with(top1, labels, findings),
        view=view,
        unquoted="" if view else unquotable(views),
        judgement=judgement,
        achievement=_achievement(run, top1, view, views, artifact, proof),
        remarks=_remarks(run, found, judgement, labels, slim or "", findings),
    )


def _last_artifact(run: Run) -> FoundArtifact | None:
    order = {"export": 2, "model": 1, "encoder": 0}
    widest = next(iter(run.widths), "")

    def rank(found: FoundArtifact) -> tuple[int, bool, bool, bool, bool]:
        place, proof = found.folder, run.proof(found.artifact.seal)
        named = place.split("/")[-1].split("-")[0]
        proven = proof is not None and proof.passed
        asked = proof is not None and proof.quantised  # who asks for int8 ships it, once proven
        kind = order[found.artifact.artifact_kind]
        return kind, named == widest, proven, asked and proven, place.startswith("extract")

    return max(run.trained, key=rank, default=None)


def _row_of(artifact: FoundArtifact | None, steps: Sequence[Step]) -> LedgerRow | None:
    seal = artifact.artifact.seal if artifact else None
    own = next((s.row for s in steps if seal and s.row.artifact_sha256 == seal), None)
    # a float32 file answers as any other of its net does; a quantised one only speaks for itself
    others = [s.row for s in steps if s.row.quantize in (None, "none")]
    asked = artifact.fact("quantize") if artifact else ""
    if own is None and asked in ("", "none"):
        return others[-1] if others else None
    return own


def _usual_budget(found: Sequence[Point]) -> int | None:
    """Return the label budget of the fine-tuned nets; of all figures where there are none."""
    budgets = [p.labels_per_class for p in found if not p.frozen]
    budgets = budgets or [p.labels_per_class for p in found if p.metric == "linear_top1"]
    return max(budgets, key=budgets.count, default=None)


def _made(method: str) -> str:
    """Say how the net was trained before its labels."""
    if method.startswith(WEIGHTS):
        inner = name(method.removeprefix(WEIGHTS))
        return f"started from ImageNet weights and pretrained with {inner}"
    plain = {
        "scratch": "trained from scratch", "imagenet": "fine-tuned from ImageNet weights",
        "supervised": "trained with all labels of the training split, then fine-tuned",
    }  # fmt: skip
    return plain.get(method) or (f"pretrained with {name(method)}" if method else "")


def _taught(facts: Sequence[FoundArtifact]) -> str:
    """Say who taught the net, as far as its artifacts tell."""
    teachers = (mapping(a.artifact.facts.get("teacher")) for a in facts)
    for teacher in filter(None, teachers):
        net = " ".join(filter(None, (first_text(teacher, n) for n in ("architecture", "width"))))
        how = first_text(teacher, "trained")
        about = ", ".join(filter(None, (net, name(how) if how else "")))
        return f", taught by {first_text(teacher, 'name')}" + (f" ({about})" if about else "")
    return ""


def _top1(
    row: LedgerRow | None, view: BenchView | None, found: Sequence[Point], width: str
) -> TopOne:
    accuracy = view.bench.result.accuracy if view and not view.withheld else None
    if view and accuracy:
        on = f"answered by {view.device}"
        about = f"on {plural(accuracy.n, 'image')}, {on}"
        told = f"{count(accuracy.n)} test images it had never seen"
        return TopOne(
            accuracy.top1, accuracy.ci_low, accuracy.ci_high, accuracy.n, about, told, view.device
        )
    if row:
        about = " ".join(f"on {count(row.n)} {row.split or ''} images, on the workstation".split())
        told = f"{count(row.n)} test images it had never seen"
        return TopOne(row.value, row.ci_low, row.ci_high, row.n, about, told)
    nets = [p for p in found if p.variant != "pixels" and p.width in ("", width)]
    if not nets:
        return TopOne(None, None, None, 0, "no accuracy in the ledger", "")
    p = max(nets, key=lambda p: (not p.frozen, is_pretrained(p.variant), p.value))
    split = " over folds" if p.split == "folds" else ""
    about = f"{p.label}, {budget(p.labels_per_class)}, n\u00a0{count(p.n)}{split}"
    told = "images whose labels they were not given" if split else f"{count(p.n)} test images"
    return TopOne(p.value, p.low, p.high, p.n, about, told)


def _trained_with(top1: TopOne, labels: int | None, findings: Findings) -> str:
    """Say what labels the figure took, those for choosing included; empty where not known."""
    if top1.value is None or not findings.choices:
        return ""
    return f"Trained with {budget(labels)}, {findings.choices}."


def _judgement(
    judgements: Sequence[Judgement], method: str, labels: int | None, width: str
) -> Judgement | None:
    """Choose the judgement of the shipped net, else that of the best pretrained one."""
    here = [j for j in judgements if j.labels_per_class == labels and j.mine.width == width]
    here = here or [j for j in judgements if j.labels_per_class == labels] or list(judgements)
    own = [j for j in here if j.variant == method]
    return max(own or here, key=lambda j: j.mine.value, default=None)


def _achievement(
    run: Run,
    top1: TopOne,
    view: BenchView | None,
    views: Sequence[BenchView],
    artifact: FoundArtifact | None,
    proof: Proof | None,
) -> str:
    """Say in plain words what was achieved."""
    parts = []
    if top1.value is not None:
        who = "Nets trained the same way name" if run.folded else "It names"
        reach = ""
        if top1.low is not None and top1.high is not None:
            reach = f" (95% interval {percent(top1.low)} to {percent(top1.high)})"
        where = f", running on {top1.measured_on}" if top1.measured_on else ""
        parts.append(
            f"{who} the right class for {percent(top1.value)} of {top1.told}{where}{reach}."
        )
    elif not run.class_names:
        parts.append("It turns images into features; without labels no accuracy can be claimed.")
    else:
        parts.append("Its accuracy was not measured.")
    parts.append(_speed(view, views, "there" if top1.measured_on else ""))
    if artifact and artifact.artifact.artifact_kind != "encoder":
        parts.append(f"The file takes {size(artifact.bytes)}.")
    if proof and (proof.quantised or not proof.passed):
        parts.append(shipped_words(proof))
    return " ".join(part for part in parts if part)


def _speed(view: BenchView | None, views: Sequence[BenchView], there: str) -> str:
    if view is None and views:
        return f"How fast it is on a board was not measured: {unquotable(views)}."
    if view is None:
        return "How fast it is was not measured."
    if view.withheld:
        return f"On {view.device} its latency is withheld: the answers are wrong ({view.verdict})."
    part = view.headline
    if part is None or part.p50 == MISSING:
        return f"No latency can be claimed on {view.device} ({view.verdict})."
    quoted, where = f"{part.p50}\u00a0ms", there or f"on {view.device}"
    if view.verdict == "VALID":
        return f"One image takes {quoted} {where} (median; verdict VALID)."
    return (
        f"One image took {quoted} {where} (median), but the verdict is {view.verdict}: "
        "do not quote it."
    )


def _remarks(
    run: Run,
    found: Sequence[Point],
    judgement: Judgement | None,
    labels: int | None,
    width: str,
    findings: Findings,
) -> list[Remark]:
    """Return the honest sentences that belong beside the figures."""
    remarks = [Remark(judgement.sentence)] if judgement else []
    if judgement is None or not judgement.pixels_win:
        remarks.append(Remark(pixels_do_better(found, labels, width), care=True))
    if run.folded:
        text = (
            "There is no test split: the figure is the mean over "
            "cross-validation folds. Each image was answered by nets that were not given its "
            "label. The net that ships was trained on all labels, so for its files no accuracy is "
            "claimed, only that they agree with it."
        )
        if seen := _seen(run, found, findings):
            text += f" Pretraining saw {seen}, without their labels."
        remarks.append(Remark(f"{text} {fold_choices(found)}".strip()))
    if any(a.problem for a in run.artifacts):
        text = "Some model files changed after they were sealed; see the seals below."
        remarks.append(Remark(text, care=True))
    return [remark for remark in remarks if remark.text]


def _seen(run: Run, found: Sequence[Point], findings: Findings) -> str:
    """Say how many of the images of the folds pretraining saw; empty where none, or not known."""
    if not any(is_pretrained(p.variant) for p in found):
        return ""
    if findings.pretraining_overlap is None and run.recipe and not run.setting("data", "unlabeled"):
        return "all of these images"  # without unlabeled images it takes the labelled ones
    return findings.seen_in_pretraining

"""The waterfall: one trained net followed from the probe to the device, paired at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgessl.core.ledger import LedgerRow
from edgessl.report.formats import MISSING, plain, points, points_range, tiny
from edgessl.report.found import FoundBench
from edgessl.report.paired import Paired, paired_answers
from edgessl.report.proofs import Proof
from edgessl.report.read import Run
from edgessl.report.tolerant import first_text, width_number
from edgessl.report.variants import CHAIN, NAMES


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the waterfall; ``before`` is what its difference is to.

    ``gain`` is a difference without an interval, where the answers of one side were not kept;
    ``proof`` says what is proven of the file.
    """

    label: str
    where: str
    row: LedgerRow
    before: LedgerRow | None
    against: str
    paired: Paired | None
    agreement: float | None
    parity: str
    parity_passed: bool | None
    verdict: str
    gain: float | None = None
    proof: Proof | None = None

    @property
    def outcome(self) -> str:
        """The outcome of a quantised file, or of one that is not proven; else empty."""
        known = self.proof is not None and (self.proof.quantised or not self.proof.passed)
        if self.proof is not None and known:
            return self.proof.outcome
        unknown = self.proof is None and self.row.stage in ("export", "bench")
        return "NOT PROVEN" if unknown and self.row.quantize not in (None, "none") else ""

    @property
    def doubt(self) -> str:
        """What a reader must know beside the figure; empty for a sound one."""
        words = ("" if self.verdict == "VALID" else self.verdict, self.outcome)
        return ", ".join(word for word in words if word not in ("", "PASS"))

    @property
    def difference(self) -> str:
        """The difference in percentage points, with its interval where there is one."""
        if self.gain is not None:
            return points(self.gain)
        if self.before is None:
            return MISSING
        reach = points_range(self.row.delta_low, self.row.delta_high)
        return f"{points(self.row.delta)} {reach}".strip()


def waterfall(run: Run) -> list[Step]:
    """Follow the trained net from its probe through extract, export and bench.

    The widest net comes first, and parents before children.
    """
    by_id = {row.id: row for row in run.rows}
    chain = [r for r in run.rows if r.stage in CHAIN and r.metric == "top1"]
    roots = [
        by_id[parent]
        for row in chain
        for parent in row.parents[:1]
        if parent in by_id and by_id[parent].stage not in CHAIN
    ]
    known = {row.id: row for row in [*roots, *chain]}
    ordered: dict[str, LedgerRow] = {}

    def walk(row: LedgerRow) -> None:
        if row.id not in ordered:
            ordered[row.id] = row
            for child in known.values():
                if child.parents[:1] == (row.id,):
                    walk(child)

    for row in known.values():
        if not row.parents or row.parents[0] not in known:
            walk(row)
    for row in known.values():  # rows that name each other as parents
        walk(row)
    found: list[Step] = []
    for row in sorted(ordered.values(), key=lambda r: -width_number(r.width or "")):
        step = _step(row, known, run)
        probe = _probe(row, run) if row.stage not in CHAIN else None
        if probe is not None:
            found.append(_bare(probe, step_name(probe)))
            gain = row.value - probe.value
            step = _bare(row, step.label, before=probe, against="linear probe", gain=gain)
        found.append(step)
    return found


def agreements(run: Run, steps: Sequence[Step]) -> list[LedgerRow]:
    """Return the agreement rows of files whose accuracy is not claimed."""
    claimed = {step.row.artifact_sha256 for step in steps}
    return [
        row for row in run.rows
        if row.metric == "agreement" and row.artifact_sha256 not in claimed
    ]  # fmt: skip


def doubts(steps: Sequence[Step]) -> list[str]:
    """Say what forbids comparing the steps: other images, or figures that do not fit."""
    found = []
    counts = sorted({step.row.n for step in steps})
    hashes = {step.row.data_sha256 for step in steps if step.row.data_sha256}
    if len(counts) > 1:
        found.append(f"The rows were taken on different numbers of images: {plain(counts)}.")
    elif len(hashes) > 1:
        found.append("The rows were taken on different image sets.")
    for step in steps:
        row, before, paired = step.row, step.before, step.paired
        if row.delta is None or before is None or step.gain is not None or row.n != before.n:
            continue
        if abs(row.value - before.value - row.delta) * row.n > 0.6:
            found.append(
                f"The difference of '{step.label}' does not fit the two figures it compares."
            )
        elif paired and abs(paired.gained - paired.lost - row.delta * row.n) > 0.6:
            found.append(
                f"The difference of '{step.label}' does not fit the predictions.csv of both."
            )
    return found


def benches_of(row: LedgerRow, run: Run) -> list[FoundBench]:
    """Return the benches that a ledger row of the bench stage speaks of, the newest first."""
    found = [
        bench
        for bench in run.benches
        if bench.seal == row.artifact_sha256
        and row.where in (bench.device, first_text(bench.result.device, "id", "name"))
    ]
    return sorted(found, key=lambda b: first_text(b.result.run, "finished"), reverse=True)


def step_name(row: LedgerRow, *, short: bool = False, proof: Proof | None = None) -> str:
    """Name what a row measured: ``Extracted net, 1x`` or ``ONNX int8, 1x, on the device``.

    ``short`` leaves out the width and names the device: ``ONNX int8 on pi5``. ``proof`` knows
    the precision that was chosen.
    """
    width = f", {row.width}" if row.width and not short else ""
    target = NAMES.get(row.target or "", row.target or "file")
    told = proof.precision if proof else row.quantize
    precision = "" if told in (None, "", "none") else f" {told}"
    if row.stage == "extract":
        return f"Extracted net{width}"
    if row.stage == "export":
        return f"{target}{precision}{width}"
    if row.stage == "bench":
        return f"{target}{precision}" + (f" on {row.where}" if short else f"{width}, on the device")
    if row.metric != "top1":
        return "Linear probe, frozen features"
    return f"Fine-tuned slice of the host{width}"


def _step(row: LedgerRow, known: dict[str, LedgerRow], run: Run) -> Step:
    before = known.get(row.compared_with or next(iter(row.parents), ""))
    benches = benches_of(row, run) if row.stage == "bench" else []
    checks = [check for bench in benches for check in bench.result.parity]
    found = run.artifact(row.artifact_sha256)
    if row.stage == "export" and found:
        checks = list(found.parity)
    agreement = next((r.value for r in run.rows if _speaks_of_the_same(r, row)), None)
    agreed = [b.result.accuracy.agreement for b in benches if b.result.accuracy]
    agreed += [check.agreement for check in checks if check.level != "golden"]
    worst = max(checks, key=lambda check: check.max_abs, default=None)
    proof = run.proof(row.artifact_sha256)
    return Step(
        label=step_name(row, proof=proof),
        where="" if row.where == "workstation" else row.where,
        row=row,
        before=before,
        against=step_name(before, proof=run.proof(before.artifact_sha256)) if before else "",
        paired=_paired(before, row, run) if before else None,
        agreement=agreed[0] if agreement is None and agreed else agreement,
        parity=f"max |Δ| {tiny(worst.max_abs)}, cosine {worst.cosine:.6f}" if worst else "",
        parity_passed=all(check.passed for check in checks) if checks else None,
        verdict=benches[0].result.verdict if benches else "",
        proof=proof,
    )


def _bare(
    row: LedgerRow,
    label: str,
    *,
    before: LedgerRow | None = None,
    against: str = "",
    gain: float | None = None,
) -> Step:
    return Step(label, "", row, before, against, None, None, "", None, "", gain)


def _probe(row: LedgerRow, run: Run) -> LedgerRow | None:
    """Return the linear probe on the same labels and images as a fine-tuned net, if any."""
    same = [
        r
        for r in run.rows
        if r.metric == "linear_top1"
        and (r.variant, r.width, r.labels_per_class, r.split, r.n)
        == (row.variant, row.width, row.labels_per_class, row.split, row.n)
    ]
    return next((r for r in same if r.draw == row.draw), None)


def _paired(before: LedgerRow, after: LedgerRow, run: Run) -> Paired | None:
    files = [_predictions(row, run) for row in (before, after)]
    return paired_answers(files[0], files[1]) if files[0] and files[1] else None


def _predictions(row: LedgerRow, run: Run) -> Path | None:
    """Return where the answers behind a row are kept, if its stage keeps them."""
    if row.stage == "bench":
        found = next(iter(benches_of(row, run)), None)
    else:
        found = run.artifact(row.artifact_sha256)
    return run.folder / found.folder / "predictions.csv" if found else None


def _speaks_of_the_same(other: LedgerRow, row: LedgerRow) -> bool:
    """Whether ``other`` is the agreement of the file that ``row`` is the top-1 of."""
    names = ("stage", "where", "artifact_sha256", "width", "target", "quantize")
    return other.metric == "agreement" and all(
        getattr(other, name) == getattr(row, name) for name in names
    )

"""Whether a board gives the answers that it should: golden images, and the same file here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgessl.core.measurement import ParityCheck
from edgessl.report.board_records import BoardParity
from edgessl.report.formats import count, percent, percent_range, plural, points, points_range, tiny
from edgessl.report.found import FoundBench

LEVELS = {
    "golden": "Golden images", "answers": "All test images",
    "tensors": "Tensors of all test images",
}  # fmt: skip
SHOWN = 6  # checks of one bench


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """One check of the answers: PASS, FAIL or INCONCLUSIVE, and what it rests on."""

    name: str
    outcome: str
    told: str


def answer_checks(bench: FoundBench) -> list[AnswerCheck]:
    """Write out every check of the answers that a board gave."""
    return list(_checks(bench))


def _checks(bench: FoundBench) -> Iterator[AnswerCheck]:
    for check in bench.result.parity[:SHOWN]:
        outcome = "PASS" if check.passed else "FAIL"
        yield AnswerCheck(LEVELS.get(check.level, check.level), outcome, _logits(check))
    if bench.parity is not None:
        yield AnswerCheck("Beside the workstation", bench.parity.outcome, _answers(bench.parity))


def _logits(check: ParityCheck) -> str:
    return (
        f"{plural(check.n, 'image')} against float32 PyTorch: max |Δ| {tiny(check.max_abs)} of the "
        f"largest logit (tolerance {tiny(check.tolerance)}), cosine {check.cosine:.6f}, agreement "
        f"{percent(check.agreement)}"
    )


def _answers(parity: BoardParity) -> str:
    reach = percent_range(parity.agreement_low, parity.agreement_high)
    told = [
        f"{percent(parity.agreement)} {reach} of {count(parity.n)} answers are those of the same "
        f"file on the workstation (at least {100 * parity.least_agreement:g}% wanted)"
    ]
    changed = [f"{count(parity.gained)} became right", f"{count(parity.lost)} became wrong"]
    if parity.unlabelled:
        changed.append(f"{count(parity.unlabelled)} changed without a label")
    told.append(", ".join(changed))
    known = "not known" if parity.drop is None else points(parity.drop)
    told.append(
        f"drop of top-1 in points: {known} {points_range(parity.drop_low, parity.drop_high)}, "
        f"{100 * parity.max_drop:.1f} may be lost"
    )
    return "; ".join(told)

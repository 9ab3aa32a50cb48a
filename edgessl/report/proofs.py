"""What is proven of each exported file: its gate, the search behind it, its layers.

A file that was quantised is judged by ``gate.json``, a float32 or fp16 file by its parity. A record
that names another seal, or files that were altered since, prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgessl.core.artifact import DOCUMENTS
from edgessl.core.measurement import ParityCheck
from edgessl.report.formats import percent
from edgessl.report.found import FoundArtifact
from edgessl.report.recorded import read_record
from edgessl.report.records import Gate, Resizes, Search, Sensitivity
from edgessl.report.tolerant import Notes, first_text, mapping

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT PROVEN"]
# in the words of the page; only what passed gets a tick
SYMBOLS: dict[str, str] = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "NOT PROVEN": "!"}
FP16_AGREEMENT = 0.99  # what the export stage asks of fp16, which has no gate


@dataclass(frozen=True, slots=True)
class Proof:
    """One exported file with all that was recorded about its answers.

    ``artifact`` is None where nothing that was tried was worth a file. ``asked`` is the precision
    that was asked for, ``chosen`` the one the file has. ``why`` says what is missing when nothing
    is proven.
    """

    folder: str
    artifact: FoundArtifact | None
    width: str
    target: str
    asked: str
    outcome: Outcome
    why: str = ""
    gate: Gate | None = None
    search: Search | None = None
    sensitivity: Sensitivity | None = None

    @property
    def seal(self) -> str:
        """The seal of the file; empty without one."""
        return self.artifact.artifact.seal if self.artifact else ""

    @property
    def bytes(self) -> int:
        """Size of its files together."""
        return self.artifact.bytes if self.artifact else 0

    @property
    def parity(self) -> ParityCheck | None:
        """The comparison with PyTorch that came out worst."""
        checks = self.artifact.parity if self.artifact else ()
        return max(checks, key=lambda check: check.max_abs, default=None)

    @property
    def quantised(self) -> bool:
        """Whether another precision than float32 was asked for."""
        return self.asked != "none"

    @property
    def passed(self) -> bool:
        """Whether its answers are proven."""
        return self.outcome == "PASS"

    @property
    def chosen(self) -> str:
        """The precision of the file; that asked for where nothing says another."""
        choice = self.search.choice if self.search else None
        facts = self.artifact.artifact.facts if self.artifact else {}
        told = first_text(mapping(facts.get("scheme")), "precision") or self.asked
        return choice.scheme.precision if choice else told

    @property
    def fell_back(self) -> bool:
        """Whether another way than the first that was tried became the file."""
        search = self.search
        return bool(search and search.choice and search.candidates[0].name != search.chosen)

    @property
    def precision(self) -> str:
        """The precision in few words: ``int8``, or ``int8 as w8a16``; empty for float32."""
        if not self.quantised:
            return ""
        return self.asked if self.chosen == self.asked else f"{self.asked} as {self.chosen}"


def proofs_of(folder: Path, artifacts: Sequence[FoundArtifact], notes: Notes) -> Iterator[Proof]:
    """Yield what is proven of every exported file of a run, and what could not be made."""
    for found in artifacts:
        if found.artifact.artifact_kind != "export" or found.untrained:
            continue
        place = folder / found.folder
        width, target, precision = _named(place)
        asked = found.fact("quantize") or precision or "none"
        seal = found.artifact.seal
        gate = read_record(Gate, place / "gate.json", notes, seal)
        outcome, why = _judged(found, asked, gate)
        yield Proof(
            folder=found.folder,
            artifact=found,
            width=found.width("width") or width,
            target=found.fact("target") or target or found.artifact.format,
            asked=asked,
            outcome=outcome,
            why=why,
            gate=gate,
            search=read_record(Search, place / "search.json", notes, seal),
            sensitivity=read_record(Sensitivity, place / "sensitivity.json", notes, seal),
        )
    for path in sorted(folder.glob("export/*/search.json")):
        search = None
        if not (path.parent / DOCUMENTS["export"]).exists():
            search = read_record(Search, path, notes)
        if search is not None:
            width, target, precision = _named(path.parent)
            yield Proof(
                folder=path.parent.relative_to(folder).as_posix(),
                artifact=None,
                width=width,
                target=target,
                asked=search.asked or precision,
                outcome="FAIL",
                why="none of the files that were tried is worth having",
                search=search,
            )


def resizes_of(folder: Path, notes: Notes) -> Resizes | None:
    """Read what wrong resizes cost; None where it was not measured."""
    return read_record(Resizes, folder / "resizes.json", notes)


def _named(folder: Path) -> tuple[str, str, str]:
    """Return (width, target, precision) from the name of an export folder."""
    width, _, rest = folder.name.partition("-")
    target, _, precision = rest.rpartition("-")
    return width, target or rest, precision if target else "none"


def _judged(found: FoundArtifact, asked: str, gate: Gate | None) -> tuple[Outcome, str]:
    if found.problem:
        return "NOT PROVEN", "its files were changed after they were sealed"
    if gate is not None:
        return gate.outcome, ""
    if not all(check.passed for check in found.parity):
        return "FAIL", "its logits differ from PyTorch by more than is allowed"
    if asked not in ("none", "fp16"):
        return "NOT PROVEN", "there is no gate.json for this file"
    if not found.parity:
        return "NOT PROVEN", "there is no parity.json for this file"
    if asked == "fp16" and min(check.agreement for check in found.parity) < FP16_AGREEMENT:
        return "FAIL", f"it gives another answer on more than {percent(1 - FP16_AGREEMENT)}"
    return "PASS", ""

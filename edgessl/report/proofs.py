"""What is proven of each exported file: its gate, the search behind it, its layers.

A file that was quantised is judged by ``gate.json``, a float32 file by its parity. A record that
names another seal, or files that were altered since, prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from edgessl.report.found import FoundArtifact, first_error
from edgessl.report.records import (
    Candidate,
    Gate,
    LayerError,
    Record,
    Resize,
    Resizes,
    Search,
    Sensitivity,
)
from edgessl.report.tolerant import Notes, json_object, mapping

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "NOT PROVEN"]
# in the words of the page; only what passed gets a tick
SYMBOLS: dict[str, str] = {"PASS": "✓", "FAIL": "✕", "INCONCLUSIVE": "?", "NOT PROVEN": "!"}

R = TypeVar("R", bound=Record)
# lists whose members are read one by one, so that an odd one does not hide the others
MEMBERS: dict[type[Record], tuple[str, type[Record]]] = {
    Search: ("candidates", Candidate), Sensitivity: ("layers", LayerError),
    Resizes: ("rows", Resize),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proof:
    """One exported file with all that was recorded about its answers.

    ``asked`` is the precision that was asked for, ``chosen`` the one the file has. ``why`` says
    what is missing when nothing is proven.
    """

    artifact: FoundArtifact
    width: str
    target: str
    asked: str
    outcome: Outcome
    why: str = ""
    gate: Gate | None = None
    search: Search | None = None
    sensitivity: Sensitivity | None = None

    @property
    def folder(self) -> str:
        """Where it lies, from the run folder on."""
        return self.artifact.folder

    @property
    def seal(self) -> str:
        """The seal of the file."""
        return self.artifact.artifact.seal

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
        """The precision of the file; that asked for when the search does not say."""
        choice = self.search.choice if self.search else None
        return choice.scheme.precision if choice else self.asked

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
    """Yield what is proven of every exported file of a run, in the order of the artifacts."""
    for found in artifacts:
        if found.artifact.artifact_kind != "export":
            continue
        place = folder / found.folder
        width, _, rest = place.name.partition("-")
        target, _, precision = rest.rpartition("-")
        asked = found.fact("quantize") or precision or "none"
        seal = found.artifact.seal
        gate = _record(Gate, place / "gate.json", notes, seal)
        outcome, why = _judged(found, asked, gate)
        yield Proof(
            artifact=found,
            width=found.width("width") or width,
            target=found.fact("target") or target or found.artifact.format,
            asked=asked,
            outcome=outcome,
            why=why,
            gate=gate,
            search=_record(Search, place / "search.json", notes, seal),
            sensitivity=_record(Sensitivity, place / "sensitivity.json", notes, seal),
        )


def resizes_of(folder: Path, notes: Notes) -> Resizes | None:
    """Read what wrong resizes cost; None where it was not measured."""
    return _record(Resizes, folder / "resizes.json", notes)


def _judged(found: FoundArtifact, asked: str, gate: Gate | None) -> tuple[Outcome, str]:
    if found.problem:
        return "NOT PROVEN", "its files were changed after they were sealed"
    if gate is not None:
        return gate.outcome, ""
    if asked != "none":
        return "NOT PROVEN", "there is no gate.json for this file"
    if not found.parity:
        return "NOT PROVEN", "there is no parity.json for this file"
    if not all(check.passed for check in found.parity):
        return "FAIL", "its logits differ from PyTorch by more than is allowed"
    return "PASS", ""


def _record(kind: type[R], path: Path, notes: Notes, seal: str = "") -> R | None:
    """Read a record; None, with a note, when it does not fit its form or another file's seal."""
    body: dict[str, Any] = json_object(path, notes)
    if not body:
        return None
    key, member = MEMBERS.get(kind, ("", Record))
    if key:
        body[key] = list(_members(member, body.get(key), path, notes))
    try:
        record = kind.model_validate(body)
    except ValidationError as error:
        notes.add(f"{notes.name(path)}: {first_error(error)}")
        return None
    if seal and getattr(record, "seal", seal) != seal:
        notes.add(f"{notes.name(path)} is about another file: its seal differs")
        return None
    return record


def _members(kind: type[Record], body: object, path: Path, notes: Notes) -> Iterator[Mapping]:
    for index, item in enumerate(body if isinstance(body, list) else []):
        try:
            kind.model_validate(item)
        except ValidationError as error:
            notes.add(f"{notes.name(path)}: entry {index + 1}: {first_error(error)}")
        else:
            yield mapping(item)

"""Artifacts and benches as they lie in a run folder, each with what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from edgessl.core.artifact import DOCUMENTS, Artifact
from edgessl.core.errors import EdgeSSLError
from edgessl.core.measurement import BenchResult, ParityCheck
from edgessl.report.board_records import BoardParity, Energy, LayerProfile
from edgessl.report.formats import is_number
from edgessl.report.recorded import first_error, read_record, record_of
from edgessl.report.tolerant import Notes, first_text, json_lines, json_object, mapping, width_text

HEADLINE_PARTS = ("e2e_from_uint8", "infer")  # what is quoted, best first


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """An artifact of the run; ``problem`` says why its files do not fit the seal, if so."""

    folder: str
    artifact: Artifact
    sizes: Mapping[str, int]
    problem: str = ""
    parity: tuple[ParityCheck, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the model files together."""
        return sum(self.sizes.values())

    @property
    def untrained(self) -> bool:
        """Whether its weights are random, written only to be timed."""
        return self.artifact.facts.get("untrained") is True

    def fact(self, *names: str) -> str:
        """Return the first of ``names`` among the facts, as text; empty when absent."""
        return first_text(self.artifact.facts, *names)

    def width(self, *names: str) -> str:
        """Return the first of ``names`` among the facts as a width, ``1x`` for 1.0."""
        return width_text(self.fact(*names))


@dataclass(frozen=True, slots=True)
class FoundBench:
    """One bench: its result and its raw samples (ms, in time order) by part.

    ``parity`` holds the same file's answers here and there, ``layers`` the time of each.
    """

    folder: str
    device: str
    result: BenchResult
    samples: Mapping[str, Sequence[float]]
    starts: Sequence[int]
    parity: BoardParity | None = None
    layers: LayerProfile | None = None
    energy: Energy | None = None

    @property
    def seal(self) -> str:
        """Seal of the artifact that was timed; empty when the result does not say."""
        return first_text(self.result.model, "seal")

    @property
    def on_workstation(self) -> bool:
        """Whether the device is the computer that edgessl runs on."""
        return first_text(self.result.device, "kind") == "local"

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, so that only the time means something."""
        return mapping(self.result.model.get("facts")).get("untrained") is True

    def model_fact(self, name: str) -> str:
        """Return a fact of the timed model as text; empty when the result does not say."""
        inner = first_text(mapping(self.result.model.get("facts")), name)
        return first_text(self.result.model, name) or inner


def artifacts_in(folder: Path, notes: Notes) -> Iterator[FoundArtifact]:
    """Yield the artifacts of a run in the order of the chain; damaged documents are noted."""
    for stage in ("pretrain*", "finetune", "finetune/*", "extract/*", "export/*"):
        for place in sorted(folder.glob(stage)):
            if not any((place / name).is_file() for name in DOCUMENTS.values()):
                continue
            try:
                artifact = Artifact.load(place, verify=False)
            except (EdgeSSLError, ValueError) as error:
                notes.add(getattr(error, "message", str(error)))
                continue
            problem = ""
            try:
                artifact.verify(place)
            except (EdgeSSLError, OSError) as error:
                problem = str(getattr(error, "message", error)).replace(f"{folder}/", "")
                notes.add(problem)
            sizes = {n: (place / n).stat().st_size for n in artifact.files if (place / n).is_file()}
            parity = tuple(_checks(place / "parity.json", notes))
            yield FoundArtifact(
                place.relative_to(folder).as_posix(), artifact, sizes, problem, parity
            )


def benches_in(folder: Path, notes: Notes) -> Iterator[FoundBench]:
    """Yield the benches of a run; one without a verdict is left out, with a note."""
    for path in sorted(folder.glob("bench/*/*/result.json")):
        document = json_object(path, notes)
        if not document:
            continue
        try:
            result = BenchResult.model_validate(document)
        except ValidationError as error:
            notes.add(f"{notes.name(path)}: {first_error(error)}")
            continue
        if not result.verdicts:
            notes.add(f"{notes.name(path)} has no verdict: left out")
            continue
        samples, starts = samples_by_part(json_lines(path.parent / "samples.jsonl", notes))
        seal, energy = first_text(result.model, "seal"), result.energy
        yield FoundBench(
            folder=path.parent.relative_to(folder).as_posix(),
            device=path.parent.parent.name,
            result=result,
            samples=samples,
            starts=starts,
            parity=read_record(BoardParity, path.parent / "parity.json", notes, seal),
            layers=read_record(LayerProfile, path.parent / "profile.json", notes, seal),
            energy=record_of(Energy, energy, f"{notes.name(path)}: energy", notes)
            if energy
            else None,
        )


def samples_by_part(
    rows: Sequence[Mapping[str, object]],
) -> tuple[dict[str, list[float]], list[int]]:
    """Sort sample lines into milliseconds per quoted part, in order, with the repeat starts.

    A line holds one inference: each part by name (``infer_ms``); ``repeat`` numbers the fresh
    processes.
    """
    samples: dict[str, list[float]] = {}
    for part in HEADLINE_PARTS:
        values = [row.get(f"{part}_ms") for row in rows]
        if known := [float(value) for value in values if is_number(value)]:
            samples[part] = known
    repeats = [row.get("repeat") for row in rows]
    pairs = enumerate(pairwise(repeats), 1)
    starts = [index for index, (before, now) in pairs if before != now]
    return samples, starts


def _checks(path: Path, notes: Notes) -> Iterator[ParityCheck]:
    checks = json_object(path, notes).get("checks")
    for check in checks if isinstance(checks, list) else []:
        try:
            yield ParityCheck.model_validate(check)
        except ValidationError as error:
            notes.add(f"{notes.name(path)}: {first_error(error)}")

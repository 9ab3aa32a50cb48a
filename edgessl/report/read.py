"""Read a run folder for the report: whatever is there, and a note for what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgessl.core import files, runs
from edgessl.core.artifact import Artifact
from edgessl.core.errors import EdgeSSLError, FileInvalid
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.measurement import BenchResult, ParityCheck
from edgessl.report.formats import is_number

RUN_FOLDER_HINT = "give a folder that a command of edgessl wrote, such as runs/<name>, or 'last'"
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

    def fact(self, *names: str) -> str:
        """Return the first of ``names`` among the facts, as text; empty when absent."""
        return first_text(self.artifact.facts, *names)

    def width(self, *names: str) -> str:
        """Return the first of ``names`` among the facts as a width, ``1x`` for 1.0."""
        return width_text(self.fact(*names))


@dataclass(frozen=True, slots=True)
class FoundBench:
    """One bench: its result and its raw samples (ms, in time order) by part."""

    folder: str
    device: str
    result: BenchResult
    samples: Mapping[str, Sequence[float]]
    starts: Sequence[int]

    @property
    def seal(self) -> str:
        """Seal of the artifact that was timed; empty when the result does not say."""
        return first_text(self.result.model, "seal")

    @property
    def on_workstation(self) -> bool:
        """Whether the device is the computer that edgessl runs on."""
        return first_text(self.result.device, "kind") == "local"

    def model_fact(self, name: str) -> str:
        """Return a fact of the timed model as text; empty when the result does not say."""
        facts = self.result.model.get("facts")
        inner = first_text(facts, name) if isinstance(facts, Mapping) else ""
        return first_text(self.result.model, name) or inner


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run folder holds and a report shows."""

    name: str
    folder: Path
    rows: tuple[LedgerRow, ...]
    artifacts: tuple[FoundArtifact, ...]
    benches: tuple[FoundBench, ...]
    pretrain_metrics: tuple[Mapping[str, Any], ...]
    finetune_metrics: tuple[Mapping[str, Any], ...]
    splits: Mapping[str, Any]
    equivalences: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_text: str
    log_tail: str
    problems: tuple[str, ...]

    def artifact(self, seal: str | None) -> FoundArtifact | None:
        """Return the artifact with this seal."""
        return next((a for a in self.artifacts if a.artifact.seal == seal), None) if seal else None

    def setting(self, section: str, *names: str) -> str:
        """Return the first of ``names`` in a recipe section, as text; empty when absent."""
        found = self.recipe.get(section)
        return first_text(found, *names) if isinstance(found, Mapping) else ""


def read_run(folder: Path) -> Run:
    """Read the files of a run folder.

    Without ``run.json`` it is not a run folder, and without the ledger no figure can be trusted;
    whatever else is absent or damaged is left out, with a note.

    Raises:
        FileInvalid: ``folder`` is not a run folder, or its ledger cannot be read.
    """
    folder = Path(folder)
    facts = _run_facts(folder)
    problems: list[str] = []
    recipe_text = _text(folder / "recipe.yaml")
    return Run(
        name=folder.resolve().name,
        folder=folder,
        rows=_rows(folder),
        artifacts=tuple(_artifacts(folder, problems)),
        benches=tuple(_benches(folder, problems)),
        pretrain_metrics=tuple(_lines(folder / "pretrain" / "metrics.jsonl", problems)),
        finetune_metrics=tuple(_lines(folder / "finetune" / "metrics.jsonl", problems)),
        splits=_splits(folder, problems),
        equivalences={
            path.parent.name: document
            for path in sorted(folder.glob("extract/*/equivalence.json"))
            if (document := _document(path, problems))
        },
        facts=facts,
        recipe=_recipe(recipe_text, problems),
        recipe_text=recipe_text,
        log_tail="\n".join(_text(folder / "log.txt").splitlines()[-40:]),
        problems=tuple(problems),
    )


def first_text(document: Mapping[str, Any], *names: str) -> str:
    """Return the first non-empty value among ``names`` as text, else an empty string."""
    for name in names:
        value = document.get(name)
        if value is not None and value != "" and not isinstance(value, Mapping | list):
            return str(value)
    return ""


def width_text(text: str) -> str:
    """Write a width multiplier as ``1.5x``; what is no number stays as it is."""
    try:
        return f"{float(text):g}x"
    except ValueError:
        return text


def _run_facts(folder: Path) -> dict[str, Any]:
    if (folder / runs.FILE).is_file():
        return files.read_json(folder / runs.FILE, "run")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileInvalid(f"{folder} is not a run folder: it {what}", hint=RUN_FOLDER_HINT)
    names = sorted(path.name for path in folder.iterdir())
    seen = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    inside = sorted(path.parent for path in folder.glob(f"*/{runs.FILE}"))
    above = runs.run_of(folder)
    hint = RUN_FOLDER_HINT
    if inside:
        hint = f"give one of the run folders in it, for example {inside[-1]}"
    elif above:
        hint = f"it lies in the run folder {above}: give that"
    raise FileInvalid(
        f"{folder} is not a run folder: it has no {runs.FILE}, it holds {seen or 'nothing'}",
        hint=hint,
    )


def _rows(folder: Path) -> tuple[LedgerRow, ...]:
    try:
        return Ledger.open(folder).rows
    except FileInvalid as error:
        hint = "put back the ledger that this run wrote, or do the run again with another --out"
        raise FileInvalid(error.message, hint=error.hint or hint) from error


def _artifacts(folder: Path, problems: list[str]) -> Iterator[FoundArtifact]:
    places = [folder / "pretrain", folder / "finetune"]
    places += sorted(folder.glob("extract/*")) + sorted(folder.glob("export/*"))
    for place in places:
        if not any((place / n).is_file() for n in ("encoder.json", "model.json", "artifact.json")):
            continue
        try:
            artifact = Artifact.load(place, verify=False)
        except EdgeSSLError as error:
            problems.append(_short(error.message, folder))
            continue
        problem = ""
        try:
            artifact.verify(place)
        except EdgeSSLError as error:
            problem = _short(error.message, folder)
            problems.append(problem)
        sizes = {n: (place / n).stat().st_size for n in artifact.files if (place / n).is_file()}
        parity = tuple(_checks(place / "parity.json", problems))
        yield FoundArtifact(place.relative_to(folder).as_posix(), artifact, sizes, problem, parity)


def _checks(path: Path, problems: list[str]) -> Iterator[ParityCheck]:
    checks = _document(path, problems).get("checks")
    for check in checks if isinstance(checks, list) else []:
        try:
            yield ParityCheck.model_validate(check)
        except ValidationError as error:
            problems.append(f"{path.parent.name}/{path.name}: {error.errors()[0]['msg']}")


def _benches(folder: Path, problems: list[str]) -> Iterator[FoundBench]:
    for path in sorted(folder.glob("bench/*/*/result.json")):
        document = _document(path, problems)
        if not document:
            continue
        try:
            result = BenchResult.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            problems.append(f"{path.relative_to(folder).as_posix()}: {place}: {first['msg']}")
            continue
        if not result.verdicts:
            problems.append(f"{path.relative_to(folder).as_posix()} has no verdict: left out")
            continue
        samples, starts = samples_by_part(_lines(path.parent / "samples.jsonl", problems))
        place = path.parent.relative_to(folder).as_posix()
        yield FoundBench(place, path.parent.parent.name, result, samples, starts)


def samples_by_part(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, list[float]], list[int]]:
    """Sort sample lines into milliseconds per quoted part, in order, with the repeat starts.

    A line holds one inference: each part by name (``infer_ms``); ``repeat`` numbers the fresh
    processes.
    """
    samples: dict[str, list[float]] = {}
    for part in HEADLINE_PARTS:
        values = [row.get(f"{part}_ms") for row in rows]
        if known := [value for value in values if is_number(value)]:
            samples[part] = known
    repeats = [row.get("repeat") for row in rows]
    pairs = enumerate(pairwise(repeats), 1)
    starts = [index for index, (before, now) in pairs if before != now]
    return samples, starts


def _splits(folder: Path, problems: list[str]) -> Mapping[str, Any]:
    for path in (folder / "splits.json", *sorted(folder.glob("*/splits.json"))):
        if document := _document(path, problems):
            return document
    return {}


def _document(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} could not be read: {error}")
        return {}
    return document if isinstance(document, dict) else {}


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    try:
        return [row for row in files.read_jsonl(path) if isinstance(row, dict)]
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} could not be read: {error}")
        return []


def _recipe(text: str, problems: list[str]) -> Mapping[str, Any]:
    if not text:
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        problems.append(f"recipe.yaml could not be read: {error}")
        return {}
    return loaded if isinstance(loaded, Mapping) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def _short(message: str, folder: Path) -> str:
    """Name files from the run folder on: the report may be shown around."""
    return message.replace(f"{folder}/", "")

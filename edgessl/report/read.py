"""Read a run folder for the report: whatever is there, and a note for what cannot be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.core import files, runs
from edgessl.core.errors import FileInvalid
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.report.board_records import Grid
from edgessl.report.found import FoundArtifact, FoundBench, artifacts_in, benches_in
from edgessl.report.proofs import Proof, proofs_of, resizes_of
from edgessl.report.recorded import read_record
from edgessl.report.records import Resizes
from edgessl.report.tolerant import (
    Notes,
    first_text,
    json_lines,
    json_object,
    mapping,
    text_of,
    width_number,
    yaml_object,
)

RUN_FOLDER_HINT = "give a folder that a command of edgessl wrote, such as runs/<name>, or 'last'"
STARTS = {"pretrain": "from random weights", "pretrain-imagenet": "from ImageNet weights"}

Lines = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Log:
    """What one training wrote: its curves and, when pretraining, its monitors."""

    folder: str
    title: str
    metrics: Lines
    monitor: Lines = ()

    @property
    def from_weights(self) -> bool:
        """Whether it started from weights that someone else trained."""
        return self.folder.startswith("pretrain-")


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run folder holds and a report shows."""

    name: str
    folder: Path
    rows: tuple[LedgerRow, ...]
    artifacts: tuple[FoundArtifact, ...]
    proofs: tuple[Proof, ...]
    resizes: Resizes | None
    benches: tuple[FoundBench, ...]
    grid: Grid | None
    pretrainings: tuple[Log, ...]
    finetunings: tuple[Log, ...]
    findings: Mapping[str, Any]
    splits: Mapping[str, Any]
    equivalences: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_text: str
    log_tail: str
    notes: Notes

    @property
    def trained(self) -> tuple[FoundArtifact, ...]:
        """The artifacts without those whose weights are random."""
        return tuple(a for a in self.artifacts if not a.untrained)

    @property
    def folded(self) -> bool:
        """Whether accuracy was taken over folds, without a test split."""
        return any(row.split == "folds" for row in self.rows)

    @property
    def widths(self) -> tuple[str, ...]:
        """The slim widths that figures or files are about, the widest first."""
        found = {row.width for row in self.rows if row.width}
        found |= {a.folder.split("/")[1] for a in self.artifacts if a.folder.startswith("extract/")}
        return tuple(sorted(found, key=lambda text: (-width_number(text), text)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names in the order of the scores; none for an embedding model."""
        return next((a.artifact.labels for a in self.artifacts if a.artifact.labels), ())

    def artifact(self, seal: str | None) -> FoundArtifact | None:
        """Return the artifact with this seal."""
        return next((a for a in self.artifacts if a.artifact.seal == seal), None) if seal else None

    def proof(self, seal: str | None) -> Proof | None:
        """Return what is proven of the exported file with this seal."""
        return next((p for p in self.proofs if p.seal == seal), None) if seal else None

    def setting(self, section: str, *names: str) -> str:
        """Return the first of ``names`` in a recipe section, as text; empty when absent."""
        return first_text(mapping(self.recipe.get(section)), *names)


def read_run(folder: Path) -> Run:
    """Read the files of a run folder.

    Without ``run.json`` it is not a run folder, and without the ledger no figure can be trusted;
    whatever else is absent or damaged is left out, with a note.

    Raises:
        FileInvalid: ``folder`` is not a run folder, or its ledger cannot be read.
    """
    folder = Path(folder)
    facts = _run_facts(folder)
    notes = Notes(folder)
    recipe_text = text_of(folder / "recipe.yaml")
    artifacts = tuple(artifacts_in(folder, notes))
    return Run(
        name=folder.resolve().name,
        folder=folder,
        rows=_rows(folder, notes),
        artifacts=artifacts,
        proofs=tuple(proofs_of(folder, artifacts, notes)),
        resizes=resizes_of(folder, notes),
        benches=tuple(benches_in(folder, notes)),
        grid=read_record(Grid, folder / "grid.json", notes),
        pretrainings=tuple(_pretrainings(folder, notes)),
        finetunings=tuple(_finetunings(folder, notes)),
        findings=json_object(folder / "data.json", notes),
        splits=_splits(folder, notes),
        equivalences={
            path.parent.name: document
            for path in sorted(folder.glob("extract/*/equivalence.json"))
            if (document := json_object(path, notes))
        },
        facts=facts,
        recipe=yaml_object(recipe_text, "recipe.yaml", notes),
        recipe_text=recipe_text,
        log_tail="\n".join(text_of(folder / "log.txt").splitlines()[-40:]),
        notes=notes,
    )


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


def _rows(folder: Path, notes: Notes) -> tuple[LedgerRow, ...]:
    try:
        rows = Ledger.open(folder).rows
    except FileInvalid as error:
        hint = "put back the ledger that this run wrote, or do the run again with another --out"
        raise FileInvalid(error.message, hint=error.hint or hint) from error
    odd = [row.id for row in rows if not _sound(row)]
    for name in odd:
        notes.add(f"ledger.json: row {name} has no figure that can be shown")
    return tuple(row for row in rows if _sound(row))


def _sound(row: LedgerRow) -> bool:
    figures = (row.value, row.ci_low, row.ci_high, row.delta, row.delta_low, row.delta_high)
    return row.n > 0 and all(value is None or math.isfinite(value) for value in figures)


def _pretrainings(folder: Path, notes: Notes) -> list[Log]:
    found = []
    for place in sorted(path for path in folder.glob("pretrain*") if path.is_dir()):
        metrics = json_lines(place / "metrics.jsonl", notes)
        monitor = json_lines(place / "monitor.jsonl", notes)
        title = STARTS.get(place.name, f"from {place.name.removeprefix('pretrain-')}")
        if metrics or monitor:
            found.append(Log(place.name, title, metrics, monitor))
    return found


def _finetunings(folder: Path, notes: Notes) -> list[Log]:
    places = [folder / "finetune", *sorted(folder.glob("finetune/*x"))]
    found = []
    for place in places:
        if metrics := json_lines(place / "metrics.jsonl", notes):
            name = place.relative_to(folder).as_posix()
            title = "" if place.name == "finetune" else f"at {place.name}"
            found.append(Log(name, title, metrics))
    return found


def _splits(folder: Path, notes: Notes) -> Mapping[str, Any]:
    for path in (folder / "splits.json", *sorted(folder.glob("*/splits.json"))):
        if document := json_object(path, notes):
            return document
    return {}

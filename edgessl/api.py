"""The Python API: one function per command of the CLI, keyword by keyword.

Values that are not given come from ``edgessl.yaml`` in the current folder, then from the run
that the input lies in, then from the defaults. Every function that works on images writes into
a new run folder and returns an :class:`Outcome`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError, UsageProblem
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.recipe import Recipe, dump_yaml, override, read_recipe_values
from edgessl.core.runs import RunFolder, resolve, run_of
from edgessl.stages.recipes import recipe_values, validated

DEFAULTS_FILE = Path("edgessl.yaml")
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        command: Its name.
        run: Run folder.
        result: JSON values: paths, figures, verdicts.
        next: The command to call next.
        errors: Errors of branches that failed while others finished.
    """

    command: str
    run: Path
    result: dict[str, Any]
    next: str
    errors: tuple[EdgeSSLError, ...] = field(default=())


def run(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    start: str | None = None,
    until: str | None = None,
    reporter: Reporter | None = None,
) -> Outcome:
    """Run the chain of a recipe: pretrain to report.

    Args:
        recipe: File, name of a shipped recipe, or values; None takes ``edgessl.yaml``.
        settings: Dotted changes, for example ``{"pretrain.epochs": 5}``.
        out: Run folder; None makes ``runs/<name>``.
        resume: Continue that run: finished stages are kept, the interrupted one goes on.
        start: First stage; the earlier ones must be finished in the run folder.
        until: Last stage.
        reporter: Speaks to the user.

    Raises:
        RecipeInvalid, DataInvalid, UsageProblem: Bad input.
        Interrupted: Stopped; state was saved.
    """
    from edgessl.stages.chain import run_chain, selected

    stages = selected(start, until)
    if recipe is None and not DEFAULTS_FILE.is_file():
        raise UsageProblem(
            f"no recipe given and no {DEFAULTS_FILE} here",
            hint="try the shipped one: edgessl run quickstart",
        )
    loaded = validated(recipe_values(recipe if recipe is not None else DEFAULTS_FILE), settings)
    folder = RunFolder.create(out, loaded.name, resume=resume or start is not None)
    context = _context(loaded, folder, reporter)
    errors = run_chain(context, stages)
    rows = [row for row in context.ledger.rows if row.draw is None or row.stage != "finetune"]
    report = folder.path / "report.html"
    result = {
        "ledger": str(folder.path / "ledger.json"),
        "report": str(report) if report.is_file() else None,
        "rows": [row.model_dump(mode="json") for row in rows],
        "errors": [error.as_dict() for error in errors],
    }
    return Outcome("run", folder.path, result, f"open {report}", tuple(errors))


def pretrain(
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Pretrain a host and its slices on unlabeled images.

    Args:
        settings: Dotted recipe values, for example ``{"data.unlabeled": "photos"}``.
        out: Run folder.
        resume: Continue an interrupted pretraining in that folder.
        reporter: Speaks to the user.
    """
    from edgessl.stages.pretrain import pretrain as stage

    context = _open("pretrain", None, settings, out, resume, reporter)
    folder = stage(context)
    return Outcome(
        "pretrain", context.run.path, {"checkpoint": str(folder)}, "edgessl evaluate last"
    )


def evaluate(
    checkpoint: str | Path | None = None,
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Evaluate the slim net of a checkpoint by kNN and linear probe, beside raw pixels."""
    from edgessl.stages.evaluate import evaluate as stage
    from edgessl.stages.networks import artifact_folder

    source = artifact_folder(resolve(checkpoint), "pretrain", "finetune")
    context = _open("evaluate", source, settings, out, resume, reporter)
    rows = stage(context, source)
    return Outcome("evaluate", context.run.path, _rows(rows), f"edgessl finetune {source}")


def finetune(
    checkpoint: str | Path | None = None,
    *,
    scratch: bool = False,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Fine-tune the slim net of a checkpoint on labels.

    Args:
        checkpoint: Pretraining checkpoint; None means the last run.
        scratch: Train from random weights only, without a checkpoint.
        settings: Dotted recipe values.
        out: Run folder.
        resume: Continue in that folder; finished trainings are kept.
        reporter: Speaks to the user.
    """
    from edgessl.stages.finetune import run_finetune
    from edgessl.stages.networks import artifact_folder

    source = None if scratch else artifact_folder(resolve(checkpoint), "pretrain")
    context = _open("finetune", source, settings, out, resume, reporter)
    folder = run_finetune(context, source)
    rows = context.ledger.find(stage="finetune")
    result = {"model": str(folder)} | _rows(rows)
    return Outcome("finetune", context.run.path, result, "edgessl extract last")


def extract(
    checkpoint: str | Path | None = None,
    *,
    width: str | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Extract the slim net as a plain stock net, proven equal to the slim pass.

    Args:
        checkpoint: Fine-tuned host or pretraining checkpoint; None means the last run.
        width: The slim width to extract; None takes the one of the checkpoint.
        settings: Dotted recipe values.
        out: Run folder.
        resume: Keep a finished extraction in that folder.
        reporter: Speaks to the user.

    Raises:
        UsageProblem: The checkpoint has no such width.
        GateFailed: The extracted net differs from the slim pass.
    """
    from edgessl.stages.extract import run_extract
    from edgessl.stages.networks import artifact_folder, check_width

    source = artifact_folder(resolve(checkpoint), "finetune", "pretrain")
    check_width(source, width)
    context = _open("extract", source, settings, out, resume, reporter)
    folder = run_extract(context, source)
    proof = files.read_json(folder / "equivalence.json", "equivalence")
    result = {"model": str(folder), "equivalence": proof}
    return Outcome("extract", context.run.path, result, "edgessl export last")


def export(
    model: str | Path | None = None,
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Export a plain net to the recipe's targets and prove each on real images.

    Every target is tried; errors of the failing ones are in the outcome.
    """
    from edgessl.stages.export import Source, run_export
    from edgessl.stages.networks import artifact_folder

    place = artifact_folder(resolve(model), "extract/*")
    context = _open("export", place, settings, out, resume, reporter)
    source = Source.load(context, place)
    written, errors = {}, []
    for target in context.recipe.export.targets:
        try:
            folder = run_export(context, source, target)
            written[target] = {
                "folder": str(folder),
                "parity": files.read_json(folder / "parity.json", "parity"),
            }
        except EdgeSSLError as error:
            if error.exit_code == 130 or len(context.recipe.export.targets) == 1:
                raise
            errors.append(error)
            context.reporter.warn(f"{target}: {error.message}")
    next_command = "edgessl bench last"
    return Outcome("export", context.run.path, {"exports": written}, next_command, tuple(errors))


def bench(
    artifacts: Sequence[str | Path] = (),
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Measure exported files on a device.

    Args:
        artifacts: Export folders, or run folders (all their exports); empty means the last run.
        settings: Dotted recipe values, for example ``{"bench.preset": "standard"}``.
        out: Run folder.
        resume: Continue in that folder; finished benches are kept.
        reporter: Speaks to the user.

    Raises:
        MeasurementNotValid: A verdict is not VALID and that is not allowed.
    """
    from edgessl.stages.bench import run_bench

    folders = _exports(artifacts)
    context = _open("bench", folders[0], settings, out, resume, reporter)
    results = run_bench(context, None, folders)
    figures = [r.model_dump(mode="json", by_alias=True) for r in results]
    return Outcome("bench", context.run.path, {"results": figures}, "edgessl report last")


def report(runs: Sequence[str | Path] = (), *, out: Path | None = None) -> Outcome:
    """Write ``report.html`` and ``MODEL_CARD.md`` from run folders.

    Args:
        runs: Run folders; empty means the last run, with the runs its inputs came from.
        out: The HTML file; None writes into the (last) run folder.
    """
    from edgessl.report.html import write_report
    from edgessl.report.model_card import write_model_card

    folders = [_run_folder(r) for r in runs] or _lineage(resolve(None))
    path = write_report(folders, out or folders[-1] / "report.html")
    card = write_model_card(folders[-1], path.with_name("MODEL_CARD.md"))
    result = {"report": str(path), "model_card": str(card)}
    return Outcome("report", folders[-1], result, f"open {path}")


def _open(
    command: str,
    source: Path | None,
    settings: Settings | None,
    out: Path | None,
    resume: bool,
    reporter: Reporter | None,
) -> Any:
    """Make the run of a lone command: its recipe, and what it inherits from its input's run."""
    reporter = reporter or Reporter()
    before = run_of(source) if source else None
    values: dict[str, Any] = {}
    filled = []
    if before is not None and (before / "recipe.yaml").is_file():
        values = read_recipe_values(before / "recipe.yaml")
        filled.append(f"recipe of {before}")
    if DEFAULTS_FILE.is_file():
        values = _overlaid(values, read_recipe_values(DEFAULTS_FILE))
        filled.append(str(DEFAULTS_FILE))
    if source is not None:
        reporter.say(f"{command}: {source}")
    reporter.say(f"options not given: {', then '.join(reversed(filled)) or 'the defaults'}")
    recipe = validated(override(values, {"name": command}), settings)
    folder = RunFolder.create(out, command, resume=resume)
    same_data = before is not None and recipe.data == _data_of(before)
    if before is not None and before.resolve() != folder.path.resolve():
        Ledger.open(folder.path).put(Ledger.open(before).rows)
        if same_data and (before / "splits.json").is_file():
            files.write_bytes(folder.path / "splits.json", (before / "splits.json").read_bytes())
        folder.remember_source(before)
    return _context(recipe, folder, reporter)


def _context(recipe: Recipe, folder: RunFolder, reporter: Reporter | None) -> Any:
    from edgessl.stages.context import Context

    files.write_text(folder.path / "recipe.yaml", dump_yaml(recipe))
    reporter = reporter or Reporter()
    reporter.log = folder.path / "log.txt"
    folder.begin(["edgessl", *sys.argv[1:]])
    reporter.say(f"run folder: {folder.path}")
    return Context(recipe, folder, reporter)


def _data_of(run_folder: Path) -> Any:
    return validated(read_recipe_values(run_folder / "recipe.yaml")).data


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inside = merged.get(key)
        if isinstance(inside, Mapping) and isinstance(value, Mapping):
            merged[key] = {**inside, **value}
        else:
            merged[key] = value
    return merged


def _rows(rows: Sequence[LedgerRow]) -> dict[str, Any]:
    return {"rows": [row.model_dump(mode="json") for row in rows]}


def _run_folder(what: str | Path) -> Path:
    path = resolve(what)
    found = run_of(path)
    return found if found is not None else path


def _lineage(run_folder: Path) -> list[Path]:
    """Return the runs that the inputs of ``run_folder`` came from, oldest first, and itself."""
    chain = [run_folder]
    while (source := RunFolder(chain[0]).facts.get("source")) and Path(source).is_dir():
        if Path(source) in chain:
            break
        chain.insert(0, Path(source))
    return chain


def _exports(artifacts: Sequence[str | Path]) -> list[Path]:
    folders: list[Path] = []
    for path in [resolve(a) for a in artifacts] or [resolve(None)]:
        folder = path if path.is_dir() else path.parent
        if (folder / "artifact.json").is_file():
            folders.append(folder)
            continue
        found = sorted(p.parent for p in folder.glob("export/*/artifact.json"))
        if not found:
            raise UsageProblem(
                f"{path} holds no exported artifact", hint="export one first: edgessl export"
            )
        folders += found
    return folders

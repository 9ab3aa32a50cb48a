"""The Python API: one function per command of the CLI, keyword by keyword.

Values that are not given come from ``edgessl.yaml`` in the current folder, then from the run
that the input lies in, then from the defaults. Every function that works on images writes into
a new run folder and returns an :class:`Outcome`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl.api_bench import bench as bench
from edgessl.api_bench import bench_untrained as bench_untrained
from edgessl.api_data import data_check as data_check
from edgessl.api_data import data_prepare as data_prepare
from edgessl.api_devices import devices_add as devices_add
from edgessl.api_devices import devices_check as devices_check
from edgessl.api_devices import devices_list as devices_list
from edgessl.api_devices import devices_remove as devices_remove
from edgessl.api_devices import devices_setup as devices_setup
from edgessl.api_dry_run import dry_run as dry_run
from edgessl.api_light import Finding as Finding
from edgessl.api_light import cost as cost
from edgessl.api_light import doctor as doctor
from edgessl.api_light import init as init
from edgessl.api_light import paper_costs as paper_costs
from edgessl.api_light import predict as predict
from edgessl.api_light import runs as runs
from edgessl.core import files
from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError, Interrupted, UsageProblem
from edgessl.core.ledger import LedgerRow
from edgessl.core.registry import require_training
from edgessl.core.runs import RunFolder, resolve, run_of
from edgessl.outcome import Outcome as Outcome
from edgessl.stages.opening import DEFAULTS_FILE, lineage, open_run, start_run
from edgessl.stages.recipes import recipe_values, validated

Settings = Mapping[str, Any]


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
        recipe: File, name of a shipped recipe, or values; None takes that of the run to resume,
            else ``edgessl.yaml``.
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
    require_training("run")
    from edgessl.stages.board_opening import check_bench
    from edgessl.stages.chain import run_chain, selected
    from edgessl.stages.refusals import refuse_pretraining
    from edgessl.stages.roles import check_sources

    stages = selected(start, until)
    if recipe is None and resume and out is not None and (out / "recipe.yaml").is_file():
        recipe = out / "recipe.yaml"
    if recipe is None and not DEFAULTS_FILE.is_file():
        raise UsageProblem(
            f"no recipe given and no {DEFAULTS_FILE} here",
            hint="try the shipped one: edgessl run quickstart",
        )
    loaded = validated(recipe_values(recipe if recipe is not None else DEFAULTS_FILE), settings)
    check_sources(loaded)
    if "pretrain" in stages and not resume:
        refuse_pretraining(loaded)
    if "bench" in stages:
        check_bench(loaded)
    folder = RunFolder.create(out, loaded.name, resume=resume or start is not None)
    context = start_run(loaded, folder, reporter)
    errors = run_chain(context, stages)
    rows = [row for row in context.ledger.rows if row.draw is None or row.stage != "finetune"]
    report = folder.path / "report.html"
    result = {
        "ledger": str(folder.path / "ledger.json"),
        "report": str(report) if report.is_file() else None,
        "rows": [row.model_dump(mode="json") for row in rows],
        "errors": [error.as_dict() for error in errors],
    }
    after = f"edgessl run --resume --out {folder.path}"
    if "report" in stages and report.is_file():
        after = f"open {report} in a browser"
    return Outcome("run", folder.path, result, after, tuple(errors))


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
    require_training("pretrain")
    from edgessl.stages.networks import stock_net
    from edgessl.stages.pretrain import pretrain as stage
    from edgessl.stages.refusals import refuse_pretraining

    check = None if resume else refuse_pretraining  # a finished one may outlive its teacher
    context = open_run("pretrain", None, settings, out, resume, reporter, check)
    if "weights" in context.recipe.starts:
        stock_net(context.recipe, context.recipe.slim_labels[0])  # refuse a bad file at once
    folders = [str(stage(context, start)) for start in context.recipe.starts]
    result = {"checkpoint": folders[0], "checkpoints": folders}
    return Outcome("pretrain", context.run.path, result, "edgessl evaluate last")


def evaluate(
    checkpoint: str | Path | None = None,
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Evaluate the slim net of a checkpoint by kNN and linear probe, beside raw pixels."""
    require_training("evaluate")
    from edgessl.stages.evaluate import evaluate as stage
    from edgessl.stages.networks import artifact_folders, tuned_width

    places = ("pretrain*", "finetune", "finetune/*")
    found = artifact_folders(resolve(checkpoint, places), *places)
    sources = found if tuned_width(found[0]) is None else found[:1]
    context = open_run("evaluate", sources[0], settings, out, resume, reporter)
    rows = stage(context, sources)
    return Outcome("evaluate", context.run.path, _rows(rows), f"edgessl finetune {sources[0]}")


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
        checkpoint: Pretraining checkpoint; None means the last run, or no checkpoint when
            ``settings`` name ``encoder.weights``: these and random weights are then the starts.
        scratch: Train from random weights only, without a checkpoint.
        settings: Dotted recipe values.
        out: Run folder.
        resume: Continue in that folder; finished trainings are kept.
        reporter: Speaks to the user.
    """
    require_training("finetune")
    from edgessl.stages.finetune import run_finetune
    from edgessl.stages.networks import artifact_folders, check_encoder

    places = ("pretrain*",)
    settings = dict(settings or {})
    alone = scratch or (checkpoint is None and settings.get("encoder.weights"))
    sources = [] if alone else artifact_folders(resolve(checkpoint, places), *places)
    for source in sources:
        settings |= check_encoder(source, settings)
    context = open_run("finetune", next(iter(sources), None), settings, out, resume, reporter)
    folders = [run_finetune(context, sources, w) for w in context.recipe.slim_labels]
    rows = context.ledger.find(stage="finetune")
    models = [str(folder) for folder in folders]
    result = {"model": models[0], "models": models} | _rows(rows)  # the widest one, and all
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
        width: The slim width to extract; None takes all of the checkpoint.
        settings: Dotted recipe values.
        out: Run folder.
        resume: Keep a finished extraction in that folder.
        reporter: Speaks to the user.

    Raises:
        UsageProblem: The checkpoint has no such width.
        GateFailed: The extracted net differs from the slim pass.
    """
    require_training("extract")
    from edgessl.stages.extract import run_extract
    from edgessl.stages.networks import artifact_folders, check_encoder, tuned_width

    places = ("finetune", "finetune/*", "pretrain*")
    sources = artifact_folders(resolve(checkpoint, places), *places)
    encoder = check_encoder(sources[0], {"encoder.width": width})
    context = open_run(
        "extract", sources[0], {**(settings or {}), **encoder}, out, resume, reporter
    )
    results = []
    for label in context.recipe.slim_labels:
        fitting = [s for s in sources if tuned_width(s) in (None, label)]
        for source in fitting[:1]:
            folder = run_extract(context, source, label)
            proof = files.read_json(folder / "equivalence.json", "equivalence")
            results.append({"model": str(folder), "equivalence": proof})
    if not results:
        raise UsageProblem(
            f"{sources[0]} was not fine-tuned at {width}", hint="fine-tune that width first"
        )
    result = results[0] | {"models": results}  # the widest one, and all
    return Outcome("extract", context.run.path, result, "edgessl export last")


def export(
    model: str | Path | None = None,
    *,
    settings: Settings | None = None,
    out: Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Export plain nets to the recipe's targets, and prove each file on real images.

    A run folder means the nets of all its widths. Every target is tried; errors of the failing
    ones are in the outcome. A quantised file stands beside its float32 one.
    """
    require_training("export")
    from edgessl.stages.conversion import check_installed
    from edgessl.stages.export import Source, export_folder
    from edgessl.stages.networks import artifact_folders
    from edgessl.stages.resizes import measure_resizes
    from edgessl.stages.targets import run_export

    places = artifact_folders(resolve(model, ["extract/*"]), "extract/*")
    context = open_run("export", places[0], settings, out, resume, reporter)
    section = context.recipe.export
    for target in section.targets:
        check_installed(target, section.quantize)
    written, errors = {}, []
    sources = [Source.load(context, place) for place in places]
    for source in sources:
        for target in section.targets:
            try:
                run_export(context, source, target)
            except Interrupted:
                raise
            except EdgeSSLError as error:
                errors.append(error)
                context.reporter.warn(f"{target}: {error.message}")
            for precision in dict.fromkeys(("none", section.quantize)):
                folder = export_folder(context, source.artifact, target, precision)
                if (folder / "parity.json").is_file():
                    written[folder.name] = _export_result(folder)
    measure_resizes(context, sources[0])  # the widest stands for all
    next_command = "edgessl bench last"
    return Outcome("export", context.run.path, {"exports": written}, next_command, tuple(errors))


def report(runs: Sequence[str | Path] = (), *, out: Path | None = None) -> Outcome:
    """Write ``report.html`` and ``MODEL_CARD.md`` from run folders.

    Args:
        runs: Run folders; empty means the last run, with the runs its inputs came from.
        out: The HTML file; None writes into the (last) run folder.
    """
    from edgessl.report.html import write_report
    from edgessl.report.model_card import write_model_card

    folders = [_run_folder(r) for r in runs] or lineage(resolve(None))
    path = write_report(folders, out or folders[-1] / "report.html")
    card = write_model_card(folders[-1], path.with_name("MODEL_CARD.md"))
    result = {"report": str(path), "model_card": str(card)}
    return Outcome("report", folders[-1], result, f"open {path} in a browser")


def _export_result(folder: Path) -> dict[str, Any]:
    """Return what the records of an export say: parity, and the verdict on a quantised one."""
    found: dict[str, Any] = {"folder": str(folder)}
    for name, kind in (
        ("parity", "parity"), ("gate", "gate"), ("search", "quantization-search"),
        ("sensitivity", "sensitivity"),
    ):  # fmt: skip
        path = folder / f"{name}.json"
        if path.is_file():
            found[name] = files.read_json(path, kind)
    return found


def _rows(rows: Sequence[LedgerRow]) -> dict[str, Any]:
    return {"rows": [row.model_dump(mode="json") for row in rows]}


def _run_folder(what: str | Path) -> Path:
    path = resolve(what)
    found = run_of(path)
    return found if found is not None else path

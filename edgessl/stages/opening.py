"""How a command gets its run folder: recipe from flags, file and input; what it inherits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.console import Reporter
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.ledger import Ledger
from edgessl.core.recipe import Recipe
from edgessl.core.recipe_text import dump_yaml, override, read_recipe_values
from edgessl.core.runs import FILE, STAGES, RunFolder, resolve, run_of
from edgessl.stages.context import Context
from edgessl.stages.recipes import validated
from edgessl.stages.roles import check_sources

DEFAULTS_FILE = Path("edgessl.yaml")
EXPORTS = ("export/*/artifact.json",)
Settings = Mapping[str, Any]


def open_run(
    command: str,
    source: Path | None,
    settings: Settings | None,
    out: Path | None,
    resume: bool,
    reporter: Reporter | None,
    check: Callable[[Recipe], object] | None = None,
) -> Context:
    """Make the run of a lone command: its recipe, and what it inherits from its input's run.

    Args:
        command: Its name.
        source: What it works on, if anything.
        settings: Dotted values that were given.
        out: Run folder.
        resume: Continue in that folder.
        reporter: Speaks to the user.
        check: Raises on a recipe that cannot work, before a folder is made.
    """
    reporter = reporter or Reporter()
    before = run_of(source) if source else None
    if source is not None:
        reporter.say(f"{command}: {source}")
    recipe = lone_recipe(command, before, settings, reporter)
    check_sources(recipe)
    if check is not None:
        check(recipe)
    folder = RunFolder.create(out, command, resume=resume)
    if before is not None and folder.is_new and before.resolve() != folder.path.resolve():
        _inherit(folder, before, command, recipe)
    return start_run(recipe, folder, reporter)


def lone_recipe(
    command: str, before: Path | None, settings: Settings | None, reporter: Reporter
) -> Recipe:
    """Return the recipe of a lone command, and say where options that were not given come from.

    Args:
        command: Its name.
        before: Run folder that its input lies in, if any.
        settings: Dotted values that were given.
        reporter: Speaks to the user.
    """
    values: dict[str, Any] = {}
    filled = []
    if before is not None and (before / "recipe.yaml").is_file():
        values = read_recipe_values(before / "recipe.yaml")
        filled.append(f"recipe of {before}")
    if DEFAULTS_FILE.is_file():
        values = _overlaid(values, read_recipe_values(DEFAULTS_FILE))
        filled.append(str(DEFAULTS_FILE))
    reporter.say(f"options not given: {', then '.join(reversed(filled)) or 'the defaults'}")
    return validated(override(values, {"name": command}), settings)


def _inherit(folder: RunFolder, before: Path, command: str, recipe: Recipe) -> None:
    """Take over what earlier stages found in the input's run, and its splits for equal data."""
    earlier = STAGES[: STAGES.index(command)]
    Ledger.open(folder.path).put(r for r in Ledger.open(before).rows if r.stage in earlier)
    theirs, splits = before / "recipe.yaml", before / "splits.json"
    if theirs.is_file() and splits.is_file():
        other = validated(read_recipe_values(theirs))
        asked = {
            "labelled", "test", "validation_share", "test_share", "group_by", "folds", "repeats",
        }  # fmt: skip
        same = all(getattr(other.data, key) == getattr(recipe.data, key) for key in asked)
        if same and other.seed == recipe.seed:
            files.write_bytes(folder.path / "splits.json", splits.read_bytes())
    folder.remember_source(before)


def start_run(recipe: Recipe, folder: RunFolder, reporter: Reporter | None) -> Context:
    """Start working in a run folder; a recipe that its results were not made with is refused."""
    saved = folder.path / "recipe.yaml"
    if saved.is_file():
        _refuse_other(recipe, validated(read_recipe_values(saved)), folder.path)
    files.write_text(saved, dump_yaml(recipe))
    reporter = reporter or Reporter()
    reporter.log = folder.path / "log.txt"
    folder.begin(["edgessl", *sys.argv[1:]])
    reporter.say(f"run folder: {folder.path}")
    return Context(recipe, folder, reporter)


def _refuse_other(recipe: Recipe, saved: Recipe, folder: Path) -> None:
    """Refuse to resume with other images, encoder, seed or pretraining.

    Later sections may change: a stage whose settings changed is done again.
    """
    sections = {"seed", "data", "encoder", "pretrain"}
    now, then = (_flat(r.model_dump(mode="json", include=sections)) for r in (recipe, saved))
    free = ("pretrain.save_every_s", "pretrain.monitor.", "pretrain.starts", "encoder.weights")
    keys = sorted(key for key in {*now, *then} if not key.startswith(free))
    changed = [key for key in keys if now.get(key) != then.get(key)]
    if changed:
        listed = ", ".join(
            f"{key} was {then.get(key)!r}, is {now.get(key)!r}" for key in changed[:3]
        )
        raise FileInvalid(
            f"{folder} was made with another recipe: {listed}",
            hint=f"resume with {folder / 'recipe.yaml'}, or choose another --out",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inside = merged.get(key)
        if isinstance(inside, Mapping) and isinstance(value, Mapping):
            merged[key] = {**inside, **value}
        else:
            merged[key] = value
    return merged


def lineage(run_folder: Path) -> list[Path]:
    """Return the runs that the inputs of ``run_folder`` came from, oldest first, and itself."""
    chain = [run_folder]
    while (source := RunFolder(chain[0]).facts.get("source")) and (Path(source) / FILE).is_file():
        if Path(source) in chain:
            break
        chain.insert(0, Path(source))
    return chain


def export_folders(artifacts: Sequence[str | Path]) -> list[Path]:
    """Return the export folders that paths mean; a run folder means all of its exports.

    Raises:
        UsageProblem: A path holds none.
        FileInvalid: A path does not exist.
    """
    folders: list[Path] = []
    for path in [resolve(a, EXPORTS) for a in artifacts] or [resolve(None, EXPORTS)]:
        folder = path if path.is_dir() else path.parent
        if (folder / "artifact.json").is_file():
            folders.append(folder)
            continue
        found = sorted(p.parent for p in folder.glob(EXPORTS[0]))
        if not found:
            raise UsageProblem(
                f"{path} holds no exported artifact", hint="export one first: edgessl export"
            )
        folders += found
    return folders

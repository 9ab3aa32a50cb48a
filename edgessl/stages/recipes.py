"""Recipes by file or name, validated against the models and the tables of parts, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgessl.core.errors import MissingExtra, RecipeInvalid, nearest
from edgessl.core.recipe import Recipe
from edgessl.core.recipe_problems import problems_of
from edgessl.core.recipe_text import load_yaml, override, read_recipe_values
from edgessl.core.registry import Table
from edgessl.core.shipped import shipped_recipes, shipped_text
from edgessl.devices import DEVICES
from edgessl.devices.boards import added_boards
from edgessl.encoders import ENCODERS
from edgessl.exporters import EXPORTERS
from edgessl.methods import METHODS


def recipe_values(recipe: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of a recipe: a mapping, a file, or the name of a shipped one.

    Raises:
        RecipeInvalid: No such recipe, or not YAML.
    """
    if isinstance(recipe, Mapping):
        return dict(recipe)
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return read_recipe_values(path)
    known = shipped_recipes()
    if str(recipe) not in known:
        raise RecipeInvalid(
            f"no recipe file and no shipped recipe '{recipe}'",
            hint=f"{nearest(str(recipe), known)}; or give the path of a .yaml file",
        )
    return load_yaml(shipped_text(str(recipe)), f"recipe {recipe}")


def validated(values: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of plain values with dotted changes applied.

    Raises:
        RecipeInvalid: Its message has one line per error.
    """
    values = override(values, changes or {})
    problems, about_options = problems_of(values) + _unknown_names(values), False
    if not problems:
        recipe = Recipe.model_validate(values)
        problems = _option_problems(recipe)
        if not problems:
            return recipe
        about_options = True
    raise RecipeInvalid(
        f"the recipe has {len(problems)} error(s):\n" + "\n".join(f"  {p}" for p in problems),
        hint="all keys with their meaning: edgessl schema recipe"
        + ("; of a method's options: edgessl list methods NAME" if about_options else ""),
    )


def _unknown_names(values: Mapping[str, Any]) -> list[str]:
    from edgessl.data.view_specs import PRESETS

    problems = []
    tables: tuple[tuple[str, str, Table], ...] = (
        ("pretrain", "method", METHODS),
        ("encoder", "name", ENCODERS),
    )
    for section, key, table in tables:
        problems += _unknown(table.kind, f"{section}.{key}", _at(values, section, key), table)
    devices = dict.fromkeys([*DEVICES, *added_boards()])
    problems += _unknown("device", "bench.device", _at(values, "bench", "device"), devices)
    targets = _at(values, "export", "targets")
    for target in targets if isinstance(targets, list | tuple) else ():
        problems += _unknown(EXPORTERS.kind, "export.targets", target, EXPORTERS)
    pretrain = values.get("pretrain")
    if isinstance(pretrain, Mapping):
        preset = _at(pretrain, "views", "preset")
        problems += _unknown("views", "pretrain.views.preset", preset, PRESETS)
    return problems


def _at(values: Mapping[str, Any], section: str, key: str) -> Any:
    inside = values.get(section)
    return inside.get(key) if isinstance(inside, Mapping) else None


def _unknown(kind: str, place: str, name: Any, known: Table | Mapping[str, Any]) -> list[str]:
    if not isinstance(name, str) or name in known:
        return []
    return [f"{place}: unknown {kind} '{name}'; {nearest(name, known)}"]


def _option_problems(recipe: Recipe) -> list[str]:
    """Check the method's own options; needs the method's packages, so left out without them."""
    section = recipe.pretrain
    plain = section.optimizer == "lars" and section.lars.exclude_vectors  # biases get plain SGD
    scaled = section.lars.bias_lr_mult if plain else 1.0
    if not section.options and scaled == 1:
        return []
    try:
        from edgessl.stages.pretrain import method_options

        scale = getattr(method_options(recipe), "scale_loss", 1.0)
    except (MissingExtra, ModuleNotFoundError):
        return []
    except RecipeInvalid as error:
        return error.message.splitlines()
    if scaled != 1 and scale != 1:
        return [
            f"pretrain.lars.bias_lr_mult: {scaled:g} beside pretrain.options.scale_loss {scale:g}: "
            "under LARS both scale the steps of biases and BatchNorms; set one of them to 1"
        ]
    return []

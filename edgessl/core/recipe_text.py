"""Recipes as text: YAML 1.2 in and out, ``--set`` settings, dotted changes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgessl.core.errors import RecipeInvalid

if TYPE_CHECKING:
    from edgessl.core.recipe import Recipe


def load_yaml(text: str, where: str) -> dict[str, Any]:
    """Read YAML 1.2 into plain values.

    Raises:
        RecipeInvalid: Not YAML, a key given twice, or not a mapping at the top.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeInvalid(f"{where} is not valid YAML: {place}{problem}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeInvalid(f"{where} holds a {type(values).__name__}, expected keys and values")
    return values


def dump_yaml(recipe: Recipe) -> str:
    """Write a recipe with every value, as saved beside results."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def override(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` with dotted keys set, for example ``{"pretrain.epochs": 5}``."""
    result: dict[str, Any] = {k: v for k, v in values.items()}
    for dotted, value in changes.items():
        place = result
        *parents, leaf = dotted.split(".")
        for part in parents:
            child = place.get(part)
            place[part] = dict(child) if isinstance(child, Mapping) else {}
            place = place[part]
        place[leaf] = value
    return result


def parse_setting(text: str) -> tuple[str, Any]:
    """Read one ``a.b=c`` of ``--set``; the value is YAML.

    Raises:
        RecipeInvalid: No ``=`` in it, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeInvalid(f"--set {text!r} is not of the form section.key=value")
    return key.strip(), load_yaml(f"v: {value or 'null'}", f"--set {key}")["v"]


def read_recipe_values(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain values, not validated.

    Raises:
        RecipeInvalid: The file is missing, not readable, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeInvalid(f"no such recipe: {path}", hint="see: edgessl list recipes") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeInvalid(f"cannot read {path}: {error}") from None
    return load_yaml(text, str(path))

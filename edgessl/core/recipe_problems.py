"""What is wrong with the values of a recipe: a line per error, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from edgessl.core.errors import nearest
from edgessl.core.recipe import Recipe


def problems_of(values: Mapping[str, Any]) -> list[str]:
    """Return one line per error of recipe values; an empty list means that they are valid."""
    try:
        Recipe.model_validate(dict(values))
    except ValidationError as error:
        return [_line(item) for item in error.errors()]
    return []


def _line(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _fields_at(Recipe, item["loc"][:-1])
        return f"{place}: unknown key; {nearest(str(item['loc'][-1]), known)}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{place or 'recipe'}: {message[0].lower()}{message[1:]} (got {item['input']!r:.60})"


def _fields_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)

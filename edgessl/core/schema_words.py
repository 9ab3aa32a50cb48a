"""JSON Schema said in words: what values a key takes, what it means, its default."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = object()


def kind_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Say in words what values a JSON Schema allows."""
    if "$ref" in schema:
        return kind_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return " or ".join(kind_of(part, definitions) for part in schema["anyOf"])
    if "const" in schema:
        return f"`{shown(schema['const'])}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{shown(value)}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        noun = "whole number" if kind == "integer" else "number"
        return " ".join(filter(None, (noun, _bounds(schema))))
    if kind == "array":
        return _array(schema, definitions)
    if kind == "object":
        inner = schema.get("additionalProperties")
        if isinstance(inner, dict) and inner:
            return f"name to {kind_of(inner, definitions)}"
        return "names and values"
    words = {"string": "text", "boolean": "`true` or `false`", "null": "`null`"}
    return words.get(str(kind), "any value")


def _array(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        parts = [kind_of(part, definitions) for part in schema["prefixItems"]]
        same = f"{len(parts)} times {parts[0]}"
        return f"list: {same if len(set(parts)) == 1 else ', '.join(parts)}"
    fewest = schema.get("minItems", 0)
    inner = kind_of(schema.get("items", {}), definitions)
    return ("list, not empty: " if fewest == 1 else "list: ") + inner


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above"}
    words |= {"maximum": "to", "exclusiveMaximum": "below"}
    return " ".join(f"{word} {schema[key]:,}" for key, word in words.items() if key in schema)


def shown(value: object) -> str:
    """Return a value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def keys(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str, object]]:
    """Yield key, kind, meaning and default of every key, opening the sections inside.

    The default is :data:`ABSENT` where a key has none.
    """
    for name, entry in schema.get("properties", {}).items():
        inner = definitions.get(entry.get("$ref", "").rpartition("/")[2], {})
        if inner.get("properties"):
            yield from keys(inner, definitions, f"{prefix}{name}.")
        else:
            default = entry.get("default", ABSENT)
            text = entry.get("description", "")
            yield f"{prefix}{name}", kind_of(entry, definitions), text, default

"""What JSON Schemas are built from; data only."""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
NUMBER = {"type": "number"}
NUMBER_OR_NULL = {"type": ["number", "null"]}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
TEXT_OR_NULL = {"type": ["string", "null"]}
COUNT_OR_NULL = {"type": ["integer", "null"], "minimum": 0}
POSITIONS = {"type": "array", "items": COUNT}
SIZE = {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
MOMENT = {"type": "string", "format": "date-time", "description": "UTC, ISO 8601"}


def object_of(
    properties: dict[str, Any], optional: tuple[str, ...] = (), **more: str
) -> dict[str, Any]:
    """Return the schema of an object; what is not optional is required."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}

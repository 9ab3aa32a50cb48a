"""JSON Schema of what ``edgessl devices setup`` leaves on a board; see ``core.schemas``."""

from __future__ import annotations

from typing import Any

from edgessl.core.schema_parts import COUNT, SHA256, TEXT, object_of

BOARD_SCHEMAS: dict[str, dict[str, Any]] = {
    "board-runtime": object_of(
        {
            "runtime": TEXT,
            "packages": {
                "type": "object",
                "additionalProperties": TEXT,
                "description": "versions by package",
            },
            "python": {"type": "string", "description": "that it was made for, as in 3.11"},
            "machine": {"type": "string", "description": "that it was made for, as in aarch64"},
            "sha256": {
                "type": "object",
                "additionalProperties": SHA256,
                "description": "of each wheel, by file name",
            },
            "bytes": {**COUNT, "description": "unpacked"},
        },
        title="BoardRuntime",
        description="edgessl.json on a board: a runtime that edgessl devices setup brought",
    ),
}

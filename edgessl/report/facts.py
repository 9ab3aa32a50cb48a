"""Facts from run.json and equivalence.json as texts; missing keys are fine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from edgessl.report import formats
from edgessl.report.read import Run
from edgessl.report.tolerant import mapping

# heads of documents and what is shown elsewhere
HIDDEN = ("schema", "kind", "edgessl", "pass", "passed")


def commands_of(run: Run) -> list[str]:
    """Return the command lines that made the run, oldest first."""
    body = run.facts.get("commands")
    return [
        shlex.join(map(str, item)) if isinstance(item, list) else str(item)
        for item in (body if isinstance(body, list) else [])
    ]


def stage_seconds(run: Run) -> list[tuple[str, str]]:
    """Return ``(stage, how long it took and how it ended)``."""
    found = []
    for name, value in mapping(run.facts.get("stages")).items():
        entry = value if isinstance(value, Mapping) else {"seconds": value}
        seconds, status = entry.get("seconds"), entry.get("status", "done")
        text = formats.duration(seconds) if formats.is_number(seconds) else formats.MISSING
        found.append((str(name), text if status == "done" else f"{text}, {status}"))
    return found


def passed_of(document: Mapping[str, Any]) -> bool | None:
    """Return what an equivalence or parity document says of itself."""
    verdict = document.get("pass", document.get("passed"))
    return verdict if isinstance(verdict, bool) else None


def plain_facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the single values of a document, without its head and its verdict."""
    return [
        (name, formats.plain(value))
        for name, value in document.items()
        if name not in HIDDEN and not isinstance(value, Mapping | list)
    ]


def nested_facts(document: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the objects inside a document, each with its values."""
    return [
        (name, formats.flatten(value))
        for name, value in document.items()
        if name not in HIDDEN and isinstance(value, Mapping) and value
    ]


def moment(value: object) -> str:
    """Write an ISO 8601 moment for people."""
    return (
        str(value).replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC") if value else ""
    )

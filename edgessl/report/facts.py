"""Facts from splits.json, run.json and equivalence.json as texts; missing keys are fine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from edgessl.report import formats
from edgessl.report.read import Run

# heads of documents, what is shown elsewhere, and what is too long to show
HIDDEN = ("schema", "kind", "edgessl", "pass", "passed", "splits", "skipped")


def split_counts(run: Run) -> list[tuple[str, int]]:
    """Return ``(images of what, how many)``: the splits, and what was pretrained on."""
    found = []
    for name, value in mapping(run.splits.get("splits")).items():
        members = value.get("sha256") if isinstance(value, Mapping) else value
        number = len(members) if isinstance(members, list) else members
        if isinstance(number, int):
            found.append((str(name), number))
    measured = [row.n for row in run.rows if row.split == "test"]
    if found and measured and "test" not in dict(found):
        found.append(("test, a source of its own", max(measured)))
    for artifact in run.artifacts:
        pretrained_on = artifact.artifact.facts.get("images")
        if artifact.artifact.artifact_kind == "encoder" and isinstance(pretrained_on, int):
            found.append(("pretrained on, without labels", pretrained_on))
    return found


def class_names(run: Run) -> tuple[str, ...]:
    """Return the class names in the order of the scores; none for an embedding model."""
    return next((a.artifact.labels for a in run.artifacts if a.artifact.labels), ())


def skipped_files(run: Run) -> list[tuple[str, str]] | None:
    """Return ``(file, reason)`` for what could not be used; None where it is not recorded."""
    body = run.splits.get("skipped")
    if not isinstance(body, list):
        return None
    return [
        (str(item.get("item", item.get("path", ""))), str(item.get("reason", "")))
        if isinstance(item, Mapping)
        else (str(item), "")
        for item in body
    ]


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


def mapping(value: object) -> Mapping[str, Any]:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def moment(value: object) -> str:
    """Write an ISO 8601 moment for people."""
    return (
        str(value).replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC") if value else ""
    )

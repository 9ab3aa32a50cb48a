"""Read records: what does not fit its form, or is about another file, is left out with a note."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgessl.report.records import Record
from edgessl.report.tolerant import Notes, json_object, mapping

R = TypeVar("R", bound=Record)


def read_record(kind: type[R], path: Path, notes: Notes, seal: str = "") -> R | None:
    """Read the record in a file.

    Args:
        kind: Its form; what it lists as ``members`` is read one by one.
        path: The file, which may be absent.
        notes: Gets what is wrong.
        seal: The seal of the file that the record must be about; empty for any.
    """
    body: dict[str, Any] = json_object(path, notes)
    if not body:
        return None
    key, member = kind.members
    if key:
        body[key] = list(_members(member, body.get(key), path, notes))
    record = record_of(kind, body, notes.name(path), notes)
    if record is not None and seal and getattr(record, "seal", seal) != seal:
        notes.add(f"{notes.name(path)} is about another file: its seal differs")
        return None
    return record


def record_of(kind: type[R], body: Mapping[str, Any], what: str, notes: Notes) -> R | None:
    """Return an object as a record; None, with a note that names ``what``, if it is none."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        notes.add(f"{what}: {first_error(error)}")
        return None


def first_error(error: ValidationError) -> str:
    """Say where the first thing is that does not fit, and why."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _members(kind: type[Record], body: object, path: Path, notes: Notes) -> Iterator[Mapping]:
    for index, item in enumerate(body if isinstance(body, list) else []):
        try:
            kind.model_validate(item)
        except ValidationError as error:
            notes.add(f"{notes.name(path)}: entry {index + 1}: {first_error(error)}")
        else:
            yield mapping(item)

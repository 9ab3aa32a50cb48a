"""Reading files that may be absent, cut or odd: what is usable, and a note for what is not."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgessl.report.formats import is_number


class Notes:
    """What could not be read, named from the run folder on: the report may be shown around."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def add(self, text: str) -> None:
        """Note a problem once."""
        short = " ".join(text.replace(f"{self.folder}/", "").split())
        if short not in self.lines:
            self.lines.append(short)

    def about(self, path: Path, problem: object) -> None:
        """Note what is wrong with a file."""
        self.add(f"{self.name(path)} could not be read: {problem}")

    def name(self, path: Path) -> str:
        """Name a file from the run folder on."""
        inside = path.is_relative_to(self.folder)
        return path.relative_to(self.folder).as_posix() if inside else path.name


def json_object(path: Path, notes: Notes) -> dict[str, Any]:
    """Return the JSON object in a file; empty when absent, or not one (which is noted)."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        notes.about(path, error)
        return {}
    if isinstance(document, dict):
        return document
    notes.about(path, f"it holds {type(document).__name__}, not an object")
    return {}


def json_lines(path: Path, notes: Notes) -> tuple[dict[str, Any], ...]:
    """Return the JSON objects of a file, one to a line; other lines are counted and noted.

    The last line may be torn: a run that was cut leaves one behind.
    """
    if not path.is_file():
        return ()
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        notes.about(path, error)
        return ()
    try:  # one call for all lines is several times as fast as one for each
        whole: Any = json.loads(b"[" + b",".join(line for line in lines if line.strip()) + b"]")
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, list) and all(isinstance(row, dict) for row in whole):
        return tuple(whole)
    rows: list[dict[str, Any]] = []
    lost = 0
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif index < len(lines) - 1:
            lost += 1
    if lost:
        notes.add(f"{notes.name(path)}: {lost} of {lost + len(rows)} lines could not be read")
    return tuple(rows)


def csv_rows(path: Path, notes: Notes) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names in its head."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                {key: value for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, csv.Error) as error:
        notes.about(path, error)
        return []


def yaml_object(text: str, name: str, notes: Notes) -> Mapping[str, Any]:
    """Return the YAML mapping in ``text``; empty when it is none."""
    if not text:
        return {}
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        loaded = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        notes.add(f"{name} could not be read: {error}")
        return {}
    return loaded if isinstance(loaded, Mapping) else {}


def text_of(path: Path) -> str:
    """Return the text of a file; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def numbers_in(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of nested objects with its dotted name, finite or not."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from numbers_in(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value) if is_number(value) else float("nan")


def first_text(document: Mapping[str, Any], *names: str) -> str:
    """Return the first non-empty value among ``names`` as text, else an empty string."""
    for name in names:
        value = document.get(name)
        if value is not None and value != "" and not isinstance(value, Mapping | list):
            return str(value)
    return ""


def mapping(value: object) -> Mapping[str, Any]:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def width_text(text: str) -> str:
    """Write a width multiplier as ``1.5x``; what is no number stays as it is."""
    try:
        return f"{float(text):g}x"
    except ValueError:
        return text


def width_number(text: str) -> float:
    """Return the multiplier in ``1.5x``; 0 for what is none."""
    try:
        return float(text.removesuffix("x"))
    except ValueError:
        return 0.0

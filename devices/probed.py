"""What the probes of a board gave: texts by name and time. They are read, never trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePosixPath

from edgessl.devices import events
from edgessl.devices.events import Run

TEXT_LIMIT = 1 << 16


def series(run: Run, name: str) -> list[tuple[float, str]]:
    """Return seconds of the agent's clock and text of each reading of a probe, in time order."""
    found = []
    for event in events.of_kind(run, "tel"):
        texts = event.get("probes")
        text = texts.get(name) if isinstance(texts, Mapping) else None
        if isinstance(text, str):
            found.append((float(event["t"]), text[:TEXT_LIMIT]))
    return found


def first(run: Run, name: str) -> str:
    """Return the first reading of a probe; empty when there is none."""
    return next((text for _, text in series(run, name)), "")


def last(run: Run, name: str) -> str:
    """Return the last reading of a probe; empty when there is none."""
    return next((text for _, text in reversed(series(run, name))), "")


def files(text: str) -> dict[str, str]:
    """Return content by path of a probe that reads a pattern: ``path<TAB>content`` lines."""
    pairs = (line.split("\t", 1) for line in text.splitlines())
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def numbers(text: str) -> dict[str, float]:
    """Return the numbers by path of a probe that reads a pattern; the rest is left out."""
    found = {}
    for path, content in files(text).items():
        try:
            value = float(content)
        except ValueError:
            continue
        if math.isfinite(value):
            found[path] = value
    return found


def folder(path: str) -> str:
    """Return the folder that a file of the board lies in."""
    return str(PurePosixPath(path).parent)

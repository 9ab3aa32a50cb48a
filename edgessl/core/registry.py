"""Tables of named parts: a name, where its code lives, and what ``edgessl list`` shows.

A table is plain data and imports nothing, so ``--help`` and ``list`` stay fast and one missing
runtime breaks one entry only.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from edgessl.core.errors import MissingExtra, UsageProblem, nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """One named part.

    Args:
        target: ``module:attribute``, imported on first use.
        summary: One line for ``edgessl list``.
        extra: The ``pip install edgessl[extra]`` that brings what it imports.
        facts: Further columns for ``edgessl list`` (strings, numbers, booleans).
    """

    target: str
    summary: str
    extra: str = ""
    facts: Mapping[str, str | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """The entries of one kind, in the order they are listed.

    Args:
        kind: What they are.
        entries: By name.
        families: By prefix: names that begin with it are known to another package. The target
            is a function from the rest of the name to the part.
    """

    kind: str
    entries: Mapping[str, Entry]
    families: Mapping[str, Entry] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        """Whether the name is an entry's, or may be one of a family: that is not looked up."""
        return name in self.entries or (isinstance(name, str) and self._family(name) is not None)

    def __getitem__(self, name: str) -> Entry:
        if name in self.entries:
            return self.entries[name]
        prefix = self._family(name)
        if prefix is None:
            raise UsageProblem(
                f"unknown {self.kind} '{name}'",
                hint=f"{nearest(name, self.entries)}; see: edgessl list {self.kind}s",
            )
        return self.families[prefix]

    def _family(self, name: str) -> str | None:
        return next((p for p in self.families if name.startswith(p) and name != p), None)

    def listed(self) -> dict[str, Entry]:
        """Return what ``edgessl list`` shows: the entries, then a line for every family."""
        return {**self.entries, **{f"{p}NAME": entry for p, entry in self.families.items()}}

    def load(self, name: str) -> Any:
        """Import and return the part called ``name``.

        Raises:
            UsageProblem: There is no such entry, or none of that name in its family.
            MissingExtra: A package that it needs is not installed.
        """
        entry = self[name]
        module, _, attribute = entry.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "edgessl":
                raise
            raise missing_extra(f"{self.kind} '{name}'", error.name or "?", entry.extra) from error
        if name in self.entries:
            return found
        return found(name.removeprefix(self._family(name) or ""))


def missing_extra(what: str, package: str, extra: str) -> MissingExtra:
    """Build the error for an optional package that is not there."""
    wanted = f"edgessl[{extra}]" if extra else package
    return MissingExtra(
        f"{what} needs the package '{package}', which is not installed",
        hint=f"pip install '{wanted}'",
    )


def require_training(command: str) -> None:
    """Refuse a command whose packages are not installed, before anything is imported.

    Raises:
        MissingExtra: Names the package and the extra that brings it.
    """
    for package in ("torch", "torchvision", "sklearn"):
        if find_spec(package) is None:
            raise missing_extra(f"edgessl {command}", package, "train")

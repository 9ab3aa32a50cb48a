"""Markdown for the reference pages."""

from __future__ import annotations

from collections.abc import Sequence


def plain(text: str) -> str:
    """Escape what Markdown would take for HTML, outside of backticks."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def definition(term: str, *texts: str) -> str:
    """Return one entry of a definition list; empty texts are left out."""
    return f"{term}\n" + "".join(f": {plain(text)}\n" for text in texts if text) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[plain(" ".join(str(c).split())).replace("|", "\\|") for c in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells) + "\n"

"""The recipes that ship with the package; standard library only."""

from __future__ import annotations

from importlib import resources


def shipped_recipes() -> dict[str, str]:
    """Return the shipped recipes: name to the text of the first comment line."""
    found = {}
    for item in sorted(resources.files("edgessl.recipes").iterdir(), key=lambda i: i.name):
        if item.name.endswith(".yaml"):
            first = item.read_text(encoding="utf-8").partition("\n")[0]
            found[item.name.removesuffix(".yaml")] = first.lstrip("# ")
    return found


def shipped_text(name: str) -> str:
    """Return the YAML of a shipped recipe."""
    return (resources.files("edgessl.recipes") / f"{name}.yaml").read_text(encoding="utf-8")

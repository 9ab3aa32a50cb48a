"""The commands that only tell: ``list`` and ``schema``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.app import app
from edgessl.core.errors import UsageProblem, nearest

if TYPE_CHECKING:
    from edgessl.core.registry import Table

KINDS = ("methods", "encoders", "targets", "devices", "datasets", "recipes")
SCHEMAS = ("recipe", "ledger", "artifact", "bench-result")


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List what there is: methods, encoders, targets, devices, datasets, recipes.

    Examples:
    edgessl list

    edgessl list methods --json
    """
    if kind is not None and kind not in KINDS:
        raise UsageProblem(f"nothing to list as '{kind}'", hint=nearest(kind, KINDS))
    found = {name: _entries(name) for name in ((kind,) if kind else KINDS)}
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
        return
    for name, entries in found.items():
        sys.stdout.write(f"{name}\n")
        wide = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            facts = ", ".join(
                f"{k.replace('_', ' ')}: {v}"
                for k, v in entry.items()
                if k not in ("name", "summary", "extra") and v is not False
            )
            sys.stdout.write(f"  {entry['name']:<{wide}}  {entry['summary']}\n")
            if facts and kind:
                sys.stdout.write(f"  {'':<{wide}}  {facts}\n")
        sys.stdout.write("\n")


def _entries(kind: str) -> list[dict[str, Any]]:
    if kind == "recipes":
        from edgessl.core.shipped import shipped_recipes

        return [{"name": n, "summary": s} for n, s in shipped_recipes().items()]
    table = _table(kind)
    return [
        {"name": name, "summary": e.summary, "extra": e.extra, **e.facts}
        for name, e in table.entries.items()
    ]


def _table(kind: str) -> Table:
    if kind == "methods":
        from edgessl.methods import METHODS

        return METHODS
    if kind == "encoders":
        from edgessl.encoders import ENCODERS

        return ENCODERS
    if kind == "targets":
        from edgessl.exporters import EXPORTERS

        return EXPORTERS
    if kind == "devices":
        from edgessl.devices import DEVICES

        return DEVICES
    from edgessl.data import SOURCES

    return SOURCES


@app.command()
def schema(
    name: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(SCHEMAS)}; default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same; schemas are JSON.")] = False,
) -> None:
    """Print the JSON Schema of recipes and result files, for editors and other programs.

    Examples:
    edgessl schema recipe > edgessl.schema.json
    """
    del as_json
    from edgessl.core.artifact import Artifact
    from edgessl.core.ledger import LedgerRow
    from edgessl.core.measurement import BenchResult
    from edgessl.core.recipe import Recipe

    models = dict(zip(SCHEMAS, (Recipe, LedgerRow, Artifact, BenchResult), strict=True))
    if name is not None and name not in models:
        raise UsageProblem(f"no schema called '{name}'", hint=nearest(name, SCHEMAS))
    made = {
        key: _document_schema(key, model.model_json_schema(by_alias=True))
        for key, model in models.items()
        if name in (None, key)
    }
    sys.stdout.write(json.dumps(made[name] if name else made, indent=1) + "\n")


def _document_schema(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    if kind != "ledger":
        return head | body
    definitions = body.pop("$defs", {})
    return head | {
        "title": "Ledger",
        "type": "object",
        "required": ["schema", "kind", "rows"],
        "properties": {
            "schema": {"const": 1},
            "kind": {"const": "ledger"},
            "edgessl": {"type": "string"},
            "rows": {"type": "array", "items": body},
        },
        "$defs": definitions,
    }

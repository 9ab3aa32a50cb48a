"""The commands that only tell: ``list`` and ``schema``."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli import options as o
from edgessl.cli.app import LOOK, app
from edgessl.cli.output import write_document
from edgessl.core.errors import UsageProblem, nearest
from edgessl.core.files import SCHEMA
from edgessl.core.registry import require_training
from edgessl.core.schema_words import ABSENT, keys, shown

if TYPE_CHECKING:
    from edgessl.core.registry import Table

KINDS = ("methods", "encoders", "targets", "devices", "datasets", "recipes")
SCHEMAS = (
    "recipe", "ledger", "artifact", "bench-result", "run", "splits", "data-findings", "image-cache",
    "equivalence", "parity", "gate", "quantization-search", "sensitivity", "layers",
    "preprocessing-costs", "judged", "board-parity", "layer-profile", "bench-grid",
    "board-runtime", "stage", "training-state",
)  # fmt: skip
# facts whose names say too little to people
TITLES = {
    "features_1x": "features at 1x", "macs_1x_224_m": "million MACs at 1x and 224 px",
    "imagenet_weights": "ImageNet weights", "none": "float32",
}  # fmt: skip
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@app.command("list", rich_help_panel=LOOK)
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(KINDS)}; default all.",
            autocompletion=lambda incomplete: [k for k in KINDS if k.startswith(incomplete)],
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of them; a method shows its options too.")
    ] = None,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """List what there is: methods, encoders, targets, devices, datasets, recipes.

    Examples:
    edgessl list

    edgessl list methods --json

    edgessl list methods moco-v2    (what pretrain.options may hold)

    edgessl list encoders timm:resnet10t    (whether it can be slimmed)
    """
    if kind is not None and kind not in KINDS:
        raise UsageProblem(f"nothing to list as '{kind}'", hint=nearest(kind, KINDS))
    found = {each: _entries(each) for each in ((kind,) if kind else KINDS)}
    if kind is not None and name is not None:
        found[kind] = [_one(kind, name, found[kind])]
        if kind == "methods":
            found[kind][0]["options"] = _table(kind).load(name).Options.model_json_schema()
    if as_json:
        write_document(found)
        return
    for title, entries in found.items():
        sys.stdout.write(f"{title}\n")
        wide = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            facts = ", ".join(
                f"{TITLES.get(k, k.replace('_', ' '))}: {'yes' if v is True else v}"
                for k, v in entry.items()
                if k not in ("name", "summary", "extra", "options")
                and v is not False
                and not k.endswith("_units")  # the cost says them in words
            )
            sys.stdout.write(f"  {entry['name']:<{wide}}  {entry['summary']}\n")
            if facts and (kind or verbose):
                sys.stdout.write(f"  {'':<{wide}}  {facts}\n")
            if "options" in entry:
                _write_options(entry["options"])
        sys.stdout.write("\n")


def _one(kind: str, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of a name; one of a family is asked for its facts."""
    known = {entry["name"]: entry for entry in entries}
    if name in known:
        return known[name]
    if kind == "encoders" and name in _table(kind):
        require_training("list")
        from edgessl.stages.encoder_facts import encoder_facts

        entry = _table(kind)[name]
        head = {"name": name, "summary": "as its package builds it", "extra": entry.extra}
        return {**head, **entry.facts, **encoder_facts(name)}
    raise UsageProblem(f"no '{name}' among the {kind}", hint=nearest(name, known))


def _write_options(schema: dict[str, Any]) -> None:
    """Write what may be set for a method: key and default, meaning, allowed values."""
    sys.stdout.write("\noptions, for example --set pretrain.options.KEY=VALUE\n")
    for key, kind, meaning, default in keys(schema, schema.get("$defs", {})):
        told = "" if default is ABSENT else f": {shown(default)}"
        sys.stdout.write(f"  {key}{told}\n")
        text = f"{meaning} ({kind.replace('`', '')})" if meaning else kind.replace("`", "")
        for line in textwrap.wrap(text, 92):
            sys.stdout.write(f"      {line}\n")


def _entries(kind: str) -> list[dict[str, Any]]:
    if kind == "recipes":
        from edgessl.core.shipped import shipped_recipes

        return [{"name": n, "summary": s} for n, s in shipped_recipes().items()]
    table = _table(kind)
    return [
        {"name": name, "summary": e.summary, "extra": e.extra, **e.facts}
        for name, e in table.listed().items()
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


@app.command(rich_help_panel=LOOK)
def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            help=f"One of {', '.join(SCHEMAS)}; default all.",
            autocompletion=lambda incomplete: [s for s in SCHEMAS if s.startswith(incomplete)],
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same; schemas are JSON.")] = False,
    verbose: o.Verbose = False,
) -> None:
    """Print the JSON Schema of recipes and of every JSON file that is written.

    Examples:
    edgessl schema recipe > edgessl.schema.json

    edgessl schema artifact    (encoder.json, model.json, artifact.json)
    """
    del as_json, verbose  # they mean the same on every command
    if name is not None and name not in SCHEMAS:
        raise UsageProblem(f"no schema called '{name}'", hint=nearest(name, SCHEMAS))
    made = {key: _schema(key) for key in ((name,) if name else SCHEMAS)}
    write_document(made[name] if name else made, indent=1)


def _schema(name: str) -> dict[str, Any]:
    from edgessl.core.artifact import DOCUMENTS, Artifact
    from edgessl.core.ledger import LedgerRow
    from edgessl.core.measurement import BenchResult
    from edgessl.core.recipe import Recipe
    from edgessl.core.schemas import SCHEMAS as WRITTEN_OUT
    from edgessl.core.schemas_bench import ENERGY

    if name == "recipe":  # YAML that people write: no head
        return {"$schema": DIALECT} | Recipe.model_json_schema(by_alias=True)
    if name == "ledger":
        row = LedgerRow.model_json_schema(by_alias=True)
        definitions = row.pop("$defs", {})
        body = {
            "title": "Ledger",
            "description": "ledger.json: every figure of a run",
            "type": "object",
            "properties": {"rows": {"type": "array", "items": row}},
            "required": ["rows"],
        } | ({"$defs": definitions} if definitions else {})
        return _document(["ledger"], body)
    if name == "artifact":
        body = Artifact.model_json_schema(by_alias=True)
        where = ", ".join(f"{file} (kind {kind})" for kind, file in DOCUMENTS.items())
        about = {"description": f"{where}: sealed files, what to feed them, their parents"}
        return _document(list(DOCUMENTS), body | about)
    if name == "bench-result":
        body = BenchResult.model_json_schema(by_alias=True)
        body["properties"]["energy"] = {"anyOf": [ENERGY, {"type": "null"}], "default": None}
        return _document([name], body | {"description": "result.json: a bench on a device"})
    return _document([name], WRITTEN_OUT[name])


def _document(kinds: list[str], body: dict[str, Any]) -> dict[str, Any]:
    """Put what every written document begins with in front of a schema."""
    head = {
        "schema": {"const": SCHEMA},
        "kind": {"const": kinds[0]} if len(kinds) == 1 else {"enum": kinds},
        "edgessl": {"type": "string", "description": "version that wrote it"},
    }
    return {
        "$schema": DIALECT,
        **body,
        "properties": head | body["properties"],
        "required": [*head, *body.get("required", [])],
    }

"""The reference pages, made from the code: recipe, commands, parts, exit codes, documents.

``conf.py`` puts the text of :data:`PAGES` where a page says ``<!-- generated: NAME -->``; nothing
is written into the source tree. Every function returns Markdown (MyST).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from words import definition, table

from edgessl.core.schema_words import ABSENT, keys, shown

# options that mean the same wherever they stand; told once, named in every command
EVERYWHERE = ("--set", "--out", "--resume", "--seed", "--json", "--quiet", "--verbose", "--help")
TITLES = {
    "features_1x": "features at 1x",
    "macs_1x_224_m": "million MACs at 1x, 224 px",
    "cost": "cost of a step",
    "none": "float32",
    "pixels": "side, px",
    "download": "can be fetched",
}
HIDDEN_FACTS = (
    "host_units", "slim_units", "dense_units", "teacher_units", "local_units", "format", "status",
)  # fmt: skip


# ------------------------------------------------------------------------------------ recipe


def recipe() -> str:
    """Return every section and key of a recipe, and the options of every method."""
    from edgessl.core.recipe import Recipe

    schema = Recipe.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    top = {name: entry for name, entry in schema["properties"].items() if "$ref" not in entry}
    made = ["## Top level\n\n", settings({"properties": top}, definitions)]
    for name, entry in schema["properties"].items():
        if name not in top:
            section = definitions[entry["$ref"].rpartition("/")[2]]
            made.append(f"## `{name}`\n\n{section.get('description', '')}\n\n")
            made.append(settings(section, definitions, f"{name}."))
            if name == "pretrain":
                made.append(method_options())
    return "".join(made)


def settings(schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str = "") -> str:
    """Return the keys of one model with kind, default and meaning."""
    made = []
    for key, kind, meaning, default in keys(schema, definitions, prefix):
        told = f"*{kind}*" + ("" if default is ABSENT else f"; default `{shown(default)}`")
        made.append(definition(f"`{key}`", meaning, told))
    return "".join(made)


def method_options() -> str:
    """Return the options of every method: what stands under ``pretrain.options``."""
    from edgessl.methods import METHODS

    made = []
    for name in METHODS:
        schema = METHODS.load(name).Options.model_json_schema()
        made.append(f"### `pretrain.options` of `{name}`\n\n")
        made.append(settings(schema, schema.get("$defs", {})))
    return "".join(made)


TEACHERS = {
    "none": "none", "optional": "may have one, for a warm start", "frozen": "needs a trained one",
    "online": "needs one, which is trained along",
}  # fmt: skip


def method(name: str) -> str:
    """Return what the table and the code say of one method: summary, cost, status, options."""
    from edgessl.methods import METHODS

    entry = METHODS[name]
    facts = {
        "In short": entry.summary,
        "Cost of a step": entry.facts["cost"],
        "Teacher": TEACHERS[METHODS.load(name).teacher_kind],
        "Source": entry.facts["source"],
        "Status": entry.facts["status"],
    }
    schema = METHODS.load(name).Options.model_json_schema()
    options = settings(schema, schema.get("$defs", {}), "pretrain.options.")
    return table(["", ""], [[key, said] for key, said in facts.items()]) + options


def views() -> str:
    """Return what every preset of random views does."""
    from edgessl.data.view_specs import PRESETS, ViewSpec

    names = [field.name for field in fields(ViewSpec) if field.name != "size"]
    head = ["", *(f"`{name}`, view {i}" for name, specs in PRESETS.items()
                  for i in range(1, len(specs) + 1))]  # fmt: skip
    rows = []
    for name in names:
        values = [getattr(spec, name) for specs in PRESETS.values() for spec in specs]
        rows.append([name.replace("_", " "), *map(_short, values)])
    return table(head, rows)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{v:.3g}" for v in value)
    return "–" if value == 0 else f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------------------- commands


def app() -> Any:
    """Return the command group with every command that the package has."""
    import typer

    import edgessl.cli

    for module in pkgutil.iter_modules(edgessl.cli.__path__):
        if module.name != "main":
            importlib.import_module(f"edgessl.cli.{module.name}")
    return typer.main.get_command(importlib.import_module("edgessl.cli.app").app)


def walk(group: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every command with its context, in the order of ``--help``; groups are opened."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        inside = command.context_class(command, info_name=name, parent=context)
        if hasattr(command, "list_commands"):
            yield from walk(command, inside)
        else:
            yield command, inside


def commands() -> str:
    """Return every command with its arguments and options."""
    group = app()
    context = group.context_class(group, info_name="edgessl")
    found = list(walk(group, context))
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    for command, inside in found:
        for option in command.get_params(inside):
            if option.opts[0] in EVERYWHERE:
                texts[option.opts[0]][_option(option, inside)] += 1
    shared = {name: texts[name].most_common(1)[0][0] for name in EVERYWHERE if texts[name]}
    made = ["## Options that mean the same everywhere\n\n", *shared.values()]
    made += [_command(command, inside, shared) for command, inside in found]
    return "".join(made)


def _command(command: Any, context: Any, shared: Mapping[str, str]) -> str:
    about, _, examples = (command.help or "").partition("Examples:")
    found = command.get_params(context)
    arguments = [_metavar(p, context) for p in found if p.param_type_name == "argument"]
    usage = " ".join([context.command_path, "[OPTIONS]", *arguments])
    made = [f"## `{context.command_path}`\n\n{about.strip()}\n\n```text\n{usage}\n```\n\n"]
    also = []
    for option in found:
        text = _option(option, context)
        if shared.get(option.opts[0]) == text:
            also.append(f"`{option.opts[0]}`")
        elif not getattr(option, "hidden", False):
            made.append(text)
    if also:
        made.append(f"Also: {', '.join(also)}.\n\n")
    lines = [f"$ {line.strip()}\n" for line in examples.splitlines() if line.strip()]
    if lines:
        made.append(f"```console\n{''.join(lines)}```\n\n")
    return "".join(made)


def _option(option: Any, context: Any) -> str:
    if option.param_type_name == "argument":
        return definition(f"`{_metavar(option, context)}`", option.help or "")
    shown, text = option.get_help_record(context) or ("", "")
    return definition(f"`{' '.join(shown.split())}`", " ".join(text.split()) or option.help or "–")


def _metavar(argument: Any, context: Any) -> str:
    return argument.metavar or (argument.get_usage_pieces(context) or [argument.name])[0]


# ------------------------------------------------------------------------------------- parts


def tables() -> dict[str, Any]:
    """Return the tables of named parts by the word of ``edgessl list``."""
    from edgessl.data import SOURCES
    from edgessl.devices import DEVICES
    from edgessl.encoders import ENCODERS
    from edgessl.exporters import EXPORTERS
    from edgessl.methods import METHODS

    return {
        "methods": METHODS, "encoders": ENCODERS, "targets": EXPORTERS, "devices": DEVICES,
        "datasets": SOURCES,
    }  # fmt: skip


def parts(kind: str) -> str:
    """Return the table of one kind of parts, a column per fact; what all share stands below."""
    entries = tables()[kind].listed()
    facts = dict.fromkeys(fact for e in entries.values() for fact in e.facts)
    columns = {
        TITLES.get(fact, fact.replace("_", " ")): [
            _fact(e.facts.get(fact)) for e in entries.values()
        ]
        for fact in facts
        if fact not in HIDDEN_FACTS
    }
    needs = [f"`edgessl[{e.extra}]`" if e.extra else "–" for e in entries.values()]
    columns["needs"] = needs
    same = {t: v[0] for t, v in columns.items() if len(v) > 1 and len(set(v)) == 1}
    columns = {title: values for title, values in columns.items() if title not in same}
    rows = [
        [f"`{name}`", entry.summary, *(values[i] for values in columns.values())]
        for i, (name, entry) in enumerate(entries.items())
    ]
    shared = ", ".join(f"{title}: {value}" for title, value in same.items() if value != "–")
    about = f"All of them: {shared}.\n\n" if shared else ""
    return table(["name", "what it is", *columns], rows) + about


def _fact(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


def recipes() -> str:
    """Return the shipped recipes."""
    from edgessl.core.shipped import shipped_recipes

    return table(["name", "what it does"], [[f"`{n}`", s] for n, s in shipped_recipes().items()])


# ------------------------------------------------------------------------- contract of files


def exit_codes() -> str:
    """Return the exit codes with the errors that lead to them."""
    from edgessl.core import errors

    found = [
        error for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.EdgeSSLError)
    ]  # fmt: skip
    rows: list[list[object]] = [[0, "", "Done."]]
    for error in sorted(found, key=lambda e: e.exit_code):
        about = (error.__doc__ or "").strip().splitlines()[0]
        rows.append([error.exit_code, f"`{error.__name__}`", about])
    return table(["code", "type in `--json`", "what it means"], rows)


def documents() -> str:
    """Return every JSON document that is written, key by key."""
    from edgessl.cli.info import SCHEMAS, _schema

    made = []
    for name in SCHEMAS:
        if name == "recipe":
            continue
        schema = _schema(name)
        made.append(f"### `{name}`\n\n{schema.get('description', '')}\n\n")
        body = {
            k: e for k, e in schema["properties"].items() if k not in ("schema", "kind", "edgessl")
        }
        definitions = schema.get("$defs", {})
        schema = schema | {"properties": body}
        if name == "ledger":
            made.append("Each of the `rows`:\n\n")
            schema = body["rows"]["items"]
        rows = [
            [
                f"`{key}`",
                kind
                + ("" if key.split(".")[0] in schema.get("required", ()) else "; may be absent"),
                about,
            ]
            for key, kind, about, _ in keys(schema, definitions)
        ]
        said = any(about for _, _, about in rows)
        head = ["key", "value", "meaning"] if said else ["key", "value"]
        made.append(table(head, [row[: len(head)] for row in rows]))
    return "".join(made)


PAGES: dict[str, Callable[[], str]] = {
    "recipe": recipe,
    "views": views,
    "commands": commands,
    "methods": lambda: parts("methods"),
    "encoders": lambda: parts("encoders"),
    "targets": lambda: parts("targets"),
    "devices": lambda: parts("devices"),
    "datasets": lambda: parts("datasets"),
    "recipes": recipes,
    "exit codes": exit_codes,
    "documents": documents,
}


def generated(name: str) -> str:
    """Return the text of a page's part: a key of :data:`PAGES`, or ``method`` and its name."""
    kind, _, which = name.partition(" ")
    return method(which) if kind == "method" and which else PAGES[name]()

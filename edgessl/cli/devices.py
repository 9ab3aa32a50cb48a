"""The commands about boards: devices add, list, remove, check, setup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli import completion, show
from edgessl.cli import options as o
from edgessl.cli.app import LOOK, app, tell

devices = typer.Typer(
    no_args_is_help=True, help="Boards of your own: add, look at, bring runtimes to."
)
app.add_typer(devices, name="devices", rich_help_panel=LOOK)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Of an added board, or a kind.", autocompletion=completion.boards
    ),
]


@devices.command()
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Small letters, digits, '.', '_' and '-'.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind", help="See: edgessl list devices.", autocompletion=completion.devices
        ),
    ],
    address: Annotated[
        str,
        typer.Option(
            "--address", metavar="ADDR", help="ssh://user@board, an alias, or adb[:serial]."
        ),
    ] = "",
    python: Annotated[
        str, typer.Option("--python", metavar="PATH", help="Interpreter there; default python3.")
    ] = "",
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Write it down without reaching it.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Give a board a name: reach it, say what it is, write it down.

    A board that does not answer is not written (exit code 4).

    Examples:
    edgessl devices add kitchen --kind rpi --address ssh://pi@raspberrypi.local

    edgessl devices add orin --kind jetson --address nvidia@192.168.1.20

    edgessl devices add phone --kind android --address adb
    """
    from edgessl import api_devices
    from edgessl.devices import DEVICES

    o.known(DEVICES, kind)
    finding = api_devices.devices_add(
        name, kind=kind, address=address, python=python, check=not no_check,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    seen = finding.result["is"]
    text = f"{name}: {seen or 'not reached'}\nwritten: {finding.result['file']}\n"
    tell(finding, "" if as_json else text, as_json, quiet)


@devices.command("list")
def list_(as_json: o.Json = False, quiet: o.Quiet = False, verbose: o.Verbose = False) -> None:
    """List the boards that were added; nothing is reached.

    Examples:
    edgessl devices list

    edgessl devices list --json
    """
    from edgessl import api_devices

    finding = api_devices.devices_list()
    rows = [
        (b["name"], b["kind"], show.name(b["address"]) or "this machine",
         show.name(b["python"]) or "-")
        for b in finding.result["boards"]
    ]  # fmt: skip
    text = show.table(("board", "kind", "address", "Python"), rows) if rows else "no boards added\n"
    if verbose:
        text += f"kept in {finding.result['file']}\n"
    tell(finding, "" if as_json else text, as_json, quiet)


@devices.command()
def remove(
    name: Name, as_json: o.Json = False, quiet: o.Quiet = False, verbose: o.Verbose = False
) -> None:
    """Forget a board; what was brought to it stays there (see: devices setup --remove).

    Examples:
    edgessl devices remove kitchen
    """
    from edgessl import api_devices

    del verbose
    finding = api_devices.devices_remove(name)
    tell(finding, f"{name} is forgotten\n", as_json, quiet)


@devices.command()
def check(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Board or kind; default: the only one, else this machine.",
            autocompletion=completion.boards,
        ),
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Say what a board is, what runs there, and what is missing, each with the line that mends it.

    Examples:
    edgessl devices check kitchen

    edgessl devices check local
    """  # fmt: skip
    from edgessl import api_devices

    finding = api_devices.devices_check(name, reporter=o.reporter(quiet, verbose, as_json))
    tell(finding, "" if as_json else board_text(finding.result), as_json, quiet)


@devices.command()
def setup(
    name: Name,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", help="onnxruntime, litert (the default) or openvino; repeatable."
        ),
    ] = None,
    wheel: Annotated[
        list[Path] | None,
        typer.Option(
            "--wheel", metavar="FILE", help="A wheel of your own, taken first; repeatable."
        ),
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Look for newer wheels of what is there.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take away instead: those named, else all.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Bring runtimes to a board, into a private folder: no root, pip or network there.

    Wheels that fit its Python and C library are fetched here, by pip, and pushed. For the kind
    'browser' the packages of the page are fetched.

    Examples:
    edgessl devices setup kitchen

    edgessl devices setup kitchen --runtime openvino

    edgessl devices setup orin --wheel onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl

    edgessl devices setup browser
    """
    from edgessl import api_devices

    finding = api_devices.devices_setup(
        name, runtimes=runtime or (), wheels=wheel or (), upgrade=upgrade, remove=remove,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    tell(finding, "" if as_json else setup_text(finding.result), as_json, quiet)


def board_text(result: Mapping[str, Any]) -> str:
    """Return one screen about a board."""
    named = result["name"] or result["kind"]
    head = f"{named}: {result['kind']}, {show.name(result['address'] or 'this machine')}"
    if "facts" not in result:  # a browser: what this machine can serve to it
        return f"{head}\n{_runtimes(result['runtimes'])}kept in {result['folder']}\n"
    facts = result["facts"]
    lines = [f"{head} ({result['id']})"]
    if result["mismatch"]:
        lines.append(f"NOT OF THIS KIND: {result['mismatch']}")
    if facts.get("emulated"):
        lines.append(f"EMULATED by {facts.get('emulator')}: its figures say nothing about a board")
    memory = facts.get("memory_mb") or {}
    rows = (
        ("board", facts.get("board") or facts.get("product")),
        ("processor", f"{facts.get('cpu')}, {facts.get('cores')} cores{_clocks(facts)}"),
        ("system", f"{facts.get('os')}, Linux {facts.get('kernel')}, {facts.get('machine')}"),
        ("Python", f"{facts.get('python')}, {facts.get('libc') or 'unknown C library'}"),
        ("memory", f"{_amount(memory.get('MemAvailable'))} free of "
                   f"{_amount(memory.get('MemTotal'))}"),
        ("disk", f"{_amount(facts.get('disk_free_mb'))} free"),
        ("temperature", ", ".join(f"{k} {v} C" for k, v in (facts.get("temp_c") or {}).items())),
        ("release", facts.get("l4t")),
    )  # fmt: skip
    lines += [f"{title:<12} {text}" for title, text in rows if text]
    text = "\n".join(lines) + "\n\n" + _runtimes(result["runtimes"])
    for form, runs in result["formats"].items():
        text += f"{form} files: {', '.join(runs) or 'nothing there runs them'}\n"
    if result["not_observable"]:
        text += f"not observable there: {', '.join(result['not_observable'])}\n"
    return text


def setup_text(result: Mapping[str, Any]) -> str:
    """Return what was brought to a board, or taken away."""
    if "folder" in result:
        return f"{_runtimes(result['runtimes'])}kept in {result['folder']}\n"
    lines = []
    for row in result["runtimes"]:
        if "packages" in row:
            told = ", ".join(f"{k} {v}" for k, v in row["packages"].items())
            done = f"{row['state']}, runs: {told}; {show.size(row['bytes'])} in {row['folder']}"
        elif "problem" in row:
            done = f"{row['problem']}\n  {row['next']}"
        else:
            done = row["state"]
        lines.append(f"{row['runtime']}: {done}\n")
    if not lines:
        there = ", ".join(result.get("on_the_system", ())) or "nothing"
        lines.append(f"nothing to do; installed there: {there}\n")
    return "".join(lines)


def _runtimes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what is there as a table, and the line that mends each that is not."""
    cells, missing = [], []
    for row in rows:
        private = " (private)" if row.get("where") == "private" else ""
        if row["runs"]:
            told = ", ".join(row.get("providers") or ("runs",))
            cells.append((row["runtime"], f"{row['version']}{private}", told))
        else:
            missing.append(f"{row['runtime']} {row.get('problem') or 'is not there'}")
            missing += [f"  {row['fix']}"] if row["fix"] else []
    lines = "".join(f"{line}\n" for line in missing)
    return (show.table(("runtime", "version", ""), cells) if cells else "") + lines + "\n"


def _clocks(facts: Mapping[str, Any]) -> str:
    found = [
        f"{p.get('min_mhz')} to {p.get('max_mhz')} MHz, governor {p.get('governor')}"
        for p in (facts.get("policies") or {}).values()
    ]
    return f"; {'; '.join(dict.fromkeys(found))}" if found else ""


def _amount(megabytes: object) -> str:
    if not isinstance(megabytes, int | float):
        return "?"
    return f"{megabytes / 1024:.1f} GiB"

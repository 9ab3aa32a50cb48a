"""Options that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgessl.core.console import Reporter
    from edgessl.core.registry import Table

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<name>.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run; finished parts are kept.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print details.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all randomness.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe value: pretrain.epochs=5."),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="SRC", help="Labelled images: folder, IDX file or dataset."),
]
Test = Annotated[
    str | None,
    typer.Option("--test", metavar="SRC", help="Test images; default: a split of the labels."),
]
Imgsz = Annotated[int | None, typer.Option("--imgsz", help="Input side in pixels.")]
EncoderName = Annotated[str | None, typer.Option("--encoder", help="See: edgessl list encoders.")]
Width = Annotated[
    str | None, typer.Option("--width", help="Host and slim width, 1.5x-1x, or one width, 1x.")
]
PerClass = Annotated[
    int | None, typer.Option("--labels-per-class", min=1, help="Labels per class; default all.")
]
Draws = Annotated[
    int | None, typer.Option("--draws", min=1, help="Independent draws of the labels.")
]


def settings(pairs: list[str] | None, values: dict[str, Any]) -> dict[str, Any]:
    """Return dotted recipe values: those that were given, then ``--set`` on top."""
    from edgessl.core.recipe import parse_setting

    given = {key: value for key, value in values.items() if value is not None}
    return given | dict(parse_setting(pair) for pair in pairs or [])


def reporter(quiet: bool, verbose: bool, as_json: bool) -> Reporter:
    """Return what speaks to the user on stderr."""
    from edgessl.core.console import Reporter

    return Reporter(quiet=quiet or as_json, verbose=verbose)


def known(table: Table, name: str | None) -> str | None:
    """Refuse a name on the command line that the table lacks (exit code 2)."""
    if name is not None:
        table[name]
    return name

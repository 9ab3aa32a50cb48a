"""Options that mean the same in every command."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli import completion
from edgessl.core.errors import UsageProblem, nearest

if TYPE_CHECKING:
    from edgessl.core.console import Reporter
    from edgessl.core.registry import Table

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<name>.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue an interrupted run; finished parts are kept.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Measure a few steps and print hours, memory and disk; write nothing."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print details.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of all randomness.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a recipe value: pretrain.epochs=5."),
]
Unlabeled = Annotated[
    str | None,
    typer.Option("--unlabeled", metavar="SRC", help="Images: folder, list, IDX file or dataset."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SRC",
        help="Labelled images: folder of class folders, list (.csv, .txt), IDX, cache, dataset.",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="HOW",
        help="Keep images together when split: folder, column:NAME or regex:PATTERN.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="imagenet|FILE",
        help="Start from torchvision's ImageNet weights (fetched once), or a local file.",
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", metavar="SRC", help="Test images; default: a split of the labels."),
]
Imgsz = Annotated[
    int | None, typer.Option("--imgsz", min=8, max=1024, help="Input side in pixels.")
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="See: edgessl list encoders.", autocompletion=completion.encoders
    ),
]
Method = Annotated[
    str | None,
    typer.Option("--method", help="See: edgessl list methods.", autocompletion=completion.methods),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="See: edgessl list devices.", autocompletion=completion.devices),
]
Width = Annotated[
    str | None, typer.Option("--width", help="Host and slim width, 1.5x-1x, or one width, 1x.")
]
PerClass = Annotated[
    str | None,
    typer.Option("--labels-per-class", metavar="N|all", help="Labels per class; default 10."),
]
Draws = Annotated[
    int | None, typer.Option("--draws", min=1, help="Independent draws of the labels.")
]

PROTOCOLS = ("knn", "linear")
# An explicit null of the recipe; None means that an option was not given.
NULL = object()


def settings(pairs: list[str] | None, values: dict[str, Any]) -> dict[str, Any]:
    """Return dotted recipe values: those that were given, then ``--set`` on top.

    Args:
        pairs: What ``--set`` got.
        values: By dotted key; None where the option was not given, :data:`NULL` for null.
    """
    from edgessl.core.recipe_text import parse_setting

    given = {
        key: None if value is NULL else value for key, value in values.items() if value is not None
    }
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


def one_of(option: str, name: str | None, names: Iterable[str]) -> str | None:
    """Refuse a value that is not one of ``names`` (exit code 2)."""
    if name is not None and name not in (known := tuple(names)):
        raise UsageProblem(f"unknown value '{name}' for {option}", hint=nearest(name, known))
    return name


def known_width(text: str | None) -> str | None:
    """Refuse what is not a width, or a host with a wider slim net (exit code 2)."""
    from edgessl.core.widths import parse_width

    if text is not None:
        try:
            parse_width(text)
        except ValueError as error:
            raise UsageProblem(
                f"--width: {error}", hint="one width: --width 1x; host and slim: --width 1.5x-1x"
            ) from None
    return text


def per_class(text: str | None) -> Any:
    """Return the number of labels per class, :data:`NULL` for all, None if not given."""
    if text is None or text == "all":
        return NULL if text else None
    if not text.isdecimal() or int(text) < 1:
        raise UsageProblem(
            f"--labels-per-class {text!r} is neither a number from 1 nor 'all'",
            hint="for example --labels-per-class 10",
        )
    return int(text)

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
        help="Start from ImageNet weights of torchvision or timm (fetched once), or a local file.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="WHAT",
        help="For methods with one: a run folder, ARCH=FILE, ARCH=imagenet, or ARCH[@WIDTH].",
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


def known_device(name: str | None) -> str | None:
    """Refuse what is neither a kind of board nor the name of an added one (exit code 2)."""
    if name is not None:
        from edgessl.devices import DEVICES
        from edgessl.devices.boards import added_boards

        if name not in (known := [*DEVICES, *added_boards()]):
            hint = f"{nearest(name, known)}; see: edgessl list devices, edgessl devices list"
            raise UsageProblem(f"unknown device '{name}'", hint=hint)
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


def widths(text: str) -> list[float]:
    """Return single widths given by commas, for example ``0.5x,1x`` (exit code 2)."""
    from edgessl.core.widths import parse_width

    found: list[float] = []
    for part in text.split(","):
        try:
            parsed = parse_width(part.strip())
        except ValueError as error:
            raise UsageProblem(f"--width: {error}", hint="for example --width 0.5x,1x") from None
        if "-" in part:
            raise UsageProblem(
                f"--width: '{part}' is a host with slim nets; untrained nets have one width each",
                hint="for example --width 0.5x,1x",
            )
        found.append(parsed[0])
    return found


def sides(text: str) -> list[int]:
    """Return image sides in pixels given by commas, 8 to 1024 (exit code 2)."""
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 8 <= int(part) <= 1024:
            raise UsageProblem(
                f"--imgsz: '{part}' is not a side in pixels from 8 to 1024",
                hint="for example --imgsz 128,224",
            )
        found.append(int(part))
    return found


def cores(text: str | None) -> list[int] | None:
    """Return core numbers given as ``0,1`` or ``4-7`` (exit code 2)."""
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 1024):
            raise UsageProblem(f"--cores: '{part}' is no core and no range", hint="--cores 4-7")
        found += range(int(first), int(last) + 1)
    return sorted(set(found))


def only_with(needed: str, given: dict[str, Any]) -> None:
    """Refuse options that mean nothing without another one (exit code 2)."""
    for option, value in given.items():
        if value is not None:
            raise UsageProblem(
                f"{option} goes with {needed}, which was not given",
                hint=f"exported files have their own; for untrained nets name {needed}",
            )

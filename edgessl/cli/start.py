"""``edgessl init``: asks about the user's images and writes a recipe for them."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli import options as o
from edgessl.cli.app import START, app, tell
from edgessl.cli.show import write
from edgessl.core.errors import EdgeSSLError, UsageProblem

if TYPE_CHECKING:
    from edgessl.stages.survey import Survey


@app.command(rich_help_panel=START)
def init(
    unlabeled: o.Unlabeled = None,
    labels: o.Labels = None,
    test: o.Test = None,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    imgsz: o.Imgsz = None,
    device: o.Device = None,
    mirror: Annotated[
        bool | None,
        typer.Option("--mirror/--no-mirror", help="Does a mirrored image keep its class?"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe.")] = Path("edgessl.yaml"),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; replace the file if it is there.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Look at your images and write a commented recipe for them.

    Asks for what is not given, where there is somebody to ask.

    Examples:
    edgessl init

    edgessl init --unlabeled photos --labels labelled --yes
    """
    from edgessl import api_light
    from edgessl.encoders import ENCODERS

    del verbose
    values: dict[str, Any] = {
        "unlabeled": unlabeled, "labels": labels, "test": test,
        "encoder": o.known(ENCODERS, encoder), "width": o.known_width(width), "imgsz": imgsz,
        "device": o.known_device(device), "mirror": mirror,
    }  # fmt: skip
    if not (yes or as_json) and sys.stdin.isatty():
        values, yes = _asked(values, out)
    finding = api_light.init(**values, out=out, overwrite=yes)
    lines = [f"warning: {text}" for text in finding.result["warnings"]] + [f"written: {out}"]
    tell(finding, "\n".join(lines) + "\n", as_json, quiet)


def _asked(values: dict[str, Any], out: Path) -> tuple[dict[str, Any], bool]:
    """Ask for what was not given; every answer is checked on the spot.

    Returns:
        The values, and whether a file that is there may be replaced.
    """
    from edgessl.encoders import ENCODERS
    from edgessl.stages import choices
    from edgessl.stages.choices import Asked, Seen
    from edgessl.stages.init import check_target

    check_target(out, overwrite=True)
    replace = out.exists()
    if replace and not typer.confirm(f"{out} already exists. Replace it?", err=True):
        raise UsageProblem(f"{out} was kept", hint="choose another file with --out")
    found: dict[str, Survey | None] = {}
    questions = {
        "unlabeled": "Folder of images without labels (Enter: none)",
        "labels": "Folder of labelled images, one sub-folder per class (Enter: none)",
        "test": "Folder of labelled test images (Enter: a part of the labelled ones)",
    }
    for role, question in questions.items():
        if role == "test" and found["labels"] is None:
            continue
        found[role] = _source(question, values[role], labelled=role != "unlabeled")
        values[role] = found[role].source if found[role] else None  # type: ignore[union-attr]
    if found["unlabeled"] is None and found["labels"] is None:
        raise UsageProblem("no images were named", hint="one of the two folders is needed")
    seen, given = Seen(**found), Asked(values["encoder"], values["width"], values["imgsz"])
    side = choices.image_side(seen, given)
    values["imgsz"] = values["imgsz"] or typer.prompt(
        f"Input side in pixels ({side.why})", default=side.value, err=True,
        value_proc=_checked(_side),
    )  # fmt: skip
    name, width, _ = choices.encoder(values["imgsz"], given)
    values["encoder"] = values["encoder"] or typer.prompt(
        f"Encoder ({name.why})", default=name.value, err=True,
        value_proc=_checked(lambda text: o.known(ENCODERS, text)),
    )  # fmt: skip
    values["width"] = values["width"] or typer.prompt(
        f"Width ({width.why})", default=width.value, err=True, value_proc=_checked(o.known_width)
    )
    if values["mirror"] is None:
        guess = choices.mirrors_well(seen.labels)
        values["mirror"] = typer.confirm("Does a mirrored image keep its class?", guess, err=True)
    values["device"] = values["device"] or typer.prompt(
        "Device to measure on", default="local", err=True,
        value_proc=_checked(o.known_device),
    )  # fmt: skip
    return values, replace


def _source(question: str, given: str | None, *, labelled: bool) -> Survey | None:
    """Return what a source looks like, asking until there is one, or none is wanted."""
    from edgessl.stages.survey import look_at

    def look(text: str) -> Survey | None:
        return look_at(text.strip(), labelled=labelled) if text.strip() else None

    survey = (
        look(given)
        if given is not None
        else typer.prompt(
            question, default="", show_default=False, err=True, value_proc=_checked(look)
        )
    )
    if survey is not None:
        write(f"  {survey.source}: {survey.text()}\n")
    return survey


def _side(text: str) -> int:
    if not text.isdecimal() or not 8 <= int(text) <= 1024:
        raise UsageProblem(f"{text!r} is not a number from 8 to 1024")
    return int(text)


def _checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` so that the prompt tells its errors and asks again."""

    def convert(text: str) -> Any:
        try:
            return read(text if isinstance(text, str) else str(text))
        except EdgeSSLError as error:
            raise typer.BadParameter(f"{error.message} ({error.hint})") from None

    return convert

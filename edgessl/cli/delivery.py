"""The commands extract and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli import options as o
from edgessl.cli.app import CHAIN, Checkpoint, app, finish


@app.command(rich_help_panel=CHAIN)
def extract(
    checkpoint: Checkpoint = None,
    width: Annotated[
        str | None, typer.Option("--width", help="The slim width of the checkpoint.")
    ] = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Extract the slim net as a plain stock net, proven equal to the slim pass.

    Examples:
    edgessl extract last

    edgessl extract runs/quickstart/pretrain --width 1x
    """
    from edgessl import api

    outcome = api.extract(
        checkpoint, width=o.known_width(width), settings=o.settings(set_, {}), out=out,
        resume=resume, reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command(rich_help_panel=CHAIN)
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Run folders, or 'last'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; default in the run folder.")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Write report.html and MODEL_CARD.md from run folders.

    Examples:
    edgessl report

    edgessl report runs/pretrain runs/finetune --out report.html
    """
    from edgessl import api

    del verbose  # the same on every command
    finish(api.report(runs or (), out=out), as_json, quiet)

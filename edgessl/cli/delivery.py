"""The commands extract, bench and report."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli import completion
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
def bench(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARTIFACT]...", help="Export folders, run folders, or 'last'."),
    ] = None,
    device: o.Device = None,
    test: o.Test = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="quick, standard or sustained.", autocompletion=completion.presets
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the runtime.")
    ] = None,
    allow_unstable: Annotated[
        bool, typer.Option("--allow-unstable", help="Exit 0 also when a verdict is not VALID.")
    ] = False,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure exported files on a device: right answers, latency, accuracy, verdict.

    Examples:
    edgessl bench last

    edgessl bench runs/quickstart/export/0.5x-onnx-none --preset standard --threads 2
    """
    from edgessl import api
    from edgessl.devices import DEVICES
    from edgessl.devices.protocol import PRESETS

    o.one_of("--preset", preset, PRESETS)
    values = {
        "bench.device": o.known(DEVICES, device), "bench.preset": preset,
        "bench.threads": threads, "bench.allow_unstable": allow_unstable or None,
        "data.test": test,
    }  # fmt: skip
    outcome = api.bench(
        artifacts or (), settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
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

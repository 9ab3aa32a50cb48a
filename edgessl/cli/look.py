"""The commands that use a model or look around: predict, runs, cost, doctor."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli import completion, show
from edgessl.cli import cost as cost_text
from edgessl.cli import options as o
from edgessl.cli.app import LOOK, USE, app, tell
from edgessl.core.errors import UsageProblem

Target = Annotated[
    str | None,
    typer.Option("--target", help="See: edgessl list targets.", autocompletion=completion.targets),
]


@app.command(rich_help_panel=USE)
def predict(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT", help="Export folder, extracted model, run folder, or 'last'."
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE...", help="Files, folders, lists, or a dataset."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write one line per picture to this file.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to tell per picture.")] = 5,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Ask a model about pictures: the most probable classes, as the exported file answers.

    Pictures that cannot be read are listed and skipped.

    Examples:
    edgessl predict last photo.jpg

    edgessl predict runs/quickstart/export/1x-onnx-none photos --csv answers.csv
    """
    from edgessl import api_light

    if not images:
        raise UsageProblem(
            "no pictures were named",
            hint=f"name files or folders: edgessl predict {artifact} photo.jpg",
        )
    finding = api_light.predict(
        artifact, images, top=top, csv=csv, features=as_json,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    text = "" if as_json else show.predictions(finding.result)
    if csv is not None:
        text += f"written: {csv}\n"
    tell(finding, text, as_json, quiet)


@app.command(rich_help_panel=LOOK)
def runs(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Holds run folders; default runs/.")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """List the runs: what was done, the best figure with its interval, size on disk.

    Examples:
    edgessl runs

    edgessl runs /data/experiments --json
    """
    from edgessl import api_light

    finding = api_light.runs(folder)
    tell(finding, "" if as_json else show.runs(finding.result, verbose), as_json, quiet)


@app.command(rich_help_panel=LOOK)
def cost(
    method: o.Method = None,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the images.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="Images; default: those of the recipe.")
    ] = None,
    imgsz: o.Imgsz = None,
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="Images per step.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="Encoder or folder; default: the recipe's, else resnet50.",
            autocompletion=completion.encoders,
        ),
    ] = None,
    teacher_epochs: Annotated[
        int | None,
        typer.Option("--teacher-epochs", min=1, help="Of its own pretraining, if unknown."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also take a few steps: seconds, hours, memory.")
    ] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's cost table beside what is counted here.")
    ] = False,
    set_: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Count what pretraining will cost, beside every other method; --measure times steps.

    Examples:
    edgessl cost

    edgessl cost --encoder mobilenet_v3_large --imgsz 224 --images 1281167 --epochs 200

    edgessl cost --method barlow --width 1x --measure

    edgessl cost --paper
    """
    from edgessl import api_light
    from edgessl.encoders import ENCODERS
    from edgessl.methods import METHODS

    values = {
        "pretrain.method": o.known(METHODS, method), "encoder.name": o.known(ENCODERS, encoder),
        "encoder.width": o.known_width(width), "pretrain.epochs": epochs, "data.imgsz": imgsz,
        "pretrain.batch": batch,
    }  # fmt: skip
    given = o.settings(set_, values)
    beside = {"--images": images, "--teacher": teacher, "--teacher-epochs": teacher_epochs}
    if paper:
        if given or measure or any(value is not None for value in beside.values()):
            raise UsageProblem(
                "--paper counts the networks of the paper's table, not those of a recipe",
                hint="edgessl cost --paper, without other options",
            )
        finding = api_light.paper_costs()
        tell(finding, "" if as_json else cost_text.paper_text(finding.result), as_json, quiet)
        return
    finding = api_light.cost(
        given, images=images, teacher=teacher, teacher_epochs=teacher_epochs, measure=measure,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    tell(finding, "" if as_json else cost_text.text(finding.result), as_json, quiet)


@app.command(rich_help_panel=LOOK)
def doctor(
    target: Target = None,
    device: o.Device = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Say what works on this machine, and the command that installs what is missing.

    The exit code is 0 when what was asked for works.

    Examples:
    edgessl doctor

    edgessl doctor --target tflite
    """
    from edgessl import api_light

    del verbose
    finding = api_light.doctor(target=target, device=device)
    tell(finding, "" if as_json else show.doctor(finding.result), as_json, quiet)

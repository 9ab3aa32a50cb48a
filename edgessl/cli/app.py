"""The commands that work on images and models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgessl import __version__
from edgessl.cli import options as o

if TYPE_CHECKING:
    from edgessl.api import Outcome

app = typer.Typer(
    name="edgessl",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From unlabeled images to a small model proven on your own device.\n\n"
    "Start with: edgessl run quickstart",
)

Checkpoint = Annotated[
    str | None,
    typer.Argument(metavar="[CKPT]", help="File, stage folder, run folder, or 'last' (default)."),
]


def finish(outcome: Outcome, as_json: bool, quiet: bool) -> None:
    """Print what came out and the next command; raise the worst error of failed branches."""
    if as_json:
        document = {
            "command": outcome.command, "run": str(outcome.run), "result": outcome.result,
            "next": outcome.next,
        }  # fmt: skip
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    elif not quiet:
        sys.stderr.write(f"done: {outcome.run}\nnext: {outcome.next}\n")
    if outcome.errors:
        from edgessl.stages.chain import worst_of

        worst = worst_of(list(outcome.errors))
        if as_json:
            raise typer.Exit(worst.exit_code)
        raise worst


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"edgessl {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: Annotated[
        str | None, typer.Argument(help="File, or name of a shipped recipe; default edgessl.yaml.")
    ] = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    start: Annotated[str | None, typer.Option("--from", help="First stage.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Last stage.")] = None,
    seed: o.Seed = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Run the whole chain of a recipe, from pretraining to the report.

    Stages: pretrain, evaluate, finetune, extract, export, bench, report.

    Every branch that can finish finishes; the exit code is the worst one.

    Examples:
    edgessl run quickstart

    edgessl run my.yaml --set pretrain.epochs=200 --out runs/long

    edgessl run my.yaml --out runs/long --resume
    """
    from edgessl import api

    outcome = api.run(
        recipe, settings=o.settings(set_, {"seed": seed}), out=out, resume=resume, start=start,
        until=until, reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
def pretrain(
    unlabeled: Annotated[
        str | None,
        typer.Option("--unlabeled", metavar="SRC", help="Images: folder, IDX file or dataset."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="See: edgessl list methods.")
    ] = None,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=2)] = None,
    imgsz: o.Imgsz = None,
    labels: o.Labels = None,
    test: o.Test = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    seed: o.Seed = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Pretrain a host network and the slim net inside it on unlabeled images.

    Examples:
    edgessl pretrain

    edgessl pretrain --unlabeled photos --labels labelled --encoder mobilenet_v3_large --imgsz 128
    """
    from edgessl.encoders import ENCODERS
    from edgessl.methods import METHODS
    from edgessl import api

    values = {
        "data.unlabeled": unlabeled, "data.labels": labels, "data.test": test,
        "data.imgsz": imgsz, "pretrain.method": o.known(METHODS, method),
        "encoder.name": o.known(ENCODERS, encoder), "encoder.width": width,
        "pretrain.epochs": epochs, "pretrain.batch": batch, "seed": seed,
    }  # fmt: skip
    outcome = api.pretrain(
        settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
def evaluate(
    checkpoint: Checkpoint = None,
    labels: o.Labels = None,
    test: o.Test = None,
    protocol: Annotated[
        list[str] | None, typer.Option("--protocol", help="knn or linear; may be repeated.")
    ] = None,
    labels_per_class: o.PerClass = None,
    draws: o.Draws = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    seed: o.Seed = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Say what frozen features are worth: kNN and linear probe, beside raw pixels.

    Examples:
    edgessl evaluate last

    edgessl evaluate runs/pretrain --protocol knn --labels labelled
    """
    from edgessl import api

    values = {
        "data.labels": labels, "data.test": test, "evaluate.protocols": protocol,
        "labels.per_class": labels_per_class, "labels.draws": draws, "seed": seed,
    }  # fmt: skip
    outcome = api.evaluate(
        checkpoint, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
def finetune(
    checkpoint: Checkpoint = None,
    labels: o.Labels = None,
    test: o.Test = None,
    labels_per_class: o.PerClass = None,
    draws: o.Draws = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="From random weights only, without a checkpoint.")
    ] = False,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1)] = None,
    imgsz: o.Imgsz = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    seed: o.Seed = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Fine-tune the slim net on few labels, beside the same net from scratch.

    Examples:
    edgessl finetune last --labels-per-class 10

    edgessl finetune --scratch --encoder mobilenet_v3_small --width 1x --labels labelled
    """
    from edgessl.encoders import ENCODERS
    from edgessl import api

    values = {
        "data.labels": labels, "data.test": test, "data.imgsz": imgsz,
        "labels.per_class": labels_per_class, "labels.draws": draws,
        "encoder.name": o.known(ENCODERS, encoder), "encoder.width": width,
        "finetune.epochs": epochs, "seed": seed,
    }  # fmt: skip
    outcome = api.finetune(
        checkpoint, scratch=scratch, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
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
        checkpoint, width=width, settings=o.settings(set_, {}), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
def export(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Extracted model, run folder, or 'last' (default)."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="See: edgessl list targets; may be repeated."),
    ] = None,
    format_: Annotated[list[str] | None, typer.Option("--format", hidden=True)] = None,
    quantize: Annotated[str | None, typer.Option("--quantize", help="none (float32).")] = None,
    test: o.Test = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Export a model for a runtime and prove on real images that it gives the same answers.

    Examples:
    edgessl export last --target tflite

    edgessl export runs/quickstart/extract/0.5x --target onnx --target openvino
    """
    from edgessl.exporters import EXPORTERS
    from edgessl import api

    targets = (target or []) + (format_ or [])
    for name in targets:
        o.known(EXPORTERS, name)
    values = {
        "export.targets": targets or None, "export.quantize": quantize, "data.test": test,
    }  # fmt: skip
    outcome = api.export(
        model, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command()
def bench(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARTIFACT]...", help="Export folders, run folders, or 'last'."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="See: edgessl list devices.")
    ] = None,
    test: o.Test = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="quick, standard or sustained.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1)] = None,
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
    from edgessl.devices import DEVICES
    from edgessl import api

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


@app.command()
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Run folders, or 'last'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file; default in the run folder.")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write report.html and MODEL_CARD.md from run folders.

    Examples:
    edgessl report

    edgessl report runs/pretrain runs/finetune --out report.html
    """
    from edgessl import api

    finish(api.report(runs or (), out=out), as_json, quiet)

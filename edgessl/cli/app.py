"""The program, and its commands from images to a trained net: run to finetune."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgessl import __version__
from edgessl.cli import completion
from edgessl.cli import options as o
from edgessl.cli.dry_run import text as dry_run_text
from edgessl.cli.output import write_document
from edgessl.cli.show import write
from edgessl.core.errors import worst_of

if TYPE_CHECKING:
    from edgessl.api import Outcome
    from edgessl.api_light import Finding

# panels of --help, and the order of the commands in it: that of the chain
START, CHAIN, USE, LOOK = "Start", "The chain, step by step", "Use", "Look"
ORDER = (
    "init", "data", "run", "pretrain", "evaluate", "finetune", "extract", "export", "bench",
    "report", "predict", "runs", "cost", "devices", "doctor", "list", "schema",
)  # fmt: skip


class InOrder(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands; those without a place come last."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda n: ORDER.index(n) if n in ORDER else len(ORDER))


app = typer.Typer(
    name="edgessl",
    cls=InOrder,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From unlabeled images to a small model proven on your own device.\n\n"
    "Start with: edgessl run quickstart, or edgessl init for images of your own.",
)

Checkpoint = Annotated[
    str | None,
    typer.Argument(metavar="[CKPT]", help="File, stage folder, run folder, or 'last' (default)."),
]


class Told(Exception):
    """The JSON document is written, errors included; only the exit code is left."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def finish(outcome: Outcome, as_json: bool, quiet: bool) -> None:
    """Print what came out and the next command.

    Raises:
        EdgeSSLError: The worst error of the branches that failed, for people.
        Told: The same for programs: the document holds the result and the errors.
    """
    worst = worst_of(outcome.errors) if outcome.errors else None
    if as_json:
        document: dict[str, Any] = {
            "command": outcome.command, "run": str(outcome.run), "result": outcome.result,
            "next": outcome.next,
        }  # fmt: skip
        if worst is not None:
            document["error"] = worst.as_dict()
            document["errors"] = [error.as_dict() for error in outcome.errors]
        write_document(document)
        if worst is not None:
            raise Told(worst.exit_code)
    elif not quiet:
        sys.stderr.write(f"done: {outcome.run}\nnext: {outcome.next}\n")
    if worst is not None:
        raise worst


def tell(finding: Finding, text: str, as_json: bool, quiet: bool = False) -> None:
    """Print what a command found out, people's text on stdout, and the next command.

    Raises:
        EdgeSSLError: What was asked for does not work, for people.
        Told: The same for programs.
    """
    worst = worst_of(finding.errors) if finding.errors else None
    if as_json:
        document: dict[str, Any] = {
            "command": finding.command, "result": finding.result, "next": finding.next,
        }  # fmt: skip
        write_document(document | ({"error": worst.as_dict()} if worst else {}))
        if worst is not None:
            raise Told(worst.exit_code)
    else:
        write(text)
        if worst is not None:
            raise worst
        if not quiet:
            sys.stdout.flush()
            sys.stderr.write(f"next: {finding.next}\n")


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


@app.command(rich_help_panel=START)
def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="File, or name of a shipped recipe; default edgessl.yaml.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    start: Annotated[
        str | None, typer.Option("--from", help="First stage.", autocompletion=completion.stages)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Last stage.", autocompletion=completion.stages)
    ] = None,
    dry_run: o.DryRun = False,
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

    edgessl run my.yaml --dry-run
    """
    from edgessl import api

    if dry_run:
        finding = api.dry_run(
            recipe, settings=o.settings(set_, {"seed": seed}), out=out, start=start, until=until,
            reporter=o.reporter(quiet, verbose, as_json),
        )  # fmt: skip
        tell(finding, dry_run_text(finding.result), as_json, quiet)
        return
    outcome = api.run(
        recipe, settings=o.settings(set_, {"seed": seed}), out=out, resume=resume, start=start,
        until=until, reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command(rich_help_panel=CHAIN)
def pretrain(
    unlabeled: o.Unlabeled = None,
    method: o.Method = None,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    weights: o.Weights = None,
    teacher: o.Teacher = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the images.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="Images per step.")] = None,
    imgsz: o.Imgsz = None,
    labels: o.Labels = None,
    test: o.Test = None,
    group_by: o.GroupBy = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    dry_run: o.DryRun = False,
    seed: o.Seed = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Pretrain a host network and the slim net inside it on unlabeled images.

    Examples:
    edgessl pretrain

    edgessl pretrain --unlabeled photos --labels labelled --encoder mobilenet_v3_large --imgsz 128

    edgessl pretrain --unlabeled photos --encoder mobilenet_v3_large --weights imagenet

    edgessl pretrain --unlabeled photos --method seed --width 1x --teacher runs/teacher

    edgessl pretrain --unlabeled photos --dry-run
    """
    from edgessl import api
    from edgessl.encoders import ENCODERS
    from edgessl.methods import METHODS

    values = {
        "data.unlabeled": unlabeled, "data.labels": labels, "data.test": test,
        "data.group_by": group_by,
        "data.imgsz": imgsz, "pretrain.method": o.known(METHODS, method),
        "encoder.name": o.known(ENCODERS, encoder), "encoder.width": o.known_width(width),
        "encoder.weights": weights, "pretrain.teacher": teacher,
        "pretrain.epochs": epochs, "pretrain.batch": batch, "seed": seed,
        "pretrain.starts": ["weights"] if weights else None,
    }  # fmt: skip
    if dry_run:
        finding = api.dry_run(
            command="pretrain", settings=o.settings(set_, values), out=out,
            reporter=o.reporter(quiet, verbose, as_json),
        )  # fmt: skip
        tell(finding, dry_run_text(finding.result), as_json, quiet)
        return
    outcome = api.pretrain(
        settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command(rich_help_panel=CHAIN)
def evaluate(
    checkpoint: Checkpoint = None,
    labels: o.Labels = None,
    test: o.Test = None,
    group_by: o.GroupBy = None,
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

    for name in protocol or []:
        o.one_of("--protocol", name, o.PROTOCOLS)
    values = {
        "data.labels": labels, "data.test": test,
        "data.group_by": group_by, "evaluate.protocols": protocol or None,
        "labels.per_class": o.per_class(labels_per_class), "labels.draws": draws, "seed": seed,
    }  # fmt: skip
    outcome = api.evaluate(
        checkpoint, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


@app.command(rich_help_panel=CHAIN)
def finetune(
    checkpoint: Checkpoint = None,
    labels: o.Labels = None,
    test: o.Test = None,
    group_by: o.GroupBy = None,
    labels_per_class: o.PerClass = None,
    draws: o.Draws = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="From random weights only, without a checkpoint.")
    ] = False,
    encoder: o.EncoderName = None,
    width: o.Width = None,
    weights: o.Weights = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the images.")
    ] = None,
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

    edgessl finetune --encoder mobilenet_v3_small --width 1x --weights imagenet --labels labelled
    """
    from edgessl import api
    from edgessl.encoders import ENCODERS

    values = {
        "data.labels": labels, "data.test": test,
        "data.group_by": group_by, "data.imgsz": imgsz,
        "labels.per_class": o.per_class(labels_per_class), "labels.draws": draws,
        "encoder.name": o.known(ENCODERS, encoder), "encoder.width": o.known_width(width),
        "encoder.weights": weights,
        "finetune.epochs": epochs, "seed": seed,
    }  # fmt: skip
    outcome = api.finetune(
        checkpoint, scratch=scratch, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)

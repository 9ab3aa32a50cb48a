"""The command export: files for runtimes, in every precision, with their proof."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

from typing import Annotated

import typer

from edgessl.cli import completion
from edgessl.cli import options as o
from edgessl.cli.app import CHAIN, app, finish
from edgessl.core.errors import UsageProblem


@app.command(rich_help_panel=CHAIN)
def export(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Extracted model, run folder, or 'last' (default)."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="See: edgessl list targets; may be repeated.",
            autocompletion=completion.targets,
        ),
    ] = None,
    format_: Annotated[list[str] | None, typer.Option("--format", hidden=True)] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize",
            help="none (float32), dynamic, fp16, int8 or w8a16; float32 is written beside it.",
            autocompletion=completion.precisions,
        ),
    ] = None,
    calib: Annotated[
        str | None,
        typer.Option(
            "--calib", metavar="SRC", help="Images for the ranges of int8; default: training ones."
        ),
    ] = None,
    calib_n: Annotated[
        int | None, typer.Option("--calib-n", min=1, help="How many of them; default 256.")
    ] = None,
    proof: Annotated[
        str | None,
        typer.Option(
            "--proof", metavar="SRC", help="Further unseen images to judge on; no labels needed."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", metavar="POINTS", help="Top-1 that may be lost; default 1."),
    ] = None,
    allow_inconclusive: Annotated[
        bool,
        typer.Option("--allow-inconclusive", help="Exit 0 also when the images cannot decide."),
    ] = False,
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="int8: judge the first try, search no other way.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Measure what each layer loses: table and picture.")
    ] = False,
    io: Annotated[
        str | None,
        typer.Option("--io", metavar="float|integer", help="What int8 and w8a16 take and give."),
    ] = None,
    embed_preprocess: Annotated[
        bool,
        typer.Option(
            "--embed-preprocess", help="Normalise inside the file: it takes uint8 NHWC pixels."
        ),
    ] = False,
    raw_size: Annotated[
        str | None,
        typer.Option(
            "--raw-size",
            metavar="HxW",
            help="Also resize and crop inside: the file takes whole pictures of this size.",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Any batch size instead of one.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option("--opset", min=1, help="ONNX opset; default: the target's.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", hidden=True)] = False,
    int8: Annotated[bool, typer.Option("--int8", hidden=True)] = False,
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

    edgessl export last --target onnx --quantize int8 --analyze

    edgessl export runs/quickstart/extract/0.5x --target onnx --target openvino
    """
    from edgessl import api
    from edgessl.exporters import EXPORTERS

    targets = (target or []) + (format_ or [])
    for name in targets:
        o.known(EXPORTERS, name)
    values = {
        "export.targets": targets or None,
        "export.quantize": _precision(quantize, half, int8),
        "export.calibration": calib,
        "export.calibration_images": calib_n,
        "export.max_drop": max_drop,
        "export.allow_inconclusive": allow_inconclusive or None,
        "export.fallback": False if no_fallback else None,
        "export.analyze": analyze or None,
        "export.io": o.one_of("--io", io, ("float", "integer")),
        "export.embed_preprocess": (embed_preprocess or raw_size is not None) or None,
        "export.raw_size": _size(raw_size),
        "export.dynamic_batch": dynamic_batch or None,
        "export.opset": opset,
        "data.proof": proof,
        "data.test": test,
    }
    outcome = api.export(
        model, settings=o.settings(set_, values), out=out, resume=resume,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    finish(outcome, as_json, quiet)


def _precision(quantize: str | None, half: bool, int8: bool) -> str | None:
    """Return the one precision that was asked for, by its name or by an alias."""
    asked = [quantize] if quantize else []
    asked += ["fp16"] if half else []
    asked += ["int8"] if int8 else []
    if len(set(asked)) > 1:
        raise UsageProblem(
            f"one precision at a time, got {' and '.join(asked)}",
            hint=f"for example --quantize {asked[0]}; float32 is always written beside it",
        )
    from edgessl.exporters import PRECISIONS

    return o.one_of("--quantize", asked[0] if asked else None, PRECISIONS)


def _size(text: str | None) -> list[int] | None:
    """Read HEIGHTxWIDTH."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise UsageProblem(
            f"--raw-size {text!r} is not HEIGHTxWIDTH in pixels", hint="for example 480x640"
        )
    return [int(side) for side in sides]

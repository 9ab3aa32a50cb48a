"""The command bench: exported files, or a grid of untrained nets, on a device."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

from typing import Annotated

import typer

from edgessl.cli import completion
from edgessl.cli import options as o
from edgessl.cli.app import CHAIN, app, finish
from edgessl.cli.show import table, write

SCOPES = ("wall", "usb", "module", "soc", "battery")


@app.command(rich_help_panel=CHAIN)
def bench(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARTIFACT]...", help="Export folders, run folders, or 'last'."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="A kind (edgessl list devices) or a name (edgessl devices list); default local.",
            autocompletion=completion.boards,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDR", help="ssh://user@board or adb[:serial]."),
    ] = None,
    setup: Annotated[
        bool,
        typer.Option("--setup", help="Bring a runtime to a board that lacks it (devices setup)."),
    ] = False,
    test: o.Test = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="quick, standard or sustained.", autocompletion=completion.presets
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="onnxruntime, openvino, litert or tensorrt."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option("--provider", help="Execution provider, device or delegate of the runtime."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of the runtime.")
    ] = None,
    cores: Annotated[
        str | None,
        typer.Option("--cores", metavar="LIST", help="Cores that the model may use: 4-7 or 0,1."),
    ] = None,
    fixed_performance: Annotated[
        bool,
        typer.Option(
            "--fixed-performance", help="Phones: ask Android for clocks that it can keep up."
        ),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option("--fps", min=0.001, help="Images a second at most, with pauses between."),
    ] = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Measure energy too; takes two minutes longer.")
    ] = False,
    battery_wh: Annotated[
        float | None,
        typer.Option("--battery-wh", metavar="WH", help="Say how long such a battery lasts."),
    ] = None,
    power_csv: Annotated[
        str | None,
        typer.Option("--power-csv", metavar="FILE", help="Readings of an external power meter."),
    ] = None,
    power_scope: Annotated[
        str | None,
        typer.Option("--power-scope", help="What that meter sees: wall, usb, module, soc, ..."),
    ] = None,
    profile_layers: Annotated[
        bool, typer.Option("--profile-layers", help="Time each layer too, in a pass of its own.")
    ] = False,
    allow_unstable: Annotated[
        bool, typer.Option("--allow-unstable", help="Exit 0 also when a verdict is not VALID.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", metavar="E,...", help="Time untrained nets: encoders, by commas.",
            autocompletion=completion.encoders, rich_help_panel="Untrained nets",
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            "--width", metavar="W,...", help="Their widths, for example 0.5x,0.75x,1x.",
            rich_help_panel="Untrained nets",
        ),
    ] = None,
    imgsz: Annotated[
        str | None,
        typer.Option(
            "--imgsz", metavar="N,...", help="Their input sides in pixels, for example 128,224.",
            rich_help_panel="Untrained nets",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="Their format; default: what the device runs best.",
            autocompletion=completion.targets, rich_help_panel="Untrained nets",
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize", help="Their precision: none, dynamic, fp16, int8 or w8a16.",
            autocompletion=completion.precisions, rich_help_panel="Untrained nets",
        ),
    ] = None,
    unlabeled: Annotated[
        str | None,
        typer.Option(
            "--unlabeled", metavar="SRC", help="Real images to time them with; default digits.",
            rich_help_panel="Untrained nets",
        ),
    ] = None,
    set_: o.Set = None,
    out: o.Out = None,
    resume: o.Resume = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:  # fmt: skip
    """Measure exported files on a device: right answers, latency, accuracy, energy, verdict.

    With --encoder, a grid of untrained nets: width and resolution are chosen before training.

    Examples:
    edgessl bench last

    edgessl bench --device rpi --address ssh://pi@raspberrypi.local --preset standard

    edgessl bench last --device kitchen --energy --fps 2 --battery-wh 20

    edgessl bench --encoder mobilenet_v3_small --width 0.5x,1x --imgsz 128 --device kitchen --setup
    """
    from edgessl import api
    from edgessl.devices.protocol import PRESETS
    from edgessl.devices.runtimes import RUNTIMES

    o.one_of("--preset", preset, PRESETS)
    o.one_of("--power-scope", power_scope, SCOPES)
    o.one_of("--runtime", runtime.partition(":")[0] if runtime else None, RUNTIMES)
    values = {
        "bench.device": o.known_device(device or _kind_at(address)),
        "bench.address": address, "bench.preset": preset,
        "bench.setup": setup or None,
        "bench.runtime": runtime, "bench.provider": provider, "bench.threads": threads,
        "bench.cores": o.cores(cores), "bench.fixed_performance": fixed_performance or None,
        "bench.fps": fps, "bench.energy": energy or None, "bench.battery_wh": battery_wh,
        "bench.power_csv": power_csv, "bench.power_scope": power_scope,
        "bench.profile_layers": profile_layers or None,
        "bench.allow_unstable": allow_unstable or None,
    }  # fmt: skip
    if encoder is None:
        o.only_with("--encoder", {"--width": width, "--imgsz": imgsz, "--target": target,
                                  "--quantize": quantize, "--unlabeled": unlabeled})  # fmt: skip
        outcome = api.bench(
            artifacts or (), settings=o.settings(set_, values | {"data.test": test}), out=out,
            resume=resume, reporter=o.reporter(quiet, verbose, as_json),
        )  # fmt: skip
        finish(outcome, as_json, quiet)
        return
    outcome = api.bench_untrained(
        encoder.split(","), o.widths(width or "1x"), o.sides(imgsz or "224"), target=target,
        images=unlabeled, settings=o.settings(set_, values | {"export.quantize": quantize}),
        out=out, resume=resume, reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    if outcome.result["table"] and not as_json:
        write(table(GRID_HEAD, outcome.result["table"], right="23456789"))
    finish(outcome, as_json, quiet)


def _kind_at(address: str | None) -> str | None:
    """Return the kind of board that an address alone means."""
    if not address:
        return None
    return "android" if address.partition(":")[0] == "adb" else "ssh"


GRID_HEAD = (
    "encoder", "width", "px", "params M", "MACs M", "file MB", "p50 ms", "95 %", "p90 ms",
    "RSS MiB", "verdict",
)  # fmt: skip

"""The device that a recipe names: opened, asked how to measure, given the runtime it lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgessl.core.recipe import Bench, Recipe
from edgessl.devices import DEVICES
from edgessl.devices.base import Board, Device
from edgessl.devices.boards import resolve
from edgessl.devices.choice import Asked, check_rate
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.protocol import preset_named
from edgessl.devices.runtimes import RUNTIMES, readers_of
from edgessl.devices.setup import set_up
from edgessl.stages.context import Context


def board_of(section: Bench) -> Board:
    """Return the board that a recipe names, by kind or by the name it was added under.

    Raises:
        UsageProblem: No such kind or name, or the kind needs an address.
    """
    return resolve(section.device, section.address, section.python)


def check_bench(recipe: Recipe) -> None:
    """Refuse a recipe whose bench cannot work, before anything is done; nothing is reached.

    Raises:
        UsageProblem: As :func:`board_of` and :func:`asked_of`.
    """
    board_of(recipe.bench)
    asked_of(recipe.bench)


def open_device(section: Bench) -> Device:
    """Return the device that a recipe names; nothing is reached yet.

    Raises:
        UsageProblem: As :func:`board_of`.
        MissingExtra: A package that its kind needs is not installed.
    """
    board = board_of(section)
    return DEVICES.load(board.kind)(board)


def asked_of(section: Bench) -> Asked:
    """Return what a recipe asks of a bench.

    Raises:
        UsageProblem: At that rate the samples that are needed cannot be taken.
    """
    asked = Asked(
        preset=preset_named(section.preset),
        runtime=section.runtime,
        provider=section.provider,
        threads=section.threads,
        cores=section.cores or (),
        fixed_performance=section.fixed_performance,
        fps=section.fps,
        energy=section.measures_energy,
        battery_wh=section.battery_wh,
        power_csv=Path(section.power_csv) if section.power_csv else None,
        power_scope=section.power_scope,
        profile=section.profile_layers,
    )
    check_rate(asked)
    return asked


def seconds_on(device: Device, asked: Asked) -> float:
    """Return what one artifact takes at least; without a meter nothing waits for one."""
    metered = asked.power_csv is not None or device.traits.meter(device.facts()) is not None
    return asked.seconds if metered else replace(asked, energy=False).seconds


def lacks_runtime(device: Device, form: str) -> bool:
    """Whether no runtime on a device reads a format."""
    packages = device.facts().get("runtimes", {})
    return not any(RUNTIMES[name].is_among(packages) for name in readers_of(form))


def bring_runtime(context: Context, device: Device, form: str) -> None:
    """Bring a runtime for a format to a board that lacks it, where the recipe says so.

    Raises:
        EdgeSSLError: See ``devices.setup.set_up``.
    """
    section = context.recipe.bench
    if not (section.setup and isinstance(device, LinuxDevice) and device.board.address):
        return
    if not lacks_runtime(device, form):
        return
    asked = (section.runtime or "").partition(":")[0]
    name = asked if asked in readers_of(form) else readers_of(form)[0]
    set_up(device, name, say=context.reporter.say)

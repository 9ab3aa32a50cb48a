"""Raspberry Pi: what its firmware tells about supply, heat and clocks; power of a Pi 5."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgessl.devices import fan, plain, probed, vcgencmd
from edgessl.devices.base import Board, Fit, Meter, Probe, Traits
from edgessl.devices.events import Run
from edgessl.devices.linux import LinuxDevice

PROBES = (
    Probe("throttled", ("vcgencmd", "get_throttled"), when="second"),
    Probe("firmware_temp", ("vcgencmd", "measure_temp")),
    # the kernel does not see when the firmware lowers the clock, so it is asked itself
    Probe("arm_clock", ("vcgencmd", "measure_clock", "arm"), when="second"),
    # under-voltage from the kernel's own driver: no program, no rights
    Probe("supply", file="/sys/class/hwmon/hwmon*/in0_lcrit_alarm", when="second"),
    # why vcgencmd says nothing: not there, or not allowed
    Probe("vcgencmd_rights", ("sh", "-c", "command -v vcgencmd; ls -l /dev/vcio; id -Gn; true")),
    *fan.PROBES,
)
PMIC = Probe("pmic", ("vcgencmd", "pmic_read_adc"))
PMIC_HZ = 12.0  # a little above the floor of 10, as a program is started for each reading
# 2 W to 12 W of a Pi 5 at its USB-C plug against the sum of its rails
PMIC_FIT = Fit(1.1451, 0.5879, "community fit for the Raspberry Pi 5: 1.1451 x rails + 0.5879 W")
HAS_SENSOR = re.compile(r"Raspberry Pi (?:5\d{0,2}|Compute Module 5)\b")


def open_board(board: Board) -> LinuxDevice:
    """Return a Raspberry Pi at an address, or this machine when there is none."""
    from edgessl.devices.address import open_shell

    return LinuxDevice(board, open_shell(board), TRAITS)


def mismatch(facts: Mapping[str, Any]) -> str:
    """Return why this is no Raspberry Pi; empty when it is one."""
    model = plain.shown(str(facts.get("board") or ""))
    if model.startswith("Raspberry Pi"):
        return ""
    return f"the board calls itself '{model or 'nothing'}', not 'Raspberry Pi ...'"


def meter(facts: Mapping[str, Any]) -> Meter | None:
    """Return the PMIC of a Pi 5; earlier boards have no current sensor."""
    if not HAS_SENSOR.match(str(facts.get("board") or "")):
        return None
    return Meter(
        "soc",
        "PMIC of the Raspberry Pi 5: sum of 12 rails (SoC, memory, radio, HDMI; without USB "
        "devices, fan, HATs and converter losses)",
        (PMIC,),
        PMIC_HZ,
        lambda texts: vcgencmd.rail_watts(texts.get(PMIC.name, "")),
        PMIC_FIT,
    )


def no_meter(_facts: Mapping[str, Any]) -> str:
    """Return why a Pi before the Pi 5 has no meter."""
    return "this board has no current sensor; use an external meter with --power-csv"


def conditions(runs: Sequence[Run]) -> Iterable[str]:
    """Yield what the firmware saw: under-voltage, capping, throttling, heat, clock, fan."""
    for repeat, run in enumerate(runs, 1):
        where = f" in repeat {repeat}" if len(runs) > 1 else ""
        yield from _firmware(run, where)
    clocks = [
        mhz
        for run in runs
        for _, text in probed.series(run, "arm_clock")
        if (mhz := vcgencmd.megahertz(text))
    ]
    if clocks:
        yield f"clock by the firmware: {min(clocks)} to {max(clocks)} MHz"
    heat = [
        celsius
        for run in runs
        for _, text in probed.series(run, "firmware_temp")
        if (celsius := vcgencmd.celsius(text)) is not None
    ]
    if heat:
        yield f"temperature by the firmware: {heat[0]:.1f} C before, {heat[-1]:.1f} C after"
    yield from fan.conditions(runs)


def _firmware(run: Run, where: str) -> Iterable[str]:
    words = [vcgencmd.throttled(text) for _, text in probed.series(run, "throttled")]
    words = [bits for bits in words if bits is not None]
    supply = [v for _, text in probed.series(run, "supply") for v in probed.numbers(text).values()]
    if not words:
        yield f"not observable here: supply, capping and throttling{where} ({_why_not(run)})"
        if any(supply):
            yield f"under-voltage happened{where} (kernel alarm)"
        return
    alarms = [1 for alarm in supply if alarm]  # bit 0: under-voltage
    happened, unknown = vcgencmd.during(words[0], words[-1], [*words[1:-1], *alarms])
    if happened:
        yield f"{', '.join(happened)} happened while it ran{where}"
    if unknown:
        yield (
            f"{', '.join(unknown)} happened since boot{where}; whether again while it ran cannot "
            "be told (restart the board to tell)"
        )
    if not happened and not unknown:
        yield f"no under-voltage, capping or throttling while it ran{where}"


def _why_not(run: Run) -> str:
    said = probed.last(run, "vcgencmd_rights")
    if "vcgencmd" not in said:
        return "vcgencmd is not installed: sudo apt install raspi-utils-core"
    if "/dev/vcio" not in said:
        return "vcgencmd is there, but the kernel has no /dev/vcio"
    if "video" not in said.splitlines()[-1].split():  # the groups of the user
        return "vcgencmd may not open /dev/vcio: sudo usermod -aG video $USER, then log in again"
    return "vcgencmd gave no answer"


TRAITS = Traits(
    probes=PROBES,
    meter=meter,
    no_meter=no_meter,
    conditions=conditions,
    mismatch=mismatch,
)

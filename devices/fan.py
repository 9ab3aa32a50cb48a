"""Fans that a Linux board shows; many have none, or one that it cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from edgessl.devices import probed
from edgessl.devices.base import Probe
from edgessl.devices.events import Run

PWM_FULL = 255
PROBES = (
    Probe("fan_pwm", file="/sys/class/hwmon/hwmon*/pwm1", when="second"),
    Probe("fan_rpm", file="/sys/class/hwmon/hwmon*/fan1_input", when="second"),
    # Jetson: the tachometer has a driver of its own; before JetPack 5 the fan had, too
    Probe("fan_tach", file="/sys/class/hwmon/hwmon*/rpm", when="second"),
    Probe("fan_old", file="/sys/devices/pwm-fan/cur_pwm", when="second"),
)


def conditions(runs: Sequence[Run]) -> Iterable[str]:
    """Yield one line about the fan: share of full power, turns a minute; mean over the runs."""
    power = [*_all(runs, "fan_pwm"), *_all(runs, "fan_old")]
    turns = [*_all(runs, "fan_rpm"), *_all(runs, "fan_tach")]
    said = [f"{fmean(power) / PWM_FULL:.0%} of full power"] if power else []
    said += [f"{fmean(turns):.0f} turns a minute"] if turns else []
    yield f"fan: {', '.join(said) if said else 'none seen'}"


def _all(runs: Sequence[Run], name: str) -> list[float]:
    texts = (text for run in runs for _, text in probed.series(run, name))
    return [
        value
        for text in texts
        for value in (probed.numbers(text) or probed.numbers(f"\t{text}")).values()
        if 0 <= value <= 1e5
    ]

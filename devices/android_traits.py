"""What Android tells while a model runs: heat, battery, screen; power of an unplugged phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgessl.devices import dumpsys, events, plain, probed
from edgessl.devices.base import Meter, Probe, Traits
from edgessl.devices.events import Run

SUPPLY = "/sys/class/power_supply/*"
PROBES = (
    Probe("thermal", ("dumpsys", "thermalservice")),
    Probe("battery", ("dumpsys", "battery")),
    Probe("power", ("sh", "-c", "dumpsys power | head -n 200")),
    Probe("airplane", ("settings", "get", "global", "airplane_mode_on")),
    Probe("saver", ("settings", "get", "global", "low_power")),
)
CURRENT = Probe("current", file=f"{SUPPLY}/current_now")
VOLTAGE = Probe("voltage", file=f"{SUPPLY}/voltage_now")
BATTERY_HZ = 10.0
# a phone that runs a model, the busier half of the time, and at any moment: outside of it the unit
# of the current is another one, or it is none that is known here
LEAST_W, LARGEST_W = 0.1, 30.0
MILLI = 1000.0  # some makers write milliampere where the kernel's unit is microampere
BATTERIES = ("battery", "bms", "main-battery")


def battery_watts(texts: Mapping[str, str]) -> float | None:
    """Return what the battery gives if its current is in the kernel's unit, microampere.

    None if the gauge is not readable. Makers do not agree on the sign of a discharge, so an
    unplugged phone's is not looked at.
    """
    currents = probed.numbers(texts.get(CURRENT.name, ""))
    voltages = probed.numbers(texts.get(VOLTAGE.name, ""))
    by_name = {
        probed.folder(path).rsplit("/", 1)[-1]: (abs(value), probed.folder(path))
        for path, value in currents.items()
    }
    for name in BATTERIES:
        if name not in by_name:
            continue
        micro, folder = by_name[name]
        volts = voltages.get(f"{folder}/voltage_now", 0) / 1e6
        if 2 < volts < 20 and micro > 0:
            return volts * micro / 1e6
    return None


def battery_scale(watts: Sequence[float]) -> float | str:
    """Return what the unit of the current is worth beside microampere: decided once for all runs.

    The two units cannot be mixed up: no phone draws a thousand times what another one does.

    Args:
        watts: Of all readings, as :func:`battery_watts` gives them.

    Returns:
        1 or 1000, or the reason why neither gives watts that a phone can draw.
    """
    if not watts:
        return 1.0
    ordered = sorted(watts)
    busy, largest = ordered[len(ordered) * 3 // 4], ordered[-1]
    for scale in (1.0, MILLI):
        if busy * scale >= LEAST_W and largest * scale <= LARGEST_W:
            return scale
    return (
        f"unit of current_now unclear (up to {largest:.3g} W if it is microampere, "
        f"{largest * MILLI:.3g} W if it is milliampere)"
    )


def no_meter(facts: Mapping[str, Any]) -> str:
    """Return why a phone's power cannot be measured; empty when it can."""
    supplies = facts.get("power_supplies")
    if not isinstance(supplies, Mapping) or not supplies:
        return "the phone does not show its battery to the shell user"
    states = {str(name): str(state).lower() for name, state in supplies.items()}
    plugs = [name for name, state in states.items() if state.startswith("online 1")]
    filled = [name for name, state in states.items()
              if name in BATTERIES and not state.startswith("discharging")]  # fmt: skip
    if plugs or filled:
        return (
            "plugged in; unplug the phone and reach it over Wi-Fi: --address adb:HOST:PORT "
            "(on the phone: Developer options > Wireless debugging)"
        )
    if not any(name in BATTERIES for name in states):
        return "the phone names no battery"
    return ""


def meter(facts: Mapping[str, Any]) -> Meter | None:
    """Return the battery of an unplugged phone."""
    if no_meter(facts):
        return None
    return Meter(
        "battery",
        "fuel gauge of the phone's battery (everything the phone does, screen and radio too; most "
        "gauges give a new value about once a second)",
        (CURRENT, VOLTAGE),
        BATTERY_HZ,
        battery_watts,
        scale=battery_scale,
    )


def conditions(runs: Sequence[Run]) -> Iterable[str]:
    """Yield cores, clocks asked for, heat, battery, screen, radio of the phone."""
    for repeat, run in enumerate(runs, 1):
        yield from _of_run(run, f" in repeat {repeat}" if len(runs) > 1 else "")


def _of_run(run: Run, where: str) -> Iterable[str]:
    done = events.last(run, "android")
    if done:
        yield f"{done['bound']}{where}"
        if done["fixed"] != "not asked":
            yield f"fixed-performance mode: {done['fixed']}{where}"
        if done["waited_s"] >= 1:
            yield f"waited {done['waited_s']:.0f} s for the phone to cool down{where}"
    yield from _heat(run, where)
    before, after = (dumpsys.battery(read(run, "battery")) for read in (probed.first, probed.last))
    if before.words:
        yield f"battery{where}: {before.words} before, {after.words} after"
    else:
        yield f"not observable here: battery{where}"
    if before.plugs != after.plugs:
        yield f"the plug was changed while it ran{where}"
    awake = dumpsys.awake(probed.first(run, "power"))
    states = [] if awake is None else [f"screen {'on' if awake else 'off'}"]
    for name, words in (("airplane", "airplane mode"), ("saver", "battery saver")):
        if (value := probed.first(run, name).strip()) in ("0", "1"):
            states.append(f"{words} {'on' if value == '1' else 'off'}")
    if states:
        yield f"{', '.join(states)}{where}"


def _heat(run: Run, where: str) -> Iterable[str]:
    begin, end = (dumpsys.thermal(read(run, "thermal")) for read in (probed.first, probed.last))
    if not begin.words:
        yield f"not observable here: throttling{where} (no thermal service)"
        return
    changed = "" if begin.status == 0 else " (not 0 at the start: it may be slower than it can be)"
    yield f"thermal status{where}: {begin.words} before, {end.words} after{changed}"
    shown = [
        f"{name} {begin.celsius[name]:.1f} to {end.celsius[name]:.1f} C"
        for name in sorted(begin.celsius or {})
        if begin.celsius and end.celsius and name in end.celsius and "skin" in name.lower()
    ]
    hot = end.hottest
    if hot:
        shown.append(f"hottest after {plain.shown(hot[0])} {hot[1]:.1f} C")
    if shown:
        yield f"temperature by Android{where}: {', '.join(shown)}"


def mismatch(facts: Mapping[str, Any]) -> str:
    """Return why this is no Android phone; empty when it is one."""
    if str(facts.get("os") or "").startswith("Android "):
        return ""
    return f"the board runs {plain.shown(str(facts.get('os') or 'something else'))}, not Android"


TRAITS = Traits(
    probes=PROBES,
    meter=meter,
    no_meter=lambda facts: no_meter(facts) or "the battery was not asked",
    conditions=conditions,
    mismatch=mismatch,
)

"""Energy of an inference: what the meter saw over the very window in which latency was taken.

Gross is all that was drawn, net is what was drawn above idle. A figure is given only where the
protocol's floors are met; otherwise the notes say what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from edgessl.devices import events
from edgessl.devices.base import Fit, Meter
from edgessl.devices.events import Run
from edgessl.devices.power import LONGEST_GAP_S, Trace, Window, blocks, bootstrap
from edgessl.devices.power_align import aligned
from edgessl.devices.power_csv import PowerLog

WINDOW_S = 60.0
IDLE_S = 30.0
RATE_HZ = 10.0
SHORTFALL = 0.98  # of the floors: a schedule loses a reading, a clock rounds
BLOCK_S = 5.0
MOST_READINGS = 2_000_000
# what sees all that a battery would have to give; the others miss a part of the board
WHOLE = ("wall", "usb", "battery")
MISSED = {
    "module": "the carrier board and what is plugged into it",
    "soc": "USB devices, fan and converter losses",
}
KEYS = (
    "scope", "source", "idle_w", "busy_w", "gross_j", "net_j", "net_low", "net_high",
    "j_per_correct", "fps", "wh_per_hour", "hours_on_battery", "battery_wh", "n_readings", "hz",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One process: its timed window, its idle windows, when its inferences began."""

    timed: Window
    idle: tuple[Window, ...]
    starts_s: tuple[float, ...]
    n: int


def energy_of(
    runs: Sequence[Run],
    meter: Meter | None,
    *,
    absent: str = "",
    log: PowerLog | None = None,
    top1: float | None = None,
    fps: float | None = None,
    battery_wh: float | None = None,
) -> dict[str, Any]:
    """Return the ``energy`` part of ``result.json``.

    ``gross_j`` and ``net_j`` are joules an inference; ``net_low`` and ``net_high`` the 95 %
    interval of net (bootstrap over blocks of 5 s, widened by half the difference of the idle
    levels before and after; the error of the meter itself is not in it). ``wh_per_hour`` is the
    mean power of the timed window, idle part included: at ``fps``, or one inference after the
    other where that is None.

    Args:
        runs: Events of each process.
        meter: The board's own sensor, None where there is none.
        absent: Why there is none.
        log: Of an external meter; then the board's own sensor is not used.
        top1: Accuracy on the device in [0, 1].
        fps: Images a second that were asked for.
        battery_wh: Of the battery that the user means to use.
    """
    result: dict[str, Any] = dict.fromkeys(KEYS) | {
        "fps": fps, "battery_wh": battery_wh, "notes": [],
    }  # fmt: skip
    notes: list[str] = result["notes"]
    if log is None and meter is None:
        notes.append(f"not measurable here: {absent or 'there is no power sensor'}")
        return result
    timed = [(run, part) for run in runs if (part := part_of(run))]
    parts = [part for _, part in timed]
    if missing := _floors(parts):
        notes.append(missing)
        return result
    if log is not None:
        traces, why = _of_log(log, parts)
        notes += [*log.notes, why]
    else:
        assert meter is not None
        traces, why = _of_meter(meter, [run for run, _ in timed])
        notes += [why] if why else []
    if traces is None:
        return result
    if not any(len(trace.at_s) for trace in traces):
        notes.append(f"not measurable here: {absent or 'the power sensor could not be read'}")
        return result
    result["scope"], result["source"] = (log.scope, log.source) if log else _named(meter)
    n_readings = sum(t.count(p.timed.begin_s, p.timed.end_s) for t, p in _pairs(traces, parts))
    seconds = sum(part.timed.seconds for part in parts)
    result["n_readings"], result["hz"] = n_readings, n_readings / seconds
    if missing := _gaps(traces, parts, n_readings / seconds):
        notes.append(missing)
        return result
    result |= _figures(traces, parts, notes)
    if top1:
        result["j_per_correct"] = result["gross_j"] / top1
    result["wh_per_hour"] = result["busy_w"]
    _per_hour(result, runs, notes)
    if log is None and meter is not None and meter.fit is not None:
        result["estimate"] = _estimate(result, meter.fit, seconds / sum(p.n for p in parts))
    return result


def part_of(run: Run) -> Part | None:
    """Return the windows of one process; None where nothing was timed."""
    timed = events.last(run, "timed")
    window, n = _window(timed), timed.get("n")
    if window is None or not isinstance(n, int) or n < 1:
        return None
    idle = tuple(w for event in events.of_kind(run, "idle") if (w := _window(event)))
    offsets = events.samples_ms(run).get("at_s", [])
    offsets = [at_s for at_s in offsets if 0 <= at_s <= window.seconds]
    if not offsets:  # not told: evenly, which is right on average
        offsets = [i * window.seconds / n for i in range(min(n, MOST_READINGS))]
    return Part(window, idle, tuple(window.begin_s + at_s for at_s in offsets), n)


def readings(run: Run, meter: Meter) -> Trace:
    """Return what the board's own sensor read; readings that make no sense are left out."""
    at_s: list[float] = []
    watts: list[float] = []
    for event in events.of_kind(run, "sensor"):
        values = event.get("values")
        if not isinstance(values, dict):
            continue
        for i, moment in enumerate(event.get("at_ns", [])):
            texts = {
                name: column[i]
                for name, column in values.items()
                if isinstance(column, list) and i < len(column) and isinstance(column[i], str)
            }
            power = meter.watts(texts) if isinstance(moment, int) and texts else None
            if power is not None and len(at_s) < MOST_READINGS:
                at_s.append(moment / 1e9)
                watts.append(power)
    return Trace.of(at_s, watts)


def _window(event: events.Event) -> Window | None:
    begin, end = event.get("begin_ns"), event.get("end_ns")
    if isinstance(begin, int) and isinstance(end, int) and 0 <= begin < end < 1 << 63:
        return Window(begin / 1e9, end / 1e9)
    return None


def _pairs(traces: Sequence[Trace], parts: Sequence[Part]) -> zip[tuple[Trace, Part]]:
    return zip(traces, parts, strict=True)


def _named(meter: Meter | None) -> tuple[str | None, str | None]:
    return (None, None) if meter is None else (meter.scope, meter.source)


def _of_meter(meter: Meter, runs: Sequence[Run]) -> tuple[list[Trace] | None, str]:
    traces = [readings(run, meter) for run in runs]
    scale = meter.scale([float(power) for trace in traces for power in trace.watts])
    if isinstance(scale, str):
        return None, f"not measurable here: {scale}"
    return [Trace(trace.at_s, trace.watts * scale) for trace in traces], ""


def _of_log(log: PowerLog, parts: Sequence[Part]) -> tuple[list[Trace] | None, str]:
    idle = [window for part in parts for window in part.idle]
    shift, why = aligned(log.trace, idle, [part.timed for part in parts])
    if shift is None:
        return None, f"no energy from the external meter: {why}"
    return [log.trace.shifted(shift)] * len(parts), why


def _floors(parts: Sequence[Part]) -> str:
    """Return which floor of the protocol is missed; empty when none is."""
    if not parts:
        return "no energy: nothing was timed"
    shortest = min(part.timed.seconds for part in parts)
    if shortest < SHORTFALL * WINDOW_S:
        return (
            f"no energy: {shortest:.1f} s were timed, {WINDOW_S:g} s are needed (--preset standard)"
        )
    for part in parts:
        if len(part.idle) < 2 or min(w.seconds for w in part.idle) < SHORTFALL * IDLE_S:
            return f"no energy: it takes {IDLE_S:g} s of idle before and after the timed part"
    return ""


def _gaps(traces: Sequence[Trace], parts: Sequence[Part], hz: float) -> str:
    if hz < SHORTFALL * RATE_HZ:
        return f"no energy: {hz:.1f} readings a second, {RATE_HZ:g} are needed"
    for trace, part in _pairs(traces, parts):
        for window in (part.timed, *part.idle):
            gap = trace.longest_gap_s(window.begin_s, window.end_s)
            if gap > LONGEST_GAP_S:
                lost = min(gap, window.seconds)
                return f"no energy: {lost:.1f} s without a reading, {LONGEST_GAP_S:g} s is allowed"
    return ""


def _figures(
    traces: Sequence[Trace], parts: Sequence[Part], notes: list[str]
) -> dict[str, float | None]:
    n, seconds = sum(p.n for p in parts), sum(p.timed.seconds for p in parts)
    gross = idle = doubt = apart = 0.0
    cut, idle_of_cut = [], []
    for trace, part in _pairs(traces, parts):
        # the sensor rests between the parts: what lies outside of a window says nothing about it
        busy = trace.within(part.timed.begin_s, part.timed.end_s)
        levels = [trace.within(w.begin_s, w.end_s).mean(w.begin_s, w.end_s) for w in part.idle]
        level, spread = fmean(levels), max(levels) - min(levels)
        gross += busy.joules(part.timed.begin_s, part.timed.end_s)
        idle += level * part.timed.seconds
        doubt += spread / 2 * part.timed.seconds
        apart = max(apart, spread)
        here = list(blocks(busy, part.timed, part.starts_s, BLOCK_S))
        cut += here
        idle_of_cut += [level] * len(here)
    low, high = bootstrap(cut, idle_of_cut)
    above = abs(gross - idle) / seconds
    notes.append(
        "interval of net: bootstrap over blocks of 5 s, widened by half the difference of the idle "
        "levels; without the error of the meter itself"
    )
    if apart > 0.05 * above:
        notes.append(f"idle before and after differ by {apart:.2f} W; the model adds {above:.2f} W")
    if low - doubt / n <= 0:
        notes.append("net cannot be told from zero")
    return {
        "idle_w": idle / seconds,
        "busy_w": gross / seconds,
        "gross_j": gross / n,
        "net_j": (gross - idle) / n,
        "net_low": low - doubt / n,
        "net_high": high + doubt / n,
    }


def _per_hour(result: dict[str, Any], runs: Sequence[Run], notes: list[str]) -> None:
    fps, scope = result["fps"], result["scope"]
    late = sum(timed.get("late") or 0 for timed in events.all_of(runs, "timed"))
    n = sum(timed.get("n") or 0 for timed in events.all_of(runs, "timed"))
    if fps is not None and late:
        notes.append(
            f"{late} of {n} inferences began late: the board does not hold {fps:g} a second"
        )
    battery = result["battery_wh"]
    if battery is None or not result["wh_per_hour"] > 0:
        return
    hours = battery / result["wh_per_hour"]
    if scope in WHOLE:
        result["hours_on_battery"] = hours
        if scope == "wall":
            notes.append("hours on battery: at least, as the meter also sees the power supply")
    else:
        missed = MISSED.get(scope or "", "a part of the board")
        notes.append(
            f"on a battery of {battery:g} Wh at most {hours:.1f} h: the sensor misses {missed}"
        )


def _estimate(result: dict[str, Any], fit: Fit, seconds_each: float) -> dict[str, Any]:
    """Return the figures for the whole board by a published line; never beside those of meters."""
    return {
        "scope": "estimate",
        "source": fit.source,
        "idle_w": fit.slope * result["idle_w"] + fit.offset_w,
        "busy_w": fit.slope * result["busy_w"] + fit.offset_w,
        "gross_j": fit.slope * result["gross_j"] + fit.offset_w * seconds_each,
        "net_j": fit.slope * result["net_j"],
    }

"""The state that a figure was taken in: clocks, heat, supply, interference, what cannot be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from edgessl.devices import events
from edgessl.devices.events import Run

if TYPE_CHECKING:
    from edgessl.devices.protocol import Preset

ROTATION = 64  # different inputs, so that no cache holds the one image
SLOWDOWN = 0.05
CPU_PROVIDER = "CPUExecutionProvider"
LOCK_HELD = 0.97  # of a locked clock; what is below was lowered by heat or supply
FEW_PAGES = 1.0  # a second: an SD card brings a page in 0.7 ms, so this takes 0.1 % of the time


def conditions(runs: Sequence[Run], preset: Preset) -> Iterable[str]:
    """Yield one line for each thing a reader of the figure should know; none invalidates it."""
    facts = next(iter(events.all_of(runs, "facts")), {})
    policies = facts.get("policies", {})
    if governors := sorted({p["governor"] for p in policies.values() if p["governor"]}):
        yield f"governor: {', '.join(governors)}"
    yield from _clocks(runs, policies)
    yield from _locks(runs, policies)
    yield from _temperatures(runs)
    affinity, cores = facts.get("affinity"), facts.get("cores")
    if affinity and cores and len(affinity) < cores and not any(events.all_of(runs, "android")):
        yield f"bound to cores {', '.join(map(str, affinity))} of {cores}"
    if facts.get("virtual_machine"):
        yield f"virtual machine ({facts['virtual_machine']})"
    for name, state in facts.get("power_supplies", {}).items():
        yield f"power supply {name}: {state}"
    for repeat, run in enumerate(runs, 1):
        where = f" in repeat {repeat}" if len(runs) > 1 else ""
        yield from _conditions_of(run, preset, where)
    if absent := facts.get("not_observable"):
        yield f"not observable here: {', '.join(absent)}"


def _conditions_of(run: Run, preset: Preset, where: str) -> Iterable[str]:
    others, waited = events.interference(run)
    seen = [f"others {others:.1%} of the cores"] if others is not None else []
    seen += [f"waiting for a core {waited:.1%}"] if waited is not None else []
    if seen:
        yield f"interference{where}: {', '.join(seen)}"
    samples = events.samples_ms(run)
    values = samples.get("infer", [])
    if beyond := events.outliers(values):
        first = samples["at_s"][beyond[0]]
        yield (
            f"{len(beyond)} of {len(values)} infer samples beyond median + 5 MAD{where} (kept), "
            f"the first at {first:.1f} s"
        )
    if events.last(run, "warmup").get("settled") is False:
        yield f"warm-up had not settled after {preset.warmup_cap_s:g} s{where}"
    timed = events.last(run, "timed")
    inputs = timed.get("inputs", ROTATION)
    if inputs < ROTATION:
        yield f"{inputs} different inputs were rotated, {ROTATION} are wanted"
    if late := timed.get("late"):
        yield f"{late} of {timed.get('n')} inferences began late{where}: the rate is not held"
    yield from _backend(run, where)
    threads, cores = events.last(run, "loaded").get("threads"), usable_cores(run)
    if threads and cores and threads > cores:
        yield f"{threads} threads on {cores} cores: they wait for each other"
    pages = swapped_a_second(run)
    if pages and pages <= FEW_PAGES:
        yield f"{pages:.2f} pages a second were swapped{where}"
    if preset.bin_s and values:
        yield _sustained(run, preset)


def _backend(run: Run, where: str) -> Iterable[str]:
    """Yield what ran beside the first provider; what fell to the CPU has a verdict of its own."""
    loaded = events.last(run, "loaded")
    if loaded and loaded.get("providers") is None:
        yield f"not observable here: which backend ran{where}"
        return
    nodes = (loaded.get("placement") or {}).get("nodes", {})
    first = next(iter(loaded.get("providers") or ()), "")
    for name, n in nodes.items():
        if n and nodes.get(first) and name not in (first, CPU_PROVIDER):
            yield f"{n} of {sum(nodes.values())} nodes ran on {name}, not on {first}{where}"


def usable_cores(run: Run) -> int | None:
    """Return the number of cores that the model may run on; None where it was not told."""
    facts = events.last(run, "facts")
    usable = facts.get("affinity")
    return len(usable) if isinstance(usable, list) and usable else facts.get("cores")


def swapped_a_second(run: Run) -> float | None:
    """Return pages swapped a second while samples were taken; None where it was not seen."""
    start, end = events.telemetry(run, "start"), events.telemetry(run, "end")
    if not start or not end or end["t"] <= start["t"]:
        return None
    pages = events.difference(start, end, "swap_pages")
    return None if pages is None else pages / (end["t"] - start["t"])


@dataclass(frozen=True, slots=True)
class Sustained:
    """A long run: milliseconds of ``infer`` at both ends, and when it slowed down.

    Attributes:
        first_ms: Median of the first minute.
        last_ms: Median of the last minute.
        since_s: Begin of the first bin that is 5 % slower than the first bin; None without one.
    """

    first_ms: float
    last_ms: float
    since_s: float | None


def sustained(run: Run, bin_s: float) -> Sustained | None:
    """Return both ends of a long run; None without samples.

    Args:
        run: Events of one process.
        bin_s: Length of a bin, seconds.
    """
    samples = events.samples_ms(run)
    at_s, values = samples.get("at_s"), samples.get("infer")
    if not at_s or not values:
        return None
    minute = min(60.0, at_s[-1] / 2)
    first = median(v for t, v in zip(at_s, values, strict=True) if t <= minute)
    last = median(v for t, v in zip(at_s, values, strict=True) if t >= at_s[-1] - minute)
    bins = [b for b in events.bin_medians(run, bin_s) if b["p50"]]
    fresh = bins[0]["p50"] if bins else None
    slower = [b["start_s"] for b in bins if fresh and (b["p50"] or 0) > fresh * (1 + SLOWDOWN)]
    return Sustained(first, last, slower[0] if slower else None)


def _sustained(run: Run, preset: Preset) -> str:
    ends = sustained(run, preset.bin_s)
    assert ends is not None
    change = ends.last_ms / ends.first_ms - 1
    text = (
        f"sustained: {ends.first_ms:.3g} ms in the first minute, {ends.last_ms:.3g} ms in the last:"
        f" {change:+.1%}"
    )
    if ends.since_s is None:
        return f"{text}, no slowdown"
    return f"{text}, slowed down, since {ends.since_s:g} s"


def _clocks(runs: Sequence[Run], policies: Mapping[str, Any]) -> Iterable[str]:
    for name, policy in policies.items():
        seen = _clock_readings(runs, name)
        if seen:
            top = f" of at most {policy['max_mhz']} MHz" if policy["max_mhz"] else " MHz"
            yield f"clock {name}: {min(seen)} to {max(seen)}{top} while timed"


def _locks(runs: Sequence[Run], policies: Mapping[str, Any]) -> Iterable[str]:
    """Yield locked clocks, and those that did not hold; other clocks may move as they like."""
    for name, policy in policies.items():
        top = policy.get("max_mhz")
        if not top or policy.get("min_mhz") != top:
            continue
        seen = _clock_readings(runs, name)
        slowest = min(seen, default=top)
        lost = "" if slowest >= LOCK_HELD * top else f", which did not hold: {slowest} MHz"
        yield f"clock {name} is locked to {top} MHz{lost}"


def _clock_readings(runs: Sequence[Run], policy: str) -> list[int]:
    return [
        mhz
        for tel in events.all_of(runs, "tel")
        if tel["phase"] in ("start", "during", "end") and (mhz := tel["freq_mhz"].get(policy))
    ]


def _temperatures(runs: Sequence[Run]) -> Iterable[str]:
    hottest = [max(t["temp_c"].values()) for t in events.all_of(runs, "tel") if t["temp_c"]]
    if hottest:
        yield f"temperature: {hottest[0]:.1f} C at the start, {max(hottest):.1f} C at the hottest"

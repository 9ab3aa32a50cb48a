"""The state that a figure was taken in: clocks, heat, supply, interference, what cannot be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from edgessl.devices import events
from edgessl.devices.events import Run

if TYPE_CHECKING:
    from edgessl.devices.protocol import Preset

ROTATION = 64  # different inputs, so that no cache holds the one image
SLOWDOWN = 0.05


def conditions(runs: Sequence[Run], preset: Preset) -> Iterable[str]:
    """Yield one line for each thing a reader of the figure should know; none invalidates it."""
    facts = next(iter(events.all_of(runs, "facts")), {})
    policies = facts.get("policies", {})
    if governors := sorted({p["governor"] for p in policies.values() if p["governor"]}):
        yield f"governor: {', '.join(governors)}"
    yield from _clocks(runs, policies)
    yield from _temperatures(runs)
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
    inputs = events.last(run, "timed").get("inputs", ROTATION)
    if inputs < ROTATION:
        yield f"{inputs} different inputs were rotated, {ROTATION} are wanted"
    if preset.bin_s and values:
        yield _sustained(run, preset)


def _sustained(run: Run, preset: Preset) -> str:
    samples = events.samples_ms(run)
    at_s, values = samples["at_s"], samples["infer"]
    minute = min(60.0, at_s[-1] / 2)
    first = median(v for t, v in zip(at_s, values, strict=True) if t <= minute)
    last = median(v for t, v in zip(at_s, values, strict=True) if t >= at_s[-1] - minute)
    change = last / first - 1
    if change <= SLOWDOWN:
        return f"sustained: last against first minute {change:+.1%}, no slowdown"
    bins = events.bin_medians(run, preset.bin_s)
    since = next(
        (b["start_s"] for b in bins if b["p50"] and b["p50"] > first * (1 + SLOWDOWN)), None
    )
    when = "" if since is None else f", since {since:g} s"
    return f"sustained: last against first minute {change:+.1%}, slowed down{when}"


def _clocks(runs: Sequence[Run], policies: Mapping[str, Any]) -> Iterable[str]:
    for name, policy in policies.items():
        seen = [
            mhz
            for tel in events.all_of(runs, "tel")
            if tel["phase"] in ("start", "during", "end") and (mhz := tel["freq_mhz"].get(name))
        ]
        if seen:
            top = f" of at most {policy['max_mhz']} MHz" if policy["max_mhz"] else " MHz"
            yield f"clock {name}: {min(seen)} to {max(seen)}{top} while timed"


def _temperatures(runs: Sequence[Run]) -> Iterable[str]:
    hottest = [max(t["temp_c"].values()) for t in events.all_of(runs, "tel") if t["temp_c"]]
    if hottest:
        yield f"temperature: {hottest[0]:.1f} C at the start, {max(hottest):.1f} C at the hottest"

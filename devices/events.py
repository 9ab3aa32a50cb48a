"""Reading what the agent said: samples by part, bins, what others took. Nothing is dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from edgessl.core.measurement import PERCENTILE_FLOORS

Event = Mapping[str, Any]
Run = Sequence[Event]


def of_kind(run: Run, kind: str) -> Iterable[Event]:
    """Return the events of one kind."""
    return (event for event in run if event["k"] == kind)


def all_of(runs: Sequence[Run], kind: str) -> Iterable[Event]:
    """Return the events of one kind of all runs."""
    return chain.from_iterable(of_kind(run, kind) for run in runs)


def last(run: Run, kind: str) -> Event:
    """Return the last event of a kind; empty when there is none."""
    return next((event for event in reversed(run) if event["k"] == kind), {})


def telemetry(run: Run, phase: str) -> Event:
    """Return the first telemetry of a phase; empty when there is none."""
    return next((e for e in of_kind(run, "tel") if e["phase"] == phase), {})


def difference(start: Event, end: Event, name: str) -> float | None:
    """Return how much a cumulative counter grew; None where it was not seen."""
    a, b = start.get(name), end.get(name)
    return None if a is None or b is None else b - a


def slept_s(run: Run) -> float | None:
    """Return for how long the board was suspended while samples were taken; None if unseen.

    The monotonic clock stands still meanwhile, but what follows is another board: cold, at other
    clocks. Below half a second the reader was only interrupted between the two clocks.
    """
    start, end = telemetry(run, "start"), telemetry(run, "end")
    seconds = difference(start, end, "slept_s")
    return seconds if seconds is None or seconds >= 0.5 else 0.0


def samples_ms(run: Run) -> dict[str, list[float]]:
    """Return milliseconds by part in time order, with ``at_s``: seconds since the first."""
    parts: dict[str, list[float]] = {}
    for event in of_kind(run, "lat"):
        parts.setdefault("at_s", []).extend(us / 1e6 for us in event["at_us"])
        for name, values in event["ns"].items():
            parts.setdefault(name, []).extend(ns / 1e6 for ns in values)
    return parts


def outliers(values: Sequence[float]) -> list[int]:
    """Return the positions beyond median + 5 MAD: points to count, never to drop."""
    if not values:
        return []
    middle = median(values)
    limit = middle + 5 * median(abs(v - middle) for v in values)
    return [i for i, v in enumerate(values) if v > limit]


def bin_medians(run: Run, bin_s: float) -> list[dict[str, float | int | None]]:
    """Return start, count and p50 (ms of ``infer``) of each bin of a sustained run.

    The median of a bin with fewer samples than p50 needs is None.
    """
    samples = samples_ms(run)
    bins: dict[int, list[float]] = {}
    for at_s, value in zip(samples.get("at_s", []), samples.get("infer", []), strict=True):
        bins.setdefault(int(at_s // bin_s), []).append(value)
    floor = PERCENTILE_FLOORS["p50"]
    return [
        {"start_s": i * bin_s, "n": len(v), "p50": median(v) if len(v) >= floor else None}
        for i, v in sorted(bins.items())
    ]


def interference(run: Run) -> tuple[float | None, float | None]:
    """Return what others took while samples were taken; None where it cannot be seen.

    First, the CPU time of all other processes (and of the hypervisor) as a share of all cores:
    the part of a core that is lost wherever the threads of the model are placed. Second, the
    share of the time in which those threads were ready but waited for a core.
    """
    start, end, facts = telemetry(run, "start"), telemetry(run, "end"), last(run, "facts")
    loaded = last(run, "loaded")
    if not start or not end or end["t"] <= start["t"]:
        return None, None
    wall = end["t"] - start["t"]
    others = difference(start, end, "busy_s")
    if others is not None:
        own = difference(start, end, "own_s") or 0.0
        own += difference(start, end, "helpers_s") or 0.0  # probes and meter are ours, too
        others = max(0.0, others - own) / (wall * (facts.get("cores") or 1))
    waited = difference(start, end, "wait_s")
    if waited is not None:
        waited = max(0.0, waited) / (wall * (loaded.get("threads") or 1))
    return others, waited

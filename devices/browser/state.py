"""What is special about figures from a browser: its clock, its threads, its tab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from edgessl.devices import events
from edgessl.devices.base import Traits
from edgessl.devices.events import Run
from edgessl.devices.protocol import Finding

RESOLVED = 50  # steps of the clock that a sample must last: 2 %


def conditions(runs: Sequence[Run]) -> Iterable[str]:
    """Yield what a reader of a browser's figure should know."""
    facts = next(iter(events.all_of(runs, "facts")), {})
    yield f"browser: {facts.get('browser')} on {facts.get('board') or facts.get('cpu')}"
    if not facts.get("secure_context"):
        yield "the address of the page was not a secure one: one thread and a coarse clock"
    elif not facts.get("cross_origin_isolated"):
        yield "the page was not isolated from others: one thread and a coarse clock"
    for repeat, run in enumerate(runs, 1):
        where = f" in repeat {repeat}" if len(runs) > 1 else ""
        yield from _of_one(run, where)
    yield "load includes the start of the WebAssembly runtime"


def findings(runs: Sequence[Run]) -> Iterable[Finding]:
    """Yield why a browser's figure is not what it claims."""
    for run in runs:
        asked, used = events.last(run, "plan").get("threads"), events.last(run, "loaded")
        if asked and used and used["threads"] != asked:
            yield (
                "WRONG_BACKEND",
                f"asked for {asked} threads, ran with {used['threads']}: {_why_not(run)}",
            )
        if _hidden_while_timed(run):
            yield "UNSTABLE", "the page was not in front all the time while samples were taken"
        steps = _steps(run)
        if steps is not None and steps < RESOLVED:
            yield (
                "TOO_SHORT",
                f"a sample lasts {steps:.0f} steps of the browser's clock, {RESOLVED} are needed",
            )


def _of_one(run: Run, where: str) -> Iterable[str]:
    step, timed = events.last(run, "loaded").get("clock_step_us"), events.last(run, "timed")
    if step is not None:
        yield f"clock of the browser{where}: steps of {step:.3g} us"
    block = timed.get("block", 1)
    if block > 1:
        yield (
            f"each sample{where} is the mean of {block} inferences in a row, copies included, as "
            f"the clock cannot time one: percentiles are of {timed['n']} blocks, "
            f"{timed['n'] * block} inferences"
        )
    if _hidden_while_timed(run):
        yield f"the page was hidden for some of the time{where}: browsers slow such pages down"


def _why_not(run: Run) -> str:
    facts: Any = events.last(run, "facts")
    if not facts.get("secure_context"):
        return "the address of the page is not a secure one (https, or localhost)"
    if not facts.get("cross_origin_isolated"):
        return "the page is not isolated from others"
    return "this browser or this runtime starts no more"


def _hidden_while_timed(run: Run) -> bool:
    hidden = timed = False
    for event in run:
        if event["k"] == "tab":
            hidden = event.get("hidden") is True
        elif event["k"] == "tel" and event["phase"] in ("start", "end"):
            timed = event["phase"] == "start"
        if hidden and timed:
            return True
    return False


def _steps(run: Run) -> float | None:
    values = events.samples_ms(run).get("infer")
    step = events.last(run, "loaded").get("clock_step_us")
    if not values or not step:
        return None
    return median(values) * 1000 * events.last(run, "timed").get("block", 1) / step


TRAITS = Traits(
    no_meter=lambda _facts: "a browser tells nothing about power",
    conditions=conditions,
    findings=findings,
)

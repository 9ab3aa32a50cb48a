"""Timing several things in turn, for the benchmarks of training: what they all write down."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from edgessl.core.runs import machine_facts
from edgessl.core.statistics import percentile_interval

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds of every turn: on the clock, and of this process on its cores."""

    wall: list[float]
    cpu: list[float]


def in_turn(
    work: Mapping[str, Callable[[], Any]], turns: int, *, warm_up: int = 2
) -> dict[str, Took]:
    """Run all of ``work`` once in every turn, forwards and backwards in alternation."""
    took = {name: Took([], []) for name in work}
    names = list(work)
    for turn in range(warm_up + turns):
        for name in names if turn % 2 else names[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            work[name]()
            if turn >= warm_up:
                took[name].wall.append(1e3 * (time.perf_counter() - wall))
                took[name].cpu.append(1e3 * (time.process_time() - cpu))
        print(f"turn {turn + 1} of {warm_up + turns}", file=sys.stderr)
    return took


def ratio(times: Mapping[str, Took], above: str, below: str) -> dict[str, Any]:
    """Return medians and the median of the paired ratios, with a 95 % interval."""
    values: dict[str, Any] = {"pair": f"{above} / {below}"}
    for clock in ("wall", "cpu"):
        a, b = (getattr(times[name], clock) for name in (above, below))
        ratios = [x / y for x, y in zip(a, b, strict=True)]
        low, high = percentile_interval(ratios, 0.5) or (None, None)
        values |= {
            f"{clock}_ms": [round(median(a), 3), round(median(b), 3)],
            f"{clock}_ratio": round(median(ratios), 3),
            f"{clock}_ratio_low": None if low is None else round(low, 3),
            f"{clock}_ratio_high": None if high is None else round(high, 3),
        }
    return values


def conditions() -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "torchvision")},
        "cpu": machine_facts()["cpu"] or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def write(name: str, body: dict[str, Any], *, save: bool) -> None:
    """Print a result; put it into the folder of results too when asked."""
    body["load_1min_after"] = round(os.getloadavg()[0], 2)
    text = json.dumps(body, indent=1)
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text + "\n")

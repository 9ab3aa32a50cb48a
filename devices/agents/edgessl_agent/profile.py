"""The time of each layer, in a pass of its own: profilers slow down what they watch."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

WARM, LEAST, MOST, CAP_S = 3, 5, 50, 20.0


def profile(model: Any, inputs: list[Any]) -> dict[str, Any]:
    """Run the model and return the table of its layers.

    Returns:
        ``rows`` in the order they ran, each with the median in microseconds and the share of the
        sum of all medians; no rows and the reason in ``note`` where the runtime tells none.
    """
    begin, runs = time.monotonic(), 0
    while runs < WARM + LEAST or (runs < WARM + MOST and time.monotonic() - begin < CAP_S):
        model.run(inputs[runs % len(inputs)])
        runs += 1
    told = model.layers()
    if isinstance(told, str):
        return {"unit": "us", "runs": 0, "rows": [], "note": told}
    return {"unit": "us", "runs": runs - WARM, "rows": table(told, runs), "note": ""}


def table(told: list[tuple[str, str, float]], runs: int) -> list[dict[str, Any]]:
    """Return one row for each layer of what all runs told, without the runs that only warm up.

    Layers of one name are told apart by their place in a run.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for name, operator, us in told:
        times.setdefault((name, operator), []).append(us)
    medians = []
    for (name, operator), values in times.items():
        twins = max(1, len(values) // runs)
        for place in range(twins):
            own = values[place::twins]
            medians.append((name, operator, median(own[WARM:] or own)))
    whole = sum(us for _, _, us in medians) or 1.0
    return [
        {"name": name, "op": operator, "p50": us, "share": us / whole}
        for name, operator, us in medians
    ]

"""Where a bench lies in the log of a power meter.

The clocks of meter and board are not the same, so the two are laid over each other by the step in
power between idle and busy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgessl.devices.power import Trace, Window

GRID_S = 0.1
SMOOTH_STEPS = 11  # about a second: a duty cycle is faster, the step from idle to busy is not
CLEAR = 4.0  # the step must be this many times the spread within idle and busy
APART_S = 5.0  # two places this far apart are two places
RIVAL = 0.95  # no other place may fit this well, as a share of the best
FLAT = 1e-3  # places that differ by less fit equally well


def aligned(
    trace: Trace, idle: Sequence[Window], busy: Sequence[Window]
) -> tuple[float | None, str]:
    """Find where the bench lies in the log of a meter.

    Tries every place in steps of 0.1 s and keeps the one where two levels, idle and busy, explain
    most of the variance inside the windows; each level weighs the same, however long it lasted.
    The log must hold all windows.

    Args:
        trace: Of the meter, on its own clock.
        idle: Windows of the board's clock in which it did nothing.
        busy: Windows in which it was timed.

    Returns:
        The seconds to add to the meter's clock, and how it was found; or None and why not.
    """
    if not idle or not busy:
        return None, "there is no idle part to find the step in power by"
    begin = min(w.begin_s for w in (*idle, *busy))
    took = max(w.end_s for w in (*idle, *busy)) - begin
    length = float(trace.at_s[-1] - trace.at_s[0])
    if length < took:
        return None, f"the log of the meter has {length:.0f} s, the bench took {took:.0f} s"
    places = trace.at_s[0] + np.arange(0.0, length - took + GRID_S / 2, GRID_S)
    grid = trace.at_s[0] + np.arange(0.0, length + GRID_S, GRID_S)
    power = _smooth(np.interp(grid, trace.at_s, trace.watts))
    low, low_spread = _level(grid, power, places - begin, idle)
    high, high_spread = _level(grid, power, places - begin, busy)
    step, spread = high - low, (low_spread + high_spread) / 2
    between = np.where(step > 0, step**2 / 4, 0.0)
    explained = between / np.maximum(between + spread, 1e-12)
    best = int(np.argmax(explained))
    clear = float(step[best] / np.sqrt(max(spread[best], 1e-12)))
    if step[best] <= 0 or clear < CLEAR:
        return None, (
            "the log of the meter shows no clear step in power between idle and busy (the best is "
            f"{step[best]:.2f} W, {max(0.0, clear):.1f} times the spread; {CLEAR:g} are wanted)"
        )
    # the board may pause between two parts, and then a stretch of places fits equally well: in all
    # of them the timed windows lie on busy power
    worse = np.flatnonzero(explained < RIVAL * explained[best])
    first = max((int(i) + 1 for i in worse[worse < best][-1:]), default=0)
    last = min((int(i) - 1 for i in worse[worse > best][:1]), default=len(places) - 1)
    apart = round(APART_S / GRID_S)
    rivals = np.concatenate([explained[: max(0, first - apart)], explained[last + apart + 1 :]])
    if len(rivals) and rivals.max() > RIVAL * explained[best]:
        others = np.flatnonzero(explained > RIVAL * explained[best])
        others = others[(others < first - apart) | (others > last + apart)]
        seconds = abs(float(places[others[0]] - places[best]))
        return None, (
            f"the bench fits the log of the meter at two places, {seconds:.0f} s apart; cut the "
            "log to this bench"
        )
    flat = places[first : last + 1][explained[first : last + 1] >= explained[best] - FLAT]
    return begin - float(flat.mean()), f"laid over the bench by its step of {step[best]:.2f} W"


def _smooth(power: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(power, SMOOTH_STEPS // 2, mode="edge")
    return np.convolve(padded, np.full(SMOOTH_STEPS, 1 / SMOOTH_STEPS), "valid")


def _level(
    grid: NDArray[np.float64],
    power: NDArray[np.float64],
    shifts: NDArray[np.float64],
    windows: Sequence[Window],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of power inside the windows, for each shift of them."""
    centred = power - power.mean()  # so that the difference of two large sums keeps its digits
    first, second = np.zeros_like(shifts), np.zeros_like(shifts)
    for values, total in ((centred, first), (centred**2, second)):
        sums = np.concatenate([[0.0], np.cumsum(values[:-1]) * GRID_S])
        for window in windows:
            total += np.interp(shifts + window.end_s, grid, sums)
            total -= np.interp(shifts + window.begin_s, grid, sums)
    seconds = sum(window.seconds for window in windows)
    mean = first / seconds
    return mean + power.mean(), np.maximum(second / seconds - mean**2, 0.0)

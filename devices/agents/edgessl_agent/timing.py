"""The two loops of a bench: warm-up to steadiness, and the samples themselves."""

from __future__ import annotations

import gc
import time
from typing import Any, Callable

clock = time.monotonic_ns
CHUNK = 4096  # samples in one line, so that no line grows without bound
Sample = Callable[[Any], "dict[str, int]"]
Send = Callable[[str, "dict[str, Any]"], None]


class Schedule:
    """When the next inference is due; without a rate, at once.

    Args:
        timing: Floors and caps of the plan.
        fps: Inferences a second; None for one after the other.
    """

    def __init__(self, timing: dict[str, Any], fps: float | None) -> None:
        self.timing, self._period = timing, int(1e9 / fps) if fps else 0
        self._due, self.late = 0, 0

    def begin(self) -> None:
        """Make the first inference due now."""
        self._due, self.late = clock(), 0

    def wait(self) -> None:
        """Sleep until the next is due; one that begins late moves all that follow."""
        if not self._period:
            return
        now = clock()
        if now <= self._due:
            time.sleep((self._due - now) / 1e9)
            self._due += self._period
        else:
            # the first is due the moment it is asked for
            self.late += now - self._due > self._period // 10
            self._due = now + self._period


def warm_up(sample: Sample, images: list[Any], schedule: Schedule, send: Send) -> dict[str, Any]:
    """Run until the floors are met and, if asked, two windows in a row agree."""
    t, runs, settled = schedule.timing, 0, None
    schedule.begin()
    begin = window_begin = told = time.monotonic()
    window: list[int] = []
    medians: list[float] = []
    while True:
        schedule.wait()
        window.append(sample(images[runs % len(images)])["infer"])
        runs += 1
        now = time.monotonic()
        floors = runs >= t["warmup_runs"] and now - begin >= t["warmup_s"]
        if floors and not t["settle_window_s"]:
            break
        if now - begin >= t["warmup_cap_s"]:
            settled = False
            break
        if floors and now - window_begin >= t["settle_window_s"]:
            medians.append(sorted(window)[len(window) // 2])
            window, window_begin = [], now
            if len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) < t["settle_within"]:
                settled = True
                break
        elif not floors:
            window, window_begin = [], now
        if now - told >= 1:
            told = now
            send("warmup", {"runs": runs, "s": now - begin, "done": False})
    seconds = time.monotonic() - begin
    return {"runs": runs, "s": seconds, "done": True, "settled": settled}


def take_samples(
    sample: Sample,
    images: list[Any],
    schedule: Schedule,
    send: Send,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Take the samples; lines are written and sensors read between samples, never inside."""
    t, count, sent = schedule.timing, 0, 0
    at_us: list[int] = []
    parts: dict[str, list[int]] = {}
    gc.collect()
    gc.disable()  # as timeit does: a collection is not the model's time
    schedule.begin()
    begin = told = now = clock()
    while (count < t["timed_runs"] or now - begin < t["timed_s"] * 1e9) and (
        now - begin < t["timed_cap_s"] * 1e9
    ):
        schedule.wait()
        at_us.append((clock() - begin) // 1000)
        for name, ns in sample(images[count % len(images)]).items():
            parts.setdefault(name, []).append(ns)
        count += 1
        now = clock()
        if now - told >= 1e9 or len(at_us) >= CHUNK:
            send("lat", {"first": sent, "at_us": at_us, "ns": parts})
            sent, at_us, parts = count, [], {}
            if now - told >= 1e9:
                tell("during")
                told = clock()
            now = clock()
    end = now
    if at_us:
        send("lat", {"first": sent, "at_us": at_us, "ns": parts})
    gc.enable()
    return {
        "n": count,
        "s": (end - begin) / 1e9,
        "inputs": len(images),
        "begin_ns": begin,
        "end_ns": end,
        "late": schedule.late,
    }

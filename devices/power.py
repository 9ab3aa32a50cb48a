"""Power over time: integrals over a window, what is missing in it, blocks for an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONGEST_GAP_S = 1.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Readings of power in time order; between two readings power is a straight line.

    Attributes:
        at_s: (N,) float64 seconds of one clock, strictly rising.
        watts: (N,) float64.
    """

    at_s: NDArray[np.float64]
    watts: NDArray[np.float64]

    @classmethod
    def of(cls, at_s: Sequence[float], watts: Sequence[float]) -> Trace:
        """Sort readings; those at the same moment are averaged, what is not finite is left out."""
        t, w = np.asarray(at_s, np.float64), np.asarray(watts, np.float64)
        kept = np.isfinite(t) & np.isfinite(w)
        moments, where, counts = np.unique(t[kept], return_inverse=True, return_counts=True)
        return cls(moments, np.bincount(where, w[kept], len(moments)) / np.maximum(counts, 1))

    def within(self, begin_s: float, end_s: float) -> Trace:
        """Return the readings of a window alone, so that nothing outside of it is looked at."""
        inside = (self.at_s >= begin_s) & (self.at_s <= end_s)
        return Trace(self.at_s[inside], self.watts[inside])

    def joules(self, begin_s: float, end_s: float) -> float:
        """Return the integral by the trapezoid rule; the edges are interpolated.

        Beyond the first and last reading, power is taken to be theirs.
        """
        middle = self.at_s[(self.at_s > begin_s) & (self.at_s < end_s)]
        t = np.concatenate([[begin_s], middle, [end_s]])
        w = np.interp(t, self.at_s, self.watts)
        return float(np.sum(np.diff(t) * (w[:-1] + w[1:]) / 2))

    def mean(self, begin_s: float, end_s: float) -> float:
        """Return the mean watts of a window."""
        return self.joules(begin_s, end_s) / (end_s - begin_s)

    def count(self, begin_s: float, end_s: float) -> int:
        """Return the number of readings in a window."""
        return int(np.count_nonzero((self.at_s >= begin_s) & (self.at_s <= end_s)))

    def longest_gap_s(self, begin_s: float, end_s: float) -> float:
        """Return the longest stretch of a window without a reading."""
        inside = self.at_s[(self.at_s >= begin_s) & (self.at_s <= end_s)]
        return float(np.diff(np.concatenate([[begin_s], inside, [end_s]])).max())

    def shifted(self, seconds: float) -> Trace:
        """Return the same readings, ``seconds`` later."""
        return Trace(self.at_s + seconds, self.watts)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, seconds of the board's monotonic clock."""

    begin_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of a timed window took: joules, inferences that began in it, seconds."""

    joules: float
    n: int
    seconds: float


def blocks(
    trace: Trace, window: Window, starts_s: Sequence[float], length_s: float
) -> Iterable[Block]:
    """Cut a window into equal blocks of about ``length_s``.

    Args:
        trace: Power, on the clock of the window.
        window: The timed part.
        starts_s: When each inference began, on the same clock.
        length_s: Wanted length; the blocks divide the window without a rest.
    """
    count = max(1, round(window.seconds / length_s))
    edges = np.linspace(window.begin_s, window.end_s, count + 1)
    began, _ = np.histogram(np.asarray(starts_s, np.float64), edges)
    for begin, end, n in zip(edges[:-1], edges[1:], began, strict=True):
        yield Block(trace.joules(float(begin), float(end)), int(n), float(end - begin))


def bootstrap(
    parts: Sequence[Block], idle_w: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of net joules an inference, by resampling blocks.

    Neighbouring readings are alike, so blocks of several seconds are drawn, not readings.

    Args:
        parts: Blocks of all timed windows.
        idle_w: Idle watts that belong to each block.
        confidence: In (0, 1).
    """
    joules = np.array([p.joules - w * p.seconds for p, w in zip(parts, idle_w, strict=True)])
    n = np.array([p.n for p in parts], np.float64)
    drawn = np.random.default_rng(0).integers(0, len(parts), (4000, len(parts)))
    counts = n[drawn].sum(1)
    means = joules[drawn].sum(1)[counts > 0] / counts[counts > 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)

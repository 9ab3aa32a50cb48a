"""Plots of raw samples: their distributions and their order in time; small SVG, no scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from edgessl.report.svg import (
    Axis,
    figure,
    horizontal_grid,
    pc,
    stretched,
    tag,
    upright_line,
    vertical_grid,
    words_at,
)

SHOWN_POINTS = 2000  # more samples than this are drawn in groups, and the caption says so
BINS = 60
SIDE_BY_SIDE = 46  # characters that fit on a line of a phone
WIDE = 12  # a span of samples from which on an axis is logarithmic


@dataclass(frozen=True, slots=True)
class Distribution:
    """The samples of one bench (ms) with the percentiles that may be claimed of them."""

    label: str
    text: str
    samples: Sequence[float]
    percentiles: dict[str, float]
    solid: bool = True


def distributions(title: str, rows: Sequence[Distribution]) -> tuple[Markup, str]:
    """Draw the samples of several benches on one axis; returns what to know of it.

    Each row has its own height; on a logarithmic axis the bins are of equal ratio.
    """
    axis = sample_axis([row.samples for row in rows])
    # where label and figure do not fit side by side, the figure has a line of its own
    second = 17 * any(len(row.label) + len(row.text) > SIDE_BY_SIDE for row in rows)
    step, top = 62 + second, 6
    bottom = top + step * len(rows)
    parts = vertical_grid(axis, top, bottom, " ms")
    beyond = 0
    for index, row in enumerate(rows):
        y = top + step * index
        inside = [axis.at(v) for v in row.samples if axis.low <= v <= axis.high]
        beyond += len(row.samples) - len(inside)
        parts.append(words_at(0, y + 15, row.label, "label"))
        parts.append(words_at(100, y + 15 + second, row.text, "value", anchor="end"))
        y += second
        shape = tag("path", d=_outline(inside), class_="hill" if row.solid else "hill hollow")
        parts.append(stretched(y + 22, step - second - 26, [shape]))
        for name, value in row.percentiles.items():
            kind = "rule" if name == "p50" else "rule dotted"
            parts.append(upright_line(axis.at(value), y + 22, y - second + step - 4, kind))
    text = "; ".join(f"{row.label}: {row.text}" for row in rows)
    notes = ["Logarithmic axis; the bins have equal ratios."] if axis.log else []
    if beyond:
        notes.append(f"{beyond:,} samples lie beyond the axis.")
    return figure(title, f"{title}. {text}", bottom + 24, parts), " ".join(notes)


def _outline(places: Sequence[float]) -> str:
    """Return the outline of a histogram of places in percent, in a 1000 x 1000 box."""
    counts = [0] * (2 * BINS)
    for place in places:
        counts[min(len(counts) - 1, int(place / 100 * len(counts)))] += 1
    highest = max(counts, default=0) or 1
    width = 1000 / len(counts)
    path, level = "M0 1000", 0
    for index, number in enumerate(counts):
        if number != level:
            path += f"H{index * width:.4g}V{1000 - 1000 * number / highest:.4g}"
            level = number
    return f"{path}H1000V1000z"


def sample_axis(groups: Sequence[Sequence[float]]) -> Axis:
    """Choose an axis (ms) for groups of samples; logarithmic where they span a factor of WIDE."""
    ends = [bound for samples in groups for bound in (min(samples), usual_end(samples))]
    if min(ends) > 0 and max(ends) > WIDE * min(ends):
        return Axis.decades(ends)
    return Axis.around(ends, wanted=5, floor=0.0)


def histogram(title: str, samples: Sequence[float], lines: dict[str, float]) -> tuple[Markup, str]:
    """Draw ``samples`` (ms) in bins; returns what to know of the axis, for the caption."""
    height, top = 150, 22
    axis = sample_axis([samples])
    inside = [axis.at(value) for value in samples if axis.low <= value <= axis.high]
    bins = max(8, min(BINS, round(math.sqrt(len(inside)))))
    counts = [0] * bins
    for place in inside:
        counts[min(bins - 1, int(place / 100 * bins))] += 1
    highest = max(counts) or 1
    parts = vertical_grid(axis, top, top + height, " ms")
    for index, number in enumerate(counts):
        if number:
            tall = max(1.0, height * number / highest)
            parts.append(
                tag(
                    "rect",
                    x=pc(100 * index / bins),
                    y=round(top + height - tall, 1),
                    width=pc(100 / bins - 0.15),
                    height=round(tall, 1),
                    class_="bar",
                )
            )
    for name, value in lines.items():
        place = axis.at(value)
        parts.append(upright_line(place, top - 4, top + height, "rule"))
        anchor = "end" if place > 85 else "start" if place < 8 or name != "p50" else "end"
        parts.append(words_at(place, top - 8, name, "tick strong", anchor))
    text = f"{title}: {len(samples)} samples from {min(samples):.4g} to {max(samples):.4g} ms"
    beyond = len(samples) - len(inside)
    notes = ["Logarithmic axis, bins of equal ratio."] if axis.log else []
    if beyond:
        notes.append(f"{beyond:,} of them lie beyond the axis, the longest {max(samples):.3g} ms.")
    return figure(title, text, top + height + 24, parts), " ".join(notes)


def usual_end(samples: Sequence[float]) -> float:
    """Return where an axis may end: the greatest sample, or the 99th percentile if far below.

    A few stragglers would squeeze all others into a corner; plots say how many lie beyond.
    """
    ordered = sorted(samples)
    usual = ordered[math.ceil(0.99 * len(ordered)) - 1]
    far = ordered[-1] > ordered[0] + 1.5 * (usual - ordered[0])
    return usual if far and len(ordered) >= 100 else ordered[-1]


def time_order(
    title: str, samples: Sequence[float], starts: Sequence[int] = ()
) -> tuple[Markup, int]:
    """Draw ``samples`` (ms) in the order taken; above SHOWN_POINTS in groups.

    Returns the plot and how many samples lie above it and are marked at its upper edge.

    A group is a line from its least to its greatest sample with a dot at its median, so that no
    straggler is lost. ``starts`` are the sample indices at which a new repeat begins.
    """
    height, top = 150, 22
    wide = sample_axis([samples])
    axis = wide if wide.log else Axis.around([0.0, usual_end(samples)], wanted=4, floor=0.0)
    n = len(samples)
    group = group_size(n)
    parts = horizontal_grid(axis, top, height)
    dots, bars, over = [], [], []
    for start in range(0, n, group):
        part = samples[start : start + group]
        x = round(1000 * (start + len(part) / 2) / n, 1)
        if max(part) > axis.high:
            over.append(f"M{x} 0v-50")
        if group > 1 or max(part) <= axis.high:
            dots.append(f"M{x} {_down(axis, median(part))}h0")
        if group > 1:
            bars.append(f"M{x} {_down(axis, max(part))}V{_down(axis, min(part))}")
    paths = [("range", bars), ("dots", dots), ("over", over)]
    drawn = [tag("path", d="".join(steps), class_=css) for css, steps in paths if steps]
    parts.append(stretched(top, height, drawn))
    parts += [upright_line(100 * start / n, top, top + height, "divider") for start in starts]
    parts.append(words_at(0, top + height + 17, "first sample", "tick"))
    parts.append(words_at(100, top + height + 17, f"sample {n:,}", "tick", "end"))
    picture = figure(
        title, f"{title}: {n} samples in the order taken", top + height + 24, parts, gutter=True
    )
    return picture, sum(value > axis.high for value in samples)


def group_size(n: int) -> int:
    """Return how many samples one drawn point of :func:`time_order` stands for."""
    return 1 if n <= SHOWN_POINTS else math.ceil(n / (SHOWN_POINTS // 4))


def _down(axis: Axis, value: float) -> float:
    return round(1000 - 10 * axis.at(value), 1)

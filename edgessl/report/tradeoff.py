"""Several benches in one picture: accuracy against latency, and their distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgessl.report.bench_pictures import PART_NAMES
from edgessl.report.formats import MISSING, milliseconds, percent, percent_range, plural
from edgessl.report.found import HEADLINE_PARTS
from edgessl.report.latency import BenchView, headline_latency
from edgessl.report.plot_samples import Distribution, distributions
from edgessl.report.plots import Mark, letter, scatter

SHAPES = ("round", "square", "diamond", "triangle", "plus")  # by width


@dataclass(frozen=True, slots=True)
class TradeOff:
    """Accuracy against latency; ``key`` names the letters where there are any."""

    picture: Markup
    key: list[tuple[str, str, str, str, BenchView]]
    note: str


def accuracy_against_latency(views: Sequence[BenchView]) -> TradeOff | None:
    """Plot top-1 on the device against its median latency; None without such figures."""
    labels = _labels(views)
    widths = list(dict.fromkeys(view.width for view in views))
    marks, key = [], []
    for view in views:
        latency, accuracy = headline_latency(view.bench), view.bench.result.accuracy
        if view.withheld or accuracy is None or latency is None or latency.p50 is None:
            continue
        label = labels[view.bench.folder]
        doubt = f" ({view.doubt})" if view.doubt else ""
        marks.append(
            Mark(
                label=f"{label}{doubt}",
                x=latency.p50,
                y=100 * accuracy.top1,
                x_low=latency.ci_low,
                x_high=latency.ci_high,
                y_low=100 * accuracy.ci_low,
                y_high=100 * accuracy.ci_high,
                solid=not view.doubt,
                shape=SHAPES[widths.index(view.width) % len(SHAPES)],
            )
        )
        top1 = f"{percent(accuracy.top1)} {percent_range(accuracy.ci_low, accuracy.ci_high)}"
        key.append((letter(len(key)), label, milliseconds(latency.p50), top1, view))
    if not marks:
        return None
    picture, lettered = scatter(
        "Top-1 against median latency", marks, "median latency, ms", "Top-1, %"
    )
    note = ""
    if len(widths) > 1:
        names = {"round": "disc", "square": "square", "diamond": "diamond",
                 "triangle": "triangle", "plus": "cross"}  # fmt: skip
        note = "Shapes: " + ", ".join(
            f"{names[SHAPES[i % len(SHAPES)]]} {width or 'width not stated'}"
            for i, width in enumerate(widths)
        )
    return TradeOff(picture, key if lettered else [], f"{note}." if note else "")


def _labels(views: Sequence[BenchView]) -> dict[str, str]:
    """Name each bench by its folder as briefly as tells it from the others."""
    several = len({view.device for view in views}) > 1
    named = {
        view.bench.folder: f"{view.title} on {view.device}" if several else view.title
        for view in views
    }
    again = list(named.values())
    return {
        view.bench.folder: name + (f", {view.runtime}" if again.count(name) > 1 else "")
        for view, name in zip(views, named.values(), strict=True)
    }


def compared_distributions(views: Sequence[BenchView]) -> tuple[Markup, str] | None:
    """Draw the raw samples of all benches on one axis; None with fewer than two."""
    rows, parts = [], []
    labels = _labels(views)
    for view in views:
        part = next((name for name in HEADLINE_PARTS if view.bench.samples.get(name)), None)
        if view.withheld or part is None:
            continue
        parts.append(part)
        samples = view.bench.samples[part]
        latency = view.bench.result.latency_ms.get(part)
        allowed = {
            name: value
            for name in ("p50", "p90")
            if latency and (value := getattr(latency, name)) is not None
        }
        figure = milliseconds(allowed["p50"]) + " ms" if "p50" in allowed else MISSING
        rows.append(
            Distribution(
                label=labels[view.bench.folder],
                text=f"{figure} {view.doubt or view.verdict}",
                samples=samples,
                percentiles=allowed,
                solid=not view.doubt,
            )
        )
    if len(rows) < 2:
        return None
    names = " and ".join(PART_NAMES[part].lower() for part in dict.fromkeys(parts))
    picture, note = distributions("Latency of each file, all samples", rows)
    total = sum(len(row.samples) for row in rows)
    lead = f"Milliseconds, {names}, {plural(total, 'sample')}; each row has a height of its own."
    return picture, f"{lead} Solid line: p50; dotted: p90. {note}".strip()

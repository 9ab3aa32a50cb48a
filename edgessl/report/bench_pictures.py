"""The raw samples of one bench: their distribution, and their order in time."""

from __future__ import annotations

from markupsafe import Markup

from edgessl.report.formats import count, milliseconds, plural
from edgessl.report.found import HEADLINE_PARTS, FoundBench
from edgessl.report.plot_samples import group_size, histogram, time_order

PART_NAMES = {
    "load": "Load the model", "first": "First inference", "preprocess": "Preprocess",
    "copy_in": "Copy in", "infer": "Inference", "copy_out": "Copy out",
    "postprocess": "Postprocess", "e2e_from_uint8": "End to end, from uint8",
}  # fmt: skip


def bench_pictures(bench: FoundBench, title: str) -> list[tuple[Markup, str]]:
    """Draw the distribution and the time order of the headline part, with what was left out."""
    part = next((name for name in HEADLINE_PARTS if bench.samples.get(name)), None)
    if part is None:
        return []
    samples = bench.samples[part]
    latency = bench.result.latency_ms.get(part)
    lines = {
        name: value
        for name in ("p50", "p90")
        if latency and (value := getattr(latency, name)) is not None
    }
    name, n = PART_NAMES[part], len(samples)
    group = group_size(n)
    drawn = f"Milliseconds, all {count(n)} samples in the order taken."
    if group > 1:
        drawn = (
            f"Milliseconds, {count(n)} samples in the order taken, drawn as "
            f"{count(-(-n // group))} groups of {group}: a line from the least to the greatest, "
            "a dot at the median."
        )
    starts = bench.starts
    if starts:
        drawn += " Dashed lines: a fresh process starts."
    shape, about = histogram(f"{name}, distribution, {title}", samples, lines)
    course, above = time_order(f"{name}, time order, {title}", samples, starts)
    most = f"the longest {milliseconds(max(samples))} ms"
    if "Logarithmic" in about:
        drawn += " Logarithmic axis."
    counted = f"{name}, milliseconds, {count(n)} samples. {about}".strip()
    if above:
        drawn += f" Marks on the upper edge: {plural(above, 'sample')} above it, {most}."
    return [(shape, counted), (course, drawn)]

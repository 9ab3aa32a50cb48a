"""What was tried before a file was chosen, and what wrong resizes cost: rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.report.formats import (
    MISSING,
    count,
    milliseconds,
    percent,
    plural,
    points,
    points_range,
    significant,
    size,
    tiny,
)
from edgessl.report.records import Candidate, Images, Resizes, Search

BROKEN = 1e29  # a divergence from here on stands for answers that are not finite
CALIBRATIONS = {
    "minmax": "true min/max", "percentile": "percentile", "moving_average": "moving average",
}  # fmt: skip
RANGED = ("int8", "w8a16")  # precisions whose ranges come from calibration images
NAMED_LAYERS = 4


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One way to quantise that was tried, written out."""

    name: str
    how: str
    chosen: bool
    calibration: str
    agreement: str
    kl: str
    shift: str
    snr: str
    size: str
    ms: str
    speed: str
    result: str
    bad: bool
    seconds: str


def selection_words(search: Search) -> str:
    """Say which images the choice was made on."""
    chosen_on = search.selection
    split = images_words(chosen_on.images) if chosen_on.images else "images that are not recorded"
    if chosen_on.n and not chosen_on.images:
        labels = f", {count(chosen_on.labelled)} of them with labels" if chosen_on.labelled else ""
        split = f"{plural(chosen_on.n, 'image')}{labels}"
    return (
        f"The choice was made on a selection split of {split}: neither calibration images nor "
        "those that the outcome is measured on."
    )


def candidate_view(candidate: Candidate, search: Search) -> CandidateView:
    """Write out one candidate."""
    result, bad = _result(candidate)
    c = candidate
    about = c.n if c.n not in (None, search.selection.n) else None
    return CandidateView(
        name=c.name,
        how=scheme_words(candidate),
        chosen=c.name == search.chosen,
        calibration=count(c.calibration_images) if c.calibration_images else MISSING,
        agreement=percent(c.agreement) + (f" of {count(about)}" if about else ""),
        kl=MISSING if c.kl is None else "not finite" if c.kl > BROKEN else tiny(c.kl),
        shift=points(c.shift),
        snr=MISSING if c.snr_db is None else f"{c.snr_db:.1f}",
        size=MISSING if c.bytes is None else size(c.bytes),
        ms=milliseconds(c.ms),
        speed=MISSING if c.ratio is None else times(c.ratio),
        result=result,
        bad=bad,
        seconds=MISSING if c.seconds is None else significant(c.seconds, 2),
    )


def _result(candidate: Candidate) -> tuple[str, bool]:
    if candidate.error:
        return f"failed: {candidate.error}", True
    text = "holds the bounds" if candidate.holds else "does not hold the bounds"
    if candidate.pointless:
        return f"{text}; slower and no smaller than float32", True
    return text, not candidate.holds


def scheme_words(candidate: Candidate) -> str:
    """Say in words how a candidate was quantised, as far as its name does not."""
    scheme = candidate.scheme
    words = [] if scheme.precision in candidate.name else [scheme.precision]
    if scheme.precision in RANGED and scheme.calibration:
        told = CALIBRATIONS.get(scheme.calibration, scheme.calibration)
        words += [] if told in candidate.name else [told]
    if scheme.float_layers:
        named = ", ".join(scheme.float_layers[:NAMED_LAYERS])
        more = len(scheme.float_layers) - NAMED_LAYERS
        words.append(f"in float: {named}" + (f" and {more} more" if more > 0 else ""))
    if candidate.aware:
        words.append("fine-tuned for quantisation")
    if scheme.integer_io:
        words.append("integers in and out")
    return ", ".join(words)


def resize_rows(resizes: Resizes | None) -> list[tuple[str, str, str, str]]:
    """Return (preparation, agreement, top-1, difference with its bounds)."""
    if resizes is None:
        return []
    return [
        (
            row.name,
            percent(row.agreement),
            percent(row.top1),
            f"{points(row.delta)} {points_range(row.delta_low, row.delta_high)}".strip(),
        )
        for row in resizes.rows
    ]


def images_words(images: Sequence[Images]) -> str:
    """Name sets of images with their sizes, and how many have labels."""
    parts = []
    for group in images:
        labels = f"{count(group.labelled)} with labels" if group.labelled else "without labels"
        labels = "all with labels" if group.labelled == group.n else labels
        parts.append(f"{plural(group.n, 'image')} of {group.name} ({labels})")
    return " and ".join(parts)


def times(factor: float) -> str:
    """Write a factor with two digits that count: ``1.8x``, ``12x``."""
    return f"{significant(factor, 2)}x"

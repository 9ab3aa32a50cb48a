"""The same images answered before and after a step, from the predictions.csv of both."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from edgessl.core.statistics import mcnemar_exact
from edgessl.report.formats import count, plural, tiny


@dataclass(frozen=True, slots=True)
class Paired:
    """How many of ``n`` images are right only after (gained) or only before (lost)."""

    gained: int
    lost: int
    n: int

    @property
    def text(self) -> str:
        """The counts and McNemar's exact test of them, for people."""
        if not self.gained and not self.lost:
            return "the same images right"
        p = mcnemar_exact(self.gained, self.lost)
        return (
            f"{plural(self.gained, 'image')} gained, {count(self.lost)} lost; McNemar p {tiny(p)}"
        )


def paired_answers(before: Path, after: Path) -> Paired | None:
    """Compare two ``predictions.csv`` image by image.

    Returns:
        None when one of them is absent or damaged, or when they are not about the same images
        in the same order.
    """
    one, two = _answers(before), _answers(after)
    if not one or [image for image, _ in one] != [image for image, _ in two]:
        return None
    changed = [a - b for (_, b), (_, a) in zip(one, two, strict=True)]
    return Paired(changed.count(1), changed.count(-1), len(changed))


def _answers(path: Path) -> list[tuple[tuple[str, str], bool]]:
    """Return ((image, label), answered right) in the order of the file."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                ((row["sha256"], row["label"]), row["label"] == row["predicted"])
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, KeyError, csv.Error):
        return []

"""The answers that a board gave beside those of the same file on the workstation."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edgessl.core import files
from edgessl.core.noninferiority import drop_lower, drop_upper
from edgessl.core.statistics import wilson

# least share of equal answers by precision; integer kernels round differently on other processors
AGREEMENT = {"none": 0.99, "fp16": 0.99, "w8a16": 0.95, "int8": 0.95, "dynamic": 0.95}


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of a ``predictions.csv``: class indices; the label is -1 where there is none."""

    image: str
    label: int
    predicted: int

    @property
    def right(self) -> bool:
        """Whether it is known to be right."""
        return self.label == self.predicted


@dataclass(frozen=True, slots=True)
class BoardParity:
    """The same file on the board and on the workstation, image by image.

    Attributes:
        n: Images.
        agreement: Share of equal answers, with a 95 % interval.
        gained: Images that only the board gets right.
        lost: Images that only the workstation gets right.
        unlabelled: Images with another answer and no label.
        drop: (lost - gained) / n; None while an image with another answer has no label.
        drop_low: Exact bounds of it, 95 % each, unlabelled ones taken as gained or lost.
        outcome: FAIL if the answers surely agree too rarely or top-1 surely drops too far; PASS
            if it surely does not drop so far; INCONCLUSIVE if the images cannot tell.
    """

    n: int
    agreement: float
    agreement_low: float
    agreement_high: float
    least_agreement: float
    gained: int
    lost: int
    unlabelled: int
    drop: float | None
    drop_low: float
    drop_high: float
    max_drop: float
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE"]

    @property
    def told(self) -> str:
        """One sentence for people."""
        known = "not known" if self.drop is None else f"{100 * self.drop:+.2f} points"
        return (
            f"{100 * self.agreement:.1f} % of {self.n} answers are those of the workstation "
            f"(at least {100 * self.least_agreement:g} % wanted); drop of top-1 {known}, at most "
            f"{100 * self.drop_high:.2f} points (admitted {100 * self.max_drop:g})"
        )


def read_answers(path: Path) -> list[Answer]:
    """Read a ``predictions.csv``; empty where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Answer(row["sha256"], int(row["label"]), int(row["predicted"]))
            for row in csv.DictReader(stream)
        ]


def compare_answers(
    board: list[Answer], workstation: list[Answer], precision: str, max_drop: float
) -> BoardParity | None:
    """Compare the answers of one file at two places; None unless to the same images.

    Args:
        board: In the order of the pack.
        workstation: Of the same file, in the same order.
        precision: As in ``facts["quantize"]`` of the artifact.
        max_drop: Share of top-1 that may be lost, for example 0.01.
    """
    if not board or [a.image for a in board] != [a.image for a in workstation]:
        return None
    pairs = list(zip(board, workstation, strict=True))
    flips = [(a, b) for a, b in pairs if a.predicted != b.predicted]
    n, unlabelled = len(pairs), sum(a.label < 0 for a, _ in flips)
    gained, lost = sum(a.right for a, _ in flips), sum(b.right for _, b in flips)
    low, high = wilson(n - len(flips), n)
    least = AGREEMENT.get(precision, AGREEMENT["none"])
    drop_low = drop_lower(gained + unlabelled, lost, n)
    drop_high = drop_upper(gained, lost + unlabelled, n)
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE"] = "INCONCLUSIVE"
    if high < least or drop_low > max_drop:
        outcome = "FAIL"
    elif drop_high <= max_drop:
        outcome = "PASS"
    return BoardParity(
        n=n, agreement=1 - len(flips) / n, agreement_low=low, agreement_high=high,
        least_agreement=least, gained=gained, lost=lost, unlabelled=unlabelled,
        drop=None if unlabelled else (lost - gained) / n, drop_low=drop_low, drop_high=drop_high,
        max_drop=max_drop, outcome=outcome,
    )  # fmt: skip


def write_parity(path: Path, parity: BoardParity, seal: str, where: str) -> None:
    """Write ``parity.json`` beside the records of a bench.

    Args:
        path: The file.
        parity: What was found.
        seal: Of the artifact.
        where: Id of the device.
    """
    body = {"seal": seal, "where": where, "compared_with": "workstation"} | asdict(parity)
    files.write_json(path, "board-parity", body)

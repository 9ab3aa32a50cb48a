"""What a net got wrong, from its predictions.csv: confusion, recall of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from edgessl.core.statistics import wilson
from edgessl.report.formats import count, percent, percent_range
from edgessl.report.plot_cells import interval_cell
from edgessl.report.read import Run
from edgessl.report.tolerant import csv_rows

MATRIX_CLASSES = 30  # with more classes the most confused pairs are listed instead
PAIRS_SHOWN = 25
SHADES = 9


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall of one class with its Wilson interval; proportions."""

    name: str
    right: int
    n: int
    value: float
    low: float
    high: float
    bar: Markup

    @property
    def text(self) -> str:
        """The recall in percent with its interval."""
        return f"{percent(self.value)} {percent_range(self.low, self.high)}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the confusion matrix; ``shade`` 0 to SHADES by its share of the row."""

    number: int
    shade: int
    share: str
    right: bool


@dataclass(frozen=True, slots=True)
class Confusion:
    """True class, said class, how often, and which share of the true class."""

    true: str
    said: str
    number: int
    share: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of the net of one width on the test split."""

    width: str
    source: str
    n: int
    names: list[str]
    matrix: list[tuple[str, list[Cell]]]
    pairs: list[Confusion]
    recalls: list[Recall]
    balanced: float

    @property
    def worst(self) -> Recall:
        """The class with the lowest recall."""
        return self.recalls[0]

    @property
    def sentence(self) -> str:
        """What stands out, in words."""
        worst = self.worst
        text = (
            f"Of {count(self.n)} test images {count(sum(r.right for r in self.recalls))} were "
            f"answered right. The mean recall of the classes (balanced accuracy) is "
            f"{percent(self.balanced)}; the lowest is {worst.name} with {worst.text}, "
            f"{count(worst.right)} of {count(worst.n)}."
        )
        if self.pairs:
            top = self.pairs[0]
            text += f" The most frequent mistake: {top.true} taken for {top.said}, {top.number}x."
        return text


def answers(run: Run) -> list[Answers]:
    """Read the answers of each extracted net, the widest first; absent ones are left out."""
    found = []
    for width in run.widths:
        path = run.folder / "extract" / width / "predictions.csv"
        labels = next(
            (a.artifact.labels for a in run.artifacts if a.folder == f"extract/{width}"), ()
        )
        if made := _answers(run, path, width, labels or run.class_names):
            found.append(made)
    return found


def _answers(run: Run, path: Path, width: str, labels: Sequence[str]) -> Answers | None:
    pairs = []
    for row in csv_rows(path, run.notes):
        try:
            pairs.append((int(row["label"]), int(row["predicted"])))
        except (KeyError, TypeError, ValueError):
            run.notes.add(f"{run.notes.name(path)}: a row without label and prediction")
    pairs = [pair for pair in pairs if min(pair) >= 0]
    if not pairs:
        return None
    table = Counter(pairs)
    classes = sorted({index for pair in table for index in pair} | set(range(len(labels))))
    names = {i: labels[i] if i < len(labels) else str(i) for i in classes}
    totals = Counter({i: sum(n for (true, _), n in table.items() if true == i) for i in classes})
    recalls = [_recall(names[i], table[i, i], totals[i]) for i in classes if totals[i]]
    wrong = sorted(
        ((n, true, said) for (true, said), n in table.items() if true != said),
        key=lambda item: (-item[0], item[1:]),
    )
    matrix = []
    if len(classes) <= MATRIX_CLASSES:
        matrix = [
            (names[i], [_cell(table[i, j], totals[i], i == j) for j in classes]) for i in classes
        ]
    return Answers(
        width=width,
        source=path.relative_to(run.folder).as_posix(),
        n=len(pairs),
        names=[names[i] for i in classes],
        matrix=matrix,
        pairs=[
            Confusion(names[true], names[said], n, f"{100 * n / totals[true]:.1f}%")
            for n, true, said in wrong[:PAIRS_SHOWN]
        ],
        recalls=sorted(recalls, key=lambda r: (r.value, -r.n)),
        balanced=sum(r.value for r in recalls) / len(recalls),
    )


def _recall(name: str, right: int, n: int) -> Recall:
    low, high = wilson(right, n)
    return Recall(name, right, n, right / n, low, high, interval_cell(right / n, low, high))


def _cell(number: int, total: int, right: bool) -> Cell:
    share = number / total if total else 0.0
    shade = 0 if not number else max(1, round(SHADES * share))
    return Cell(number, shade, f"{100 * share:.0f}%", right)

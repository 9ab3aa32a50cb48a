"""Images whose answer a quantised file changes: their labels settle what it costs.

``flips/`` holds a PNG of every such image that has no label, and ``flips.csv`` with the columns
file, sha256, float, quantised, label. The last one is for the user: a class name, or ``?`` where
nobody can tell, which leaves the image undecided.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgessl.core import files
from edgessl.core.errors import DataInvalid, nearest
from edgessl.stages.assignment import Split

FOLDER, TABLE = "flips", "flips.csv"
COLUMNS = ("file", "sha256", "float", "quantised", "label")
UNDECIDED = "?"


def write_flips(
    folder: Path,
    proof: Split,
    rows: Sequence[int],
    logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    class_names: Sequence[str],
    known: dict[str, int],
) -> Path:
    """Write the pictures and the table.

    Args:
        folder: Export folder.
        proof: Images that were judged on.
        rows: Positions of those to label.
        logits: Of the float32 net and of the quantised file, (N, C) each.
        class_names: In the order of the logits.
        known: Labels that were given before; those images stay in the table.

    Returns:
        The table.
    """
    place = folder / FOLDER
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    given = [row for row, sha in enumerate(proof.sha256) if sha in known]
    for number, row in enumerate(sorted({*rows, *given}), 1):
        sha, name = proof.sha256[row], f"{number:03d}-{proof.sha256[row][:12]}.png"
        picture = io.BytesIO()
        Image.fromarray(proof.images[row]).save(picture, "PNG")
        files.write_bytes(place / name, picture.getvalue())
        answers = [class_names[int(np.nan_to_num(z[row]).argmax())] for z in logits]
        label = class_names[known[sha]] if sha in known else ""
        writer.writerow([name, sha, *answers, label])
    files.write_text(place / TABLE, text.getvalue())
    return place / TABLE


def read_labels(folder: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Return what the user filled in: image sha256 to class; empty without a table.

    Raises:
        DataInvalid: The table is not readable, lacks a column, or names an unknown class.
    """
    path = folder / FOLDER / TABLE
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataInvalid(f"{path} is not a readable CSV table: {error}") from error
    labels = {}
    for number, line in enumerate(lines, 2):
        sha, label = line.get("sha256"), line.get("label")
        if sha is None or label is None:
            raise DataInvalid(
                f"{path}, line {number}: a column is missing",
                hint=f"it must have the columns {', '.join(COLUMNS)}, separated by commas",
            )
        if (label := label.strip()) in ("", UNDECIDED):
            continue
        if label not in class_names:
            raise DataInvalid(
                f"{path}, line {number}: {label!r} is not a class of this model",
                hint=nearest(label, class_names),
            )
        labels[sha] = list(class_names).index(label)
    return labels


def with_labels(proof: Split, known: dict[str, int]) -> NDArray[np.int64]:
    """Return the labels of the images, filled in where they were -1."""
    given = np.array([known.get(sha, -1) for sha in proof.sha256], np.int64)
    return np.where(proof.labels >= 0, proof.labels, given)

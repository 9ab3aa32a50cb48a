"""Lists of images: a ``.txt`` file of paths, or a ``.csv`` file with a column of paths.

Paths are relative to the folder of the list; any suffix will do, as content decides.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgessl.core import files
from edgessl.core.errors import DataInvalid
from edgessl.data.folders import decoders, file_problem, numbered, printable
from edgessl.data.image_set import ImageSet, Skipped

SUFFIXES = (".txt", ".csv")
PATH, LABEL = "path", "label"


def open_list(path: Path, name: str) -> ImageSet:
    """Open a list of images.

    A ``.txt`` list has one path per line, followed by a tab and the class where there are
    labels; empty lines and lines that begin with ``#`` are passed over (write ``./#1.png`` for
    such a file). A ``.csv`` list has a header with the column ``path``, for labels the column
    ``label``, and any others for ``group_by``; fields with commas, quotes or line breaks are
    quoted as usual. Files that are missing or empty are counted as skipped.

    Raises:
        DataInvalid: Not UTF-8, no such column, a line with too few or too many fields, or no
            image that is there.
    """
    try:
        # file names are bytes: what is not UTF-8 in them survives as surrogates
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataInvalid(f"cannot read {name}: {error.strerror or error}") from error
    rows = _csv_rows(text, name) if path.suffix.lower() == ".csv" else _txt_rows(text)
    kept: list[dict[str, str]] = []
    skipped: list[Skipped] = []
    for row in rows:
        if problem := file_problem(path.parent / row[PATH]):
            skipped.append(Skipped(printable(row[PATH]), problem))
        else:
            kept.append(row)
    if not kept:
        seen = "; ".join(f"{s.item!r}: {s.reason}" for s in skipped[:3]) or "no line names one"
        raise DataInvalid(
            f"no image of {name} is there: {seen}",
            hint="paths in a list are relative to the folder of the list",
        )
    return _image_set(path, name, kept, skipped)


def write_list(
    out: Path,
    paths: Sequence[Path],
    labels: Sequence[str] | None,
    columns: Mapping[str, Sequence[str]],
) -> Path:
    """Write a ``.csv`` list that :func:`open_list` reads; paths below its folder are relative.

    Args:
        out: The file.
        paths: One per image.
        labels: Class of every image, or None.
        columns: Further columns.

    Raises:
        DiskFull: No space is left.
    """
    base = out.parent.absolute()
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([PATH, *([LABEL] if labels is not None else []), *columns])
    for row, path in enumerate(paths):
        whole = path.absolute()
        shown = whole.relative_to(base) if whole.is_relative_to(base) else whole
        label = [] if labels is None else [labels[row]]
        writer.writerow([str(shown), *label, *(values[row] for values in columns.values())])
    files.write_bytes(out, stream.getvalue().encode("utf-8", "surrogateescape"))
    return out


def _image_set(
    path: Path, name: str, rows: Sequence[dict[str, str]], skipped: Sequence[Skipped]
) -> ImageSet:
    items = tuple(printable(row[PATH]) for row in rows)
    paths = tuple(path.parent / row[PATH] for row in rows)
    load, mode = decoders(paths, items)
    bare = [row for row in rows if not row.get(LABEL)]
    labels, class_names, because = None, (), "its lines name no labels"
    if not bare:
        labels, class_names = numbered([row[LABEL] for row in rows])
    elif len(bare) < len(rows):
        first = printable(bare[0][PATH])
        because = f"{len(bare)} of its {len(rows)} lines have no label, first {first!r}"
    others = [column for column in rows[0] if column not in (PATH, LABEL)]
    columns = {c: tuple(printable(row[c]) for row in rows) for c in others}
    return ImageSet(
        name, items, load, labels, class_names, tuple(skipped), because, columns, mode=mode,
        paths=paths,
    )  # fmt: skip


def _txt_rows(text: str) -> list[dict[str, str]]:
    rows = []
    for line in text.split("\n"):  # not splitlines: it also splits at characters in names
        line = line.removesuffix("\r")
        if line.strip() and not line.startswith("#"):
            where, _, label = line.partition("\t")
            rows.append({PATH: where, LABEL: label.strip()})
    return rows


def _csv_rows(text: str, name: str) -> list[dict[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, name)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataInvalid(
                    f"{name}, line {reader.line_num}: {len(fields)} fields, "
                    f"the header has {len(header)}",
                    hint='put fields with commas into double quotes: "a, b.png",cat',
                )
            row = dict(zip(header, fields, strict=True))
            if not row[PATH]:
                raise DataInvalid(f"{name}, line {reader.line_num}: the path is empty")
            rows.append(row | ({LABEL: row[LABEL].strip()} if LABEL in row else {}))
    except csv.Error as error:
        raise DataInvalid(
            f"{name} is not a valid .csv file, line {reader.line_num}: {error}",
            hint="quotes inside a quoted field are doubled",
        ) from error
    return rows


def _check_header(header: Sequence[str], name: str) -> None:
    twice = sorted({column for column in header if header.count(column) > 1})
    if PATH not in header or twice:
        seen = ", ".join(map(repr, header)) or "nothing"
        problem = f"names {twice[0]!r} twice" if twice else f"lacks the column '{PATH}'"
        raise DataInvalid(
            f"the header of {name} {problem}; it has {seen}",
            hint=f"the first line names the columns: {PATH},{LABEL}",
        )

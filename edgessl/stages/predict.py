"""Ask a sealed model about pictures: classes with probabilities, or features."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, UsageProblem
from edgessl.data.decode import fit, read_image
from edgessl.data.folders import file_problem, printable
from edgessl.data.image_set import ImageSet, ImageUnreadable, Skipped
from edgessl.data.sources import SUFFIXES, open_source
from edgessl.stages.inference import check_runnable, run_model, runnable_folder

CHUNK = 1024  # images that are decoded, and answered by one child, at a time
DIGITS = 6


def predict(
    model: str | Path | None,
    sources: Sequence[str | Path],
    *,
    top: int,
    table: Path | None,
    features_wanted: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """Answer for every picture, prepared exactly as the model's ``InputSpec`` says.

    Args:
        model: See :func:`edgessl.stages.inference.runnable_folder`.
        sources: Image files, folders, lists, IDX files or datasets.
        top: Classes to tell per picture.
        table: CSV file to write: one line per picture.
        features_wanted: Whether an embedding model's features are of use to the caller.
        reporter: Told about progress and skipped files.

    Returns:
        ``model`` (folder), ``seal``, ``labels``, ``images`` (one entry per picture: ``path``
        with ``predicted``, ``score``, ``margin`` and ``top``, or with ``norm`` and ``features``),
        ``skipped`` and ``csv``.

    Raises:
        DataInvalid: No source, or none of its images can be read.
        FileInvalid: The model is missing, altered, or not one that is deployed.
        UsageProblem: An embedding model, and nothing to write its features to.
        MissingExtra, NativeCrash: Its runtime is not installed, or died.
    """
    folder = runnable_folder(model)
    artifact = Artifact.load(folder)
    check_runnable(folder, artifact)
    if not artifact.labels and not features_wanted and table is None:
        raise UsageProblem(
            f"{folder} gives features, not classes: it was not fine-tuned",
            hint="write the features with --csv FILE or --json, or fine-tune: edgessl finetune",
        )
    images = gather(sources)
    reporter.say(f"predict: {folder} on {len(images)} image(s)")
    entries: list[dict[str, Any]] = []
    skipped = list(images.skipped)
    describe = _classes(artifact.labels, top) if artifact.labels else _features
    with reporter.bar("predict", len(images)) as bar:
        for rows in _chunks(len(images)):
            names, pixels, failed = _decoded(images, rows, artifact.input)
            skipped += failed
            if names:
                made = describe(run_model(folder, pixels))
                entries += [{"path": n} | entry for n, entry in zip(names, made, strict=True)]
            bar.update(rows.stop)
    for item in skipped:
        reporter.warn(f"skipped {item.item!r}: {item.reason}")
    if not entries:
        raise DataInvalid(
            f"none of the {len(skipped)} image(s) can be read",
            hint="open one of the files in an image viewer, or give others",
        )
    if table is not None:
        files.write_text(table, _as_csv(entries, skipped))
    return {
        "model": str(folder),
        "seal": artifact.seal,
        "labels": list(artifact.labels),
        "images": entries,
        "skipped": [{"path": item.item, "reason": item.reason} for item in skipped],
        "csv": str(table) if table is not None else None,
    }


def gather(sources: Sequence[str | Path]) -> ImageSet:
    """Return the images of several sources as one, named so that they can be found again.

    A file with the suffix of an image that is not there is skipped, not refused.

    Raises:
        DataInvalid: A source is neither a file nor anything that can be opened.
    """
    loads: list[tuple[str, Callable[[], NDArray[np.uint8]]]] = []
    skipped: list[Skipped] = []
    for source in map(str, sources):
        path = Path(source).expanduser()
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            if problem := file_problem(path):
                skipped.append(Skipped(printable(source), problem))
            else:
                loads.append((printable(source), lambda path=path: read_image(path)))
            continue
        opened = open_source(source)
        prefix = f"{source.rstrip(os.sep)}/" if path.is_dir() else ""
        loads += [
            (prefix + item, lambda i=i, load=opened.load: load(i))
            for i, item in enumerate(opened.items)
        ]
        skipped += [Skipped(prefix + item.item, item.reason) for item in opened.skipped]
    items = tuple(name for name, _ in loads)
    return ImageSet("pictures", items, lambda i: loads[i][1](), skipped=tuple(skipped))


def _chunks(n: int) -> Iterator[range]:
    for start in range(0, n, CHUNK):
        yield range(start, min(start + CHUNK, n))


def _decoded(
    images: ImageSet, rows: range, spec: InputSpec
) -> tuple[list[str], NDArray[np.uint8], list[Skipped]]:
    """Return names and pixels of the images that can be read, and the others."""

    def one(row: int) -> NDArray[np.uint8] | Skipped:
        try:
            return fit(images.load(row), spec.height, spec.width, spec.resize)
        except ImageUnreadable as error:
            return Skipped(images.items[row], error.reason)

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        found = list(pool.map(one, rows))
    finally:
        pool.shutdown(cancel_futures=True)
    named = zip((images.items[row] for row in rows), found, strict=True)
    good = [(name, x) for name, x in named if isinstance(x, np.ndarray)]
    pixels = np.stack([x for _, x in good]) if good else np.empty(0, np.uint8)
    return [name for name, _ in good], pixels, [x for x in found if isinstance(x, Skipped)]


def _classes(
    labels: tuple[str, ...], top: int
) -> Callable[[NDArray[np.float32]], list[dict[str, Any]]]:
    def describe(logits_NC: NDArray[np.float32]) -> list[dict[str, Any]]:
        z = logits_NC.astype(np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        # the largest logit first; of equal ones the earlier class, as everywhere
        order = np.argsort(-z, axis=1, kind="stable")
        entries = []
        for scores, ranked in zip(p, order, strict=True):
            best = [
                {"label": labels[c], "score": round(float(scores[c]), DIGITS)} for c in ranked[:top]
            ]
            margin = float(scores[ranked[0]] - scores[ranked[1]]) if len(ranked) > 1 else 1.0
            entries.append(
                {
                    "predicted": labels[ranked[0]],
                    "score": round(float(scores[ranked[0]]), DIGITS),
                    "margin": round(margin, DIGITS),
                    "top": best,
                }
            )
        return entries

    return describe


def _features(features_NF: NDArray[np.float32]) -> list[dict[str, Any]]:
    return [
        {
            "norm": round(float(np.linalg.norm(row)), DIGITS),
            "features": [round(float(x), DIGITS) for x in row],
        }
        for row in features_NF
    ]


def _as_csv(entries: Sequence[dict[str, Any]], skipped: Sequence[Skipped]) -> str:
    """Return a line per picture; ``problem`` says why one has no answer."""
    first = entries[0]
    if "features" in first:
        head = ["norm", *(f"f{i}" for i in range(len(first["features"])))]
        lines = [[e["path"], e["norm"], *e["features"], ""] for e in entries]
    else:
        places = range(2, len(first["top"]) + 1)
        head = ["predicted", "score", "margin"]
        head += [name for k in places for name in (f"top{k}", f"score{k}")]
        lines = [
            [e["path"], e["predicted"], e["score"], e["margin"]]
            + [value for best in e["top"][1:] for value in best.values()]
            + [""]
            for e in entries
        ]
    lines += [[item.item, *[""] * len(head), item.reason] for item in skipped]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *head, "problem"])
    writer.writerows(lines)
    return text.getvalue()

"""What it costs to prepare images otherwise than by the contract: the float32 net, paired.

The file that is shipped can be perfect and its answers wrong, because a program on the device
resizes, crops or orders colours in its own way. So the answers to the same original pictures,
prepared in each of the usual ways, stand beside those of the contract in ``resizes.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import InputSpec
from edgessl.core.errors import EdgeSSLError
from edgessl.core.statistics import paired_difference
from edgessl.data.decode import map_in_threads
from edgessl.data.resizes import WAYS, Way
from edgessl.evaluation.outputs import outputs
from edgessl.stages.assignment import Split
from edgessl.stages.context import Context

if TYPE_CHECKING:
    from edgessl.stages.export import Source

FILE, KIND = "resizes.json", "preprocessing-costs"
MOST, FEWEST = 2000, 256
# larger images take the net longer: beyond 2,000 images of 48 x 48 pixels it is fewer of them
PIXELS = MOST * 48 * 48
CHUNK = 128  # pictures in memory at a time


@dataclass
class Answers:
    """What the net said to pictures that were prepared in one way."""

    predicted: list[NDArray[np.int64]] = field(default_factory=list)
    same_input: bool = True

    @property
    def all(self) -> NDArray[np.int64]:
        """Predicted classes (N,)."""
        return np.concatenate(self.predicted)


def measure_resizes(context: Context, source: Source) -> dict[str, Any] | None:
    """Measure what the usual ways to prepare an image cost, and write ``resizes.json``.

    A way that gives the net the same input as the contract for every picture is left out: at the
    size of the net nothing is resized, and grey pictures have no order of colours. Figures that
    the run has for the same net and the same images are kept.

    Args:
        context: Of the run; its proof images are used, spread evenly over all of them.
        source: The net; one that has no classes gives no answers and is not measured.

    Returns:
        The body of the file: of every way the share of answers that agree with those of the
        contract, top-1 and its paired difference with a 95 % interval (null without labels).
        None for a net without classes.

    Raises:
        DataInvalid: A picture that could be read before cannot be read any more.
    """
    if not source.artifact.labels:
        return None
    spec, proof = source.artifact.input, context.images.proof
    rows = chosen(len(proof.labels), spec)
    ways = [way for way in WAYS if way.available]
    identity = {
        "source_seal": source.artifact.seal,
        "n": len(rows),
        "data_sha256": proof.data_sha256,
        "tried": [way.name for way in ways],
    }
    path = context.folder() / FILE
    if (known := _kept(path, identity)) is not None:
        return known
    answers = _answers(context, source, proof, rows, ways)
    labels = proof.labels[rows]
    body = identity | {"rows": _rows(ways, answers, labels if (labels >= 0).all() else None)}
    files.write_json(path, KIND, body)
    context.reporter.say(_told(body["rows"]))
    return body


def chosen(n: int, spec: InputSpec) -> NDArray[np.int64]:
    """Return the positions of the images that are taken out of ``n``: evenly spread."""
    most = max(FEWEST, min(MOST, PIXELS // (spec.height * spec.width)))
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def _kept(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    try:
        known = files.read_json(path, KIND)
    except EdgeSSLError:
        return None
    same = all(known.get(name) == value for name, value in identity.items())
    return known if same and known.get("rows") else None


def _answers(
    context: Context,
    source: Source,
    proof: Split,
    rows: NDArray[np.int64],
    ways: Sequence[Way],
) -> list[Answers]:
    """Run the net on the pictures prepared in every way, some pictures at a time."""
    spec, pictures = source.artifact.input, context.images.proof_source
    place = {item: position for position, item in enumerate(pictures.items)}
    answers = [Answers() for _ in ways]
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]

        def prepared(i: int, chunk: NDArray[np.int64] = chunk) -> list[NDArray[np.uint8]]:
            picture = pictures.load(place[proof.items[chunk[i]]])
            return [way.prepare(picture, spec) for way in ways]

        by_way = [np.stack(x) for x in zip(*map_in_threads(prepared, len(chunk)), strict=True)]
        agreed = outputs(source.network, by_way[0], spec).argmax(1)
        for way, images, answer in zip(ways, by_way, answers, strict=True):
            contract = spec.model_copy(update=way.contract)
            same = contract == spec and np.array_equal(images, by_way[0])
            answer.same_input &= same
            answer.predicted.append(
                agreed if same else outputs(source.network, images, contract).argmax(1)
            )
    return answers


def _rows(
    ways: Sequence[Way], answers: Sequence[Answers], labels: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    contract = answers[0].all
    rows = []
    for way, answer in zip(ways, answers, strict=True):
        if answer.same_input and way is not ways[0]:
            continue
        predicted = answer.all
        row: dict[str, Any] = {
            "name": way.name, "summary": way.summary,
            "agreement": float((predicted == contract).mean()),
            "top1": None, "delta": None, "delta_low": None, "delta_high": None,
        }  # fmt: skip
        if labels is not None:
            right, before = predicted == labels, contract == labels
            row["top1"] = float(right.mean())
            if way is not ways[0]:
                gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
                low, high = paired_difference(gained, lost, len(labels))
                delta = (gained - lost) / len(labels)
                row |= {"delta": delta, "delta_low": low, "delta_high": high}
        rows.append(row)
    return rows


def _told(rows: Sequence[dict[str, Any]]) -> str:
    if len(rows) == 1:
        return "preparation: every way that was tried gives the net the same input"
    worst = min(rows[1:], key=lambda row: row["agreement"])
    return (
        f"preparation: '{worst['name']}' would change {100 * (1 - worst['agreement']):.1f} % of "
        f"the answers, the most of {len(rows) - 1} other way(s); all are in {FILE}"
    )

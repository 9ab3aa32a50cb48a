"""Which images calibrate a quantised file, which choose among several, which prove the chosen.

No image has two of these roles. Calibration and choice use images that were trained on or chosen
on before; the proof uses test images, images named for it, and unlabeled ones that pretraining
never saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.core.images import images_sha256
from edgessl.data.decode import prepare
from edgessl.data.keyed_random import uniforms
from edgessl.data.sources import open_source
from edgessl.data.splits import check_leaks
from edgessl.stages.assignment import Split, split_of

if TYPE_CHECKING:
    from edgessl.core.recipe import Data
    from edgessl.stages.roles import Images

FEWEST_POOL = 1000  # below it every unlabeled image is worth more in pretraining
SHARE = 10  # at most one in ten is kept back
MOST_SELECTION = 2000
# stand in the key where views have their number, so that no draw repeats another
HELD_OUT, CALIBRATION, PROOF = -2, -3, -4


@dataclass(frozen=True, slots=True)
class Material:
    """What a quantised export works with.

    Attributes:
        calibration: uint8 (M, H, W, 3), in the order in which they are taken.
        training: uint8 (K, H, W, 3), further images that may be learned from, without labels.
        selection: Images to choose on; label -1 where there is none.
        proof: Images to judge on, the same way; none of them was trained on unless
            ``trained_on``.
        sources: ``name``, ``n`` and ``labelled`` of every part of ``proof``.
        trained_on: Whether the net has learned from the labels of the proof images, as in folds.
    """

    calibration: NDArray[np.uint8]
    training: NDArray[np.uint8]
    selection: Split
    proof: Split
    sources: tuple[dict[str, Any], ...]
    trained_on: bool


def held_out_count(unlabeled: int, tested: int, data: Data) -> int:
    """Return how many unlabeled images are kept back from pretraining.

    Args:
        unlabeled: Images of ``data.unlabeled``.
        tested: Test images, which prove as well.
        data: Section of the recipe.
    """
    if unlabeled < FEWEST_POOL:
        return 0
    return min(max(0, data.held_out - tested), unlabeled // SHARE)


def held_out_rows(unlabeled: int, tested: int, data: Data, seed: int) -> NDArray[np.int64]:
    """Return the positions of the images that are kept back, ascending."""
    order = shuffled(unlabeled, seed, HELD_OUT)
    return np.sort(order[: held_out_count(unlabeled, tested, data)])


def shuffled(n: int, seed: int, purpose: int) -> NDArray[np.int64]:
    """Return 0..n-1 in an order that depends on (seed, purpose) only."""
    keys = uniforms(seed, 0, np.arange(n, dtype=np.int64), purpose, 1)[:, 0]
    return np.argsort(keys, kind="stable")


def gather(
    images: Images, calibration: str | None, wanted: int, learned_from: Sequence[str]
) -> Material:
    """Collect the images of the three roles.

    Args:
        images: Of the run.
        calibration: Source of calibration images; None takes training images.
        wanted: Calibration images, at most.
        learned_from: Source identities of the images that the net has learned from.

    Raises:
        DataInvalid: There are no images for one of the roles, or test images calibrate.
    """
    seen, training = set(learned_from), _training(images)
    order = shuffled(len(training.labels), images.seed, CALIBRATION)
    # half of a small training set is left for choosing, where there is no validation split
    share = len(order) if images.has_labels and images.folds is None else len(order) // 2
    calibrating = training.images[order[: min(wanted, max(1, share))]]
    rest = order[min(wanted, max(1, share)) :]
    if calibration is not None:
        source = open_source(calibration)
        chosen = shuffled(len(source), images.seed, CALIBRATION)[:wanted]
        given = prepare(source, chosen, images.spec, cache=images.folder)
        calibrating, known = given.images, set(given.source_sha256)
        if images.has_labels and images.folds is None:
            test, name = images.splits.test, f"the calibration images of {calibration}"
            check_leaks(
                given.source_sha256, test.source_sha256, name, "the test images", test.items
            )
        rest = np.array([i for i in order if training.source_sha256[i] not in known], np.int64)
    else:
        known = {training.source_sha256[i] for i in order[: len(calibrating)]}
    parts = [images.splits.validation] if images.has_labels and images.folds is None else []
    room = MOST_SELECTION - sum(len(part.labels) for part in parts)
    room = max(0, min(room, len(rest) // 2)) if parts else max(0, room)
    parts.append(_rows(training, rest[:room], "training", labels=False))
    learning = training.images[rest[room:]] if len(rest) > room else calibrating
    selection = joined("selection", parts)
    if not len(selection.labels):
        raise DataInvalid(
            "no images are left to choose between quantised files: all were used to calibrate",
            hint="name other calibration images with --calib, or fewer with --calib-n",
        )
    proof, sources, trained_on = _proof(images, seen | known | set(selection.source_sha256))
    return Material(calibrating, learning, selection, proof, sources, trained_on)


def joined(name: str, parts: Sequence[Split]) -> Split:
    """Return several sets of images as one."""
    filled = [part for part in parts if len(part.labels)]
    if not filled:
        return _rows(parts[0], np.empty(0, np.int64), name)
    pixels = np.concatenate([part.images for part in filled])
    return Split(
        name=name,
        images=pixels,
        labels=np.concatenate([part.labels for part in filled]),
        items=tuple(item for part in filled for item in part.items),
        sha256=tuple(sha for part in filled for sha in part.sha256),
        source_sha256=tuple(sha for part in filled for sha in part.source_sha256),
        data_sha256=images_sha256(pixels),
    )


def _proof(images: Images, used: set[str]) -> tuple[Split, tuple[dict[str, Any], ...], bool]:
    """Return the images to judge on: labelled test images first, then unlabeled ones."""
    parts = []
    if images.has_labels and images.folds is None:
        parts.append(images.splits.test)
    if images.data.proof is not None:
        parts.append(_unused(_named(images, images.data.proof), used))
    if (kept_back := images.held_out) is not None:
        parts.append(_unused(kept_back, used))
    parts = [part for part in parts if len(part.labels)]
    trained_on = not parts
    if trained_on and images.folds is not None:
        parts = [images.folds.all]
    elif trained_on:
        parts = [images.proof]
    sources = tuple(
        {"name": p.name, "n": len(p.labels), "labelled": int((p.labels >= 0).sum())} for p in parts
    )
    return joined("proof", parts), sources, trained_on


def _training(images: Images) -> Split:
    """Return training images at the size of the model; the unlabeled ones where there are."""
    if images.data.unlabeled is not None:
        source = open_source(images.data.unlabeled)
        rows = np.setdiff1d(np.arange(len(source)), images.held_out_rows)
        most = min(len(rows), 4 * MOST_SELECTION)
        chosen = np.sort(rows[shuffled(len(rows), images.seed, PROOF)[:most]])
        prepared = prepare(source, chosen, images.spec, cache=images.folder)
        unlabelled = split_of("unlabeled", prepared, None)
        return _rows(unlabelled, np.arange(len(unlabelled.labels)), "unlabeled", labels=False)
    return images.splits.train if images.folds is None else images.folds.all


def _named(images: Images, where: str) -> Split:
    source = open_source(where)
    prepared = prepare(source, None, images.spec, cache=images.folder)
    split = split_of("proof", prepared, None)
    return _rows(split, np.arange(len(split.labels)), "proof", labels=False)


def _unused(split: Split, used: set[str]) -> Split:
    rows = [i for i, sha in enumerate(split.source_sha256) if sha not in used]
    return _rows(split, np.array(rows, np.int64), split.name)


def _rows(split: Split, rows: NDArray[np.int64], name: str, *, labels: bool = True) -> Split:
    pixels = np.ascontiguousarray(split.images[rows])
    kept = split.labels[rows] if labels else np.full(len(rows), -1, np.int64)
    return Split(
        name=name,
        images=pixels,
        labels=kept,
        items=tuple(split.items[i] for i in rows),
        sha256=tuple(split.sha256[i] for i in rows),
        source_sha256=tuple(split.source_sha256[i] for i in rows),
        data_sha256=images_sha256(pixels),
    )

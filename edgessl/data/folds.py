"""Repeated stratified K-fold: the figure when there are too few labels for a test split.

Every image is tested once per repeat, by a net that saw neither it, nor an exact copy, nor
another image of its group. Source: Kohavi, "A study of cross-validation and bootstrap", 1995.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.data import groups
from edgessl.data.decode import Prepared
from edgessl.data.image_set import Skipped
from edgessl.data.splits import check_unchanged, labelled_sha256

AUTO_FOLDS = 5
# a test split with fewer images than this says too little: one answer is then two points
FEWEST_TEST_IMAGES = 50
SIDES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Fold:
    """Who is who in one fold of one repeat.

    Attributes:
        repeat: 0 and up.
        fold: 0 and up.
        train: int64 positions among all labelled images, ascending.
        validation: As ``train``; without the classes that have one image left after the test
            images are set aside, so it may be empty.
        test: As ``train``.
    """

    repeat: int
    fold: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def folds_for(
    prepared: Prepared, asked: int | str | None, test_share: float, has_test: bool
) -> int | None:
    """Return how many folds are to be made; None for a test split (or source) instead.

    Args:
        prepared: All labelled images.
        asked: ``data.folds``: a number, ``"auto"``, or None for never.
        test_share: Share of the test split that would be made otherwise.
        has_test: Whether there is a source of test images.

    Raises:
        DataInvalid: Folds and test images are both asked for, or there are too few images.
    """
    if asked is None or (asked == "auto" and has_test):
        return None
    refuse_both(asked, has_test)
    if asked == "auto" and round(test_share * len(prepared.items)) >= FEWEST_TEST_IMAGES:
        return None
    counts = groups.class_counts(prepared, groups.units(prepared))
    held = (counts > 0).sum(axis=0)
    most = int(held.min())
    number = min(AUTO_FOLDS, most) if isinstance(asked, str) else asked
    if most < 2 or number > most:
        short = groups.too_few(prepared, counts, 2 if isinstance(asked, str) else number)
        what = "distinct image" if prepared.groups is None else "group"
        listed = ", ".join(f"{prepared.class_names[c]!r}: {n}" for c, (n, _) in short.items())
        raise DataInvalid(
            f"{number if number > 1 else 'at least two'} folds need as many {what}s of every "
            f"class; there are too few in {listed}",
            hint="add images to these classes or remove the classes"
            + ("" if isinstance(asked, str) else f", or ask for at most {max(most, 2)} folds"),
        )
    return number


def refuse_both(asked: int | str | None, has_test: bool) -> None:
    """Refuse a number of folds beside a source of test images.

    Raises:
        DataInvalid: Both are there.
    """
    if has_test and isinstance(asked, int):
        raise DataInvalid(
            f"data.folds={asked} and a source of test images exclude each other",
            hint="leave out --test, or set data.folds to auto or null",
        )


def make_folds(
    prepared: Prepared, *, seed: int, folds: int, repeats: int, validation_share: float
) -> tuple[Fold, ...]:
    """Make repeats x folds assignments; copies and groups stay together.

    Args:
        prepared: All labelled images.
        seed: Another seed, other folds.
        folds: From :func:`folds_for`.
        repeats: How often the folds are drawn.
        validation_share: Share of what is not tested that choices are made on.

    Raises:
        DataInvalid: The groups cannot be shared out.
    """
    found = groups.units(prepared)
    counts = groups.class_counts(prepared, found)
    keys = groups.unit_keys(prepared, found)
    total = counts.sum(axis=0)
    wanted = np.tile(total / folds, (folds, 1))
    parts = []
    for repeat in range(repeats):
        must = np.ones(wanted.shape, bool)
        side = groups.share_out(counts, wanted, must, keys, f"{seed}:fold:{repeat}")
        if side is None:
            raise DataInvalid(
                f"the {len(found)} groups cannot be shared out to {folds} folds with every class "
                "in each",
                hint="ask for fewer (data.folds), group by something finer, or leave group_by out",
            )
        for fold in range(folds):
            rest = np.flatnonzero(side != fold)
            salt = f"{seed}:validation:{repeat}:{fold}"
            chosen = _validation(counts[rest], [keys[u] for u in rest], validation_share, salt)
            parts.append(
                Fold(
                    repeat=repeat,
                    fold=fold,
                    train=_rows(found, rest[~chosen]),
                    validation=_rows(found, rest[chosen]),
                    test=_rows(found, np.flatnonzero(side == fold)),
                )
            )
    return tuple(parts)


def save_folds(
    path: Path,
    prepared: Prepared,
    parts: Sequence[Fold],
    *,
    asked: dict[str, float | str | None],
    skipped: Sequence[Skipped] = (),
) -> None:
    """Write ``splits.json`` for folds: the images as one split, and positions among them.

    Args:
        path: The file.
        prepared: All labelled images.
        parts: What :func:`make_folds` returned.
        asked: What decides the folds: ``seed``, ``group_by``, ``folds``, ``repeats``, ``val``.
        skipped: Files that were left out.
    """
    about = {key: asked[key] for key in ("seed", "group_by")}
    body = {
        "data_sha256": labelled_sha256(prepared),
        **about,
        "asked": {key: value for key, value in asked.items() if key not in about},
        "duplicates": len(prepared.items) - len(set(prepared.source_sha256)),
        "splits": {"all": {"sha256": list(prepared.source_sha256), "items": list(prepared.items)}},
        "folds": [
            {
                "repeat": part.repeat,
                "fold": part.fold,
                "train": part.train.tolist(),
                "validation": part.validation.tolist(),
                "test": part.test.tolist(),
            }
            for part in parts
        ],
        "skipped": [asdict(item) for item in skipped],
    }
    files.write_json(path, "splits", body)


def load_folds(
    path: Path, prepared: Prepared, *, asked: dict[str, float | str | None]
) -> tuple[Fold, ...]:
    """Read folds and check that they belong to these images and to what is asked now.

    Raises:
        FileInvalid: Not a file of folds.
        DataInvalid: Other folds were asked for then, or the images changed since.
    """
    body = files.read_json(path, "splits")
    try:
        stored = body["splits"]["all"]
        members = {"all": tuple(zip(stored["sha256"], stored["items"], strict=True))}
        then = {"seed": body["seed"], "group_by": body["group_by"], **body["asked"]}
        order = np.argsort(stored["sha256"], kind="stable")
        parts = [(int(p["repeat"]), int(p["fold"]), p) for p in body["folds"]]
        sides = [{k: np.asarray(p[k], np.int64) for k in SIDES} for _, _, p in parts]
        data_sha256 = str(body["data_sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileInvalid(
            f"{path} holds no folds ({type(error).__name__}: {error})",
            hint="it was written for a test split; start a new run folder with --out",
        ) from error
    check_unchanged(path, then, asked, data_sha256, members, prepared)
    # equal images are interchangeable, and lie on one side: match both orders by content
    place = np.empty(len(order), np.int64)
    place[order] = np.argsort(prepared.source_sha256, kind="stable")
    return tuple(
        Fold(repeat, fold, *(np.sort(place[side[name]]) for name in SIDES))
        for (repeat, fold, _), side in zip(parts, sides, strict=True)
    )


def _validation(
    counts_UC: NDArray[np.int64], keys: Sequence[str], share: float, salt: str
) -> NDArray[np.bool_]:
    """Choose units for validation, of every class that keeps one to train on."""
    total = counts_UC.sum(axis=0)
    enough = (counts_UC > 0).sum(axis=0) >= 2
    wanted = np.where(enough, np.maximum(share * total, 1.0), 0.0)
    both = np.vstack([total - wanted, wanted])
    for validation_must in (enough, np.zeros_like(enough)):
        must = np.vstack([total > 0, validation_must])
        side = groups.share_out(counts_UC, both, must, keys, salt)
        if side is not None:
            return side == 1
    return np.zeros(len(keys), bool)


def _rows(found: Sequence[Sequence[int]], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(sorted(row for u in chosen for row in found[u]), np.int64)

"""``data.json``: what was found in the images of a run, written when they are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import FileInvalid
from edgessl.data.image_set import ImageSet, Skipped
from edgessl.data.near import NearDuplicates, near_duplicates, thumbnail

FILE, KIND = "data.json", "data-findings"
FACTS = ("splits", "folds", "groups", "near_duplicates")
OVERLAP = "pretraining_overlap"  # written with folds only
SKIPPED_SHOWN, PAIRS_SHOWN = 50, 50
# how many times larger than the smallest the largest class may be without a word
UNEVEN = 5.0
# above this many images near-duplicates are left to `edgessl data check`: the time grows with
# the square of the number
MOST_COMPARED = 20_000


def describe(
    role: str,
    source: ImageSet,
    *,
    labels: NDArray[np.int64] | None,
    sizes: NDArray[np.int64],
    source_sha256: Sequence[str],
    skipped: Sequence[Skipped],
) -> dict[str, Any]:
    """Return the findings about one source as JSON values.

    Args:
        role: ``labels``, ``unlabeled``, ``test``, or another name.
        source: The source.
        labels: Class of every usable image; None without labels.
        sizes: int64 (N, 2), width and height of every usable image.
        source_sha256: Identity of every usable image.
        skipped: Images that could not be used; those of the listing are added.
    """
    left_out = (*source.skipped, *skipped)
    classes = None
    if labels is not None:
        counts = np.bincount(labels, minlength=len(source.class_names))
        classes = {n: int(k) for n, k in zip(source.class_names, counts, strict=True)}
    return {
        "role": role,
        "name": source.name,
        "images": len(source_sha256),
        "classes": classes,
        "sizes": {
            "min": sizes.min(axis=0).tolist(),
            "median": np.median(sizes, axis=0).round().astype(int).tolist(),
            "max": sizes.max(axis=0).tolist(),
        },
        "duplicates": len(source_sha256) - len(set(source_sha256)),
        "skipped": [{"item": s.item, "reason": s.reason} for s in left_out[:SKIPPED_SHOWN]],
        "skipped_count": len(left_out),
    }


def unevenness(classes: Mapping[str, int]) -> str:
    """Return a remark when the classes differ much in size, else ''."""
    if not classes or min(classes.values()) == 0:
        return ""
    most, least = max(classes, key=lambda c: classes[c]), min(classes, key=lambda c: classes[c])
    if classes[most] <= UNEVEN * classes[least]:
        return ""
    return (
        f"the classes are uneven: {classes[most]} images of '{most}', {classes[least]} of '{least}'"
    )


def copies(items: Sequence[str], source_sha256: Sequence[str]) -> str:
    """Return a remark when labelled images are exact copies of others among them, else ''."""
    first: dict[str, str] = {}
    pairs = [
        (item, first[sha])
        for item, sha in zip(items, source_sha256, strict=True)
        if first.setdefault(sha, item) is not item
    ]
    if not pairs:
        return ""
    copy, original = pairs[0]
    return (
        f"{len(pairs)} of {len(items)} labelled images are copies of another, first {copy!r} of "
        f"{original!r}; they stay on one side of a split, and count as images in every figure; "
        "delete them, or take them out of the list"
    )


def compare(images: Sequence[NDArray[np.uint8]], source_sha256: Sequence[str]) -> NearDuplicates:
    """Find near-duplicates among prepared images, uint8 (N, H, W, 3) arrays one after another."""
    small = np.stack([thumbnail(image) for part in images for image in part])
    return near_duplicates(small, source_sha256)


def pairs_of(
    found: NearDuplicates, items: Sequence[str], sides: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the closest pairs as JSON values, those on two sides of a split first."""
    pairs = sorted(found.pairs, key=lambda p: (sides[p.a] == sides[p.b], p.distance))
    return [
        {
            "a": items[p.a],
            "b": items[p.b],
            "a_split": sides[p.a],
            "b_split": sides[p.b],
            "distance": round(p.distance, 4),
        }
        for p in pairs[:PAIRS_SHOWN]
    ]


def read(folder: Path) -> dict[str, Any]:
    """Return the findings of a run, {} where there are none that can be read."""
    with suppress(FileInvalid):
        return files.read_json(folder / FILE, KIND)
    return {}


def write(
    folder: Path, sources: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None
) -> None:
    """Write findings into a run folder; what it knows of other roles stays.

    Args:
        folder: Run folder.
        sources: From :func:`describe`, in the order of opening.
        facts: Those of :data:`FACTS` and :data:`OVERLAP` that are known now; others stay as they
            were.
    """
    before = read(folder)
    by_role = {entry["role"]: entry for entry in (*before.get("sources", ()), *sources)}
    body: dict[str, Any] = {"sources": list(by_role.values())}
    known = {**before, **(facts or {})}
    body |= {key: known.get(key) for key in FACTS}
    if known.get(OVERLAP) is not None:
        body[OVERLAP] = known[OVERLAP]
    files.write_json(folder / FILE, KIND, body)

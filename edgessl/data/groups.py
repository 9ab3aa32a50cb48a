"""Images that belong together, and how they are shared out without tearing them apart.

Exact copies belong together always; images of one camera, day or lot do when ``group_by`` says
how to tell. A *unit* is a set of images that these bonds connect.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid, nearest
from edgessl.data.decode import Prepared
from edgessl.data.image_set import ImageSet

FORMS = "folder, column:NAME or regex:PATTERN"
TRIES = 20  # orders of the units that are tried before an assignment counts as impossible


def grouped(image_set: ImageSet, group_by: str | None) -> ImageSet:
    """Return the source with ``groups`` filled in.

    Args:
        image_set: The source.
        group_by: ``folder``: the name of the folder that an image lies in; ``column:NAME`` of a
            ``.csv`` list; ``regex:PATTERN``: its first group, searched for in the name that is
            shown for an image. None leaves every image on its own.

    Raises:
        DataInvalid: Of another form, no such column, or an image without a group.
    """
    if group_by is None:
        return image_set
    kind, _, detail = group_by.partition(":")
    if group_by == "folder":
        groups = [PurePosixPath(item).parent.name for item in image_set.items]
        missing, hint = "lies in no folder", "use regex:PATTERN or column:NAME"
    elif kind == "column" and detail:
        if detail not in image_set.columns:
            known = nearest(detail, image_set.columns) if image_set.columns else "it has no others"
            raise DataInvalid(
                f"group_by={group_by}: {image_set.name} has no column '{detail}'",
                hint=f"columns belong to .csv lists; {known}",
            )
        groups = list(image_set.columns[detail])
        missing, hint = f"has nothing in the column '{detail}'", "fill it in"
    elif kind == "regex" and detail:
        groups = _matches(image_set.items, detail)
        missing = f"does not match {detail!r}"
        hint = "the pattern is searched for in the path from the source's folder"
    else:
        raise DataInvalid(f"group_by={group_by} is not understood", hint=f"write {FORMS}")
    if bare := [item for item, g in zip(image_set.items, groups, strict=True) if not g]:
        raise DataInvalid(
            f"group_by={group_by}: {len(bare)} of the {len(groups)} images of {image_set.name} "
            f"have no group; {bare[0]!r} {missing}",
            hint=hint,
        )
    return replace(image_set, groups=tuple(groups))


def _matches(items: Sequence[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataInvalid(
            f"group_by=regex:{pattern} is not a regular expression: {error}",
            hint=r"for example regex:(cam\d+)",
        ) from error
    if compiled.groups < 1:
        raise DataInvalid(
            f"group_by=regex:{pattern} has no group in parentheses",
            hint=rf"put parentheses around what names the group: regex:({pattern})",
        )
    found = (compiled.search(item) for item in items)
    return [(match[1] or "") if match else "" for match in found]


def units(prepared: Prepared) -> list[list[int]]:
    """Return the rows of every unit, each ascending, the units by their first row."""
    return connected(prepared.source_sha256, prepared.groups or ())


def connected(*bonds: Sequence[str]) -> list[list[int]]:
    """Return sets of rows that equal keys connect, directly or over others.

    Args:
        bonds: One key per row in each, or nothing; the first has a key for every row.
    """
    parent = list(range(len(bonds[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for keys in bonds:
        first: dict[str, int] = {}
        for row, key in enumerate(keys):
            a, b = root(first.setdefault(key, row)), root(row)
            parent[max(a, b)] = min(a, b)
    members: dict[int, list[int]] = defaultdict(list)
    for row in range(len(parent)):
        members[root(row)].append(row)
    return list(members.values())


def class_counts(prepared: Prepared, found: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return int64 (units, classes): images of each class in each unit."""
    assert prepared.labels is not None
    classes = len(prepared.class_names)
    counts = [np.bincount(prepared.labels[rows], minlength=classes) for rows in found]
    return np.array(counts, np.int64).reshape(len(counts), classes)


def share_out(
    counts_UC: NDArray[np.int64],
    wanted_SC: NDArray[np.float64],
    required_SC: NDArray[np.bool_],
    keys: Sequence[str],
    salt: str,
) -> NDArray[np.int64] | None:
    """Give every unit to a side so that the sides hold about what is wanted of each class.

    Greedy, large units first: a unit goes where its classes are lacking most, measured by the
    squared error relative to the size of the class. Then units move until every side holds the
    classes that it must.

    Args:
        counts_UC: Images of each class in each unit.
        wanted_SC: Images of each class that each side should get.
        required_SC: Which classes a side may not be without.
        keys: Content of every unit: with ``salt`` the only source of chance.
        salt: Another salt, another assignment.

    Returns:
        int64 (U,), the side of every unit; None if no try gave every side what it must have.
    """
    for attempt in range(TRIES):
        drawn = [hashlib.sha256(f"{salt}:{attempt}:{key}".encode()).digest() for key in keys]
        sizes = counts_UC.sum(axis=1) if attempt == 0 else np.zeros(len(keys))
        order = sorted(range(len(keys)), key=lambda u: (-sizes[u], drawn[u]))
        side = _greedy(counts_UC, wanted_SC, order)
        if _repair(side, counts_UC, wanted_SC, required_SC):
            return side
    return None


def _greedy(
    counts_UC: NDArray[np.int64], wanted_SC: NDArray[np.float64], order: Sequence[int]
) -> NDArray[np.int64]:
    weight = 1.0 / np.maximum(counts_UC.sum(axis=0), 1)
    lacking = wanted_SC.astype(np.float64, copy=True)
    side = np.zeros(len(counts_UC), np.int64)
    for u in order:
        count = counts_UC[u]
        gain = ((2 * lacking - count) * (count * weight)).sum(axis=1)
        # between equals, the side that lacks most images altogether
        best = np.flatnonzero(gain >= gain.max() - 1e-12)
        side[u] = best[np.argmax(lacking[best].sum(axis=1))]
        lacking[side[u]] -= count
    return side


def _repair(
    side: NDArray[np.int64],
    counts_UC: NDArray[np.int64],
    wanted_SC: NDArray[np.float64],
    required_SC: NDArray[np.bool_],
) -> bool:
    """Move units, in place, until no required class is missing; False if that cannot be done."""
    sides = len(wanted_SC)
    has_UC = counts_UC > 0
    weight = 1.0 / np.maximum(counts_UC.sum(axis=0), 1)
    while True:
        units_SC = np.array([has_UC[side == s].sum(axis=0) for s in range(sides)])
        missing = np.argwhere(required_SC & (units_SC == 0))
        if not len(missing):
            return True
        target, wanted_class = missing[0]
        held = np.array([counts_UC[side == s].sum(axis=0) for s in range(sides)])
        # what leaves may not be the last of a class that its side must have
        last_UC = has_UC & (required_SC & (units_SC == 1))[side]
        free = has_UC[:, wanted_class] & (side != target) & ~last_UC.any(axis=1)
        if not free.any():
            return False
        candidates = np.flatnonzero(free)
        lacking = wanted_SC - held
        moved = counts_UC[candidates]
        gain = (2 * (lacking[target] - lacking[side[candidates]]) - 2 * moved) * moved * weight
        side[candidates[np.argmax(gain.sum(axis=1))]] = target


def unit_keys(prepared: Prepared, found: Sequence[Sequence[int]]) -> list[str]:
    """Return the identity of every unit's content, whatever the order of its images."""
    return [min(prepared.source_sha256[row] for row in rows) for rows in found]


def too_few(
    prepared: Prepared, counts_UC: NDArray[np.int64], needed: int
) -> dict[int, tuple[int, int]]:
    """Return the classes that lie in fewer units than needed: class to (units, images)."""
    assert prepared.labels is not None
    held = (counts_UC > 0).sum(axis=0)
    images = counts_UC.sum(axis=0)
    return {int(c): (int(held[c]), int(images[c])) for c in np.flatnonzero(held < needed)}

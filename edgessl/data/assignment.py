"""Which image goes to which split: by class, or by groups that may hold several classes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from edgessl.core.errors import DataInvalid
from edgessl.data import groups
from edgessl.data.decode import Prepared


def by_class(prepared: Prepared, seed: int, totals: Mapping[str, int]) -> dict[str, list[int]]:
    """Share out class by class: the counts come out exactly unless there are copies.

    Args:
        prepared: Labelled images.
        seed: Another seed, another assignment.
        totals: Images of every split but train, which takes the remainder.

    Returns:
        Split name to positions of its images.

    Raises:
        DataInvalid: A class has fewer distinct images than there are splits.
    """
    copies = _copies_by_class(prepared, seed)
    names = ("train", *totals)
    short = {c: len(g) for c, g in copies.items() if len(g) < len(names)}
    if short:
        listed = ", ".join(f"{prepared.class_names[c]!r}: {k}" for c, k in short.items())
        raise DataInvalid(
            f"every class needs a distinct image for each of {', '.join(names)}; "
            f"too few in {listed}",
            hint="add images to these classes or remove the classes",
        )
    sizes = {c: sum(map(len, found)) for c, found in copies.items()}
    quotas = {name: _spread(total, sizes) for name, total in totals.items()}
    rows: dict[str, list[int]] = {name: [] for name in names}
    for c, found in copies.items():
        wanted = {name: quotas[name][c] for name in totals}
        for name, members in _assign(found, wanted).items():
            rows[name] += members
    return rows


def by_group(prepared: Prepared, seed: int, totals: Mapping[str, int]) -> dict[str, list[int]]:
    """Share out whole groups, which may hold images of several classes.

    Args and result as in :func:`by_class`; counts come near to what is wanted.

    Raises:
        DataInvalid: A class lies in fewer groups than there are splits, or the groups cannot
            be shared out.
    """
    names = ("train", *totals)
    found = groups.units(prepared)
    counts = groups.class_counts(prepared, found)
    if short := groups.too_few(prepared, counts, len(names)):
        listed = ", ".join(
            f"{prepared.class_names[c]!r}: {images} image(s) in {held} group(s)"
            for c, (held, images) in list(short.items())[:5]
        )
        raise DataInvalid(
            f"every class needs a group for each of {', '.join(names)}; too few of "
            f"{len(short)} class(es): {listed}",
            hint="group by something finer, give a --test source, or leave group_by out",
        )
    sizes = {c: int(n) for c, n in enumerate(counts.sum(axis=0))}
    quotas = {name: _spread(total, sizes) for name, total in totals.items()}
    others = np.array([[quotas[name][c] for c in sizes] for name in totals], np.float64)
    wanted = np.vstack([counts.sum(axis=0) - others.sum(axis=0), others])
    keys = groups.unit_keys(prepared, found)
    side = groups.share_out(counts, wanted, np.ones(wanted.shape, bool), keys, str(seed))
    if side is None:
        largest = max(map(len, found))
        raise DataInvalid(
            f"the {len(found)} groups cannot be shared out to {', '.join(names)} with every "
            f"class in each; the largest group has {largest} of {len(prepared.items)} images",
            hint="group by something finer, give a --test source, or leave group_by out",
        )
    return {
        name: [row for u in np.flatnonzero(side == s) for row in found[u]]
        for s, name in enumerate(names)
    }


def _copies_by_class(prepared: Prepared, seed: int) -> dict[int, list[list[int]]]:
    """Class to groups of identical images, large groups first, else in hashed order.

    Copies with different labels stay together, under their most common label.
    """
    assert prepared.labels is not None
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sha in enumerate(prepared.source_sha256):
        rows[sha].append(row)
    by_class: dict[int, list[list[int]]] = {c: [] for c in range(len(prepared.class_names))}
    hashed = {sha: hashlib.sha256(f"{seed}:{sha}".encode()).digest() for sha in rows}
    for sha in sorted(rows, key=lambda sha: (-len(rows[sha]), hashed[sha])):
        votes = Counter(int(label) for label in prepared.labels[rows[sha]])
        by_class[min(votes, key=lambda c: (-votes[c], c))].append(rows[sha])
    return by_class


def _spread(total: int, sizes: Mapping[int, int]) -> dict[int, int]:
    """Share ``total`` among classes by size, largest remainder first, at least one each."""
    n = sum(sizes.values())
    exact = {c: total * size / n for c, size in sizes.items()}
    quota = {c: int(x) for c, x in exact.items()}
    for c in sorted(exact, key=lambda c: (quota[c] - exact[c], c))[: total - sum(quota.values())]:
        quota[c] += 1
    return {c: max(1, k) for c, k in quota.items()}


def _assign(groups: list[list[int]], wanted: Mapping[str, int]) -> dict[str, list[int]]:
    """Give each group to the split that lacks most images, train taking the remainder."""
    lacking = {"train": sum(map(len, groups)) - sum(wanted.values()), **wanted}
    result: dict[str, list[int]] = {name: [] for name in lacking}
    for position, group in enumerate(groups):
        empty = [name for name in result if not result[name]]
        # the last groups are kept for splits that would stay empty
        choice = empty if len(groups) - position <= len(empty) else list(result)
        target = max(choice, key=lambda name: lacking[name])
        result[target] += group
        lacking[target] -= len(group)
    return result

"""``edgessl data check``: look at every image before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, EdgeSSLError, UsageProblem
from edgessl.core.recipe import Data
from edgessl.data.folds import folds_for
from edgessl.data.groups import connected, grouped
from edgessl.data.image_set import ImageUnreadable
from edgessl.data.inspection import Inspection, inspect, salvage
from edgessl.data.lists import write_list
from edgessl.data.near import NearDuplicates, near_duplicates
from edgessl.data.sources import open_source
from edgessl.data.splits import make_splits
from edgessl.report.data_page import picture, write_data_page
from edgessl.stages.findings import describe, pairs_of, unevenness

# the time to look for near-duplicates grows with the square of their number: 60,000 images take
# about 15 s on one core
MOST_COMPARED = 100_000
ROLES = ("labels", "unlabeled", "test")
SKIPPED_PICTURED = 12
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Role:
    """A source and what it is for, with what was seen in it and how its rows are split."""

    name: str
    seen: Inspection
    sides: tuple[str, ...]


def check_data(
    sources: Sequence[tuple[str, str]],
    data: Data,
    seed: int,
    *,
    imgsz: int | None = None,
    out: Path | None = None,
    group_list: Path | None = None,
    reporter: Reporter,
) -> tuple[dict[str, Any], list[EdgeSSLError]]:
    """Look at every image of all sources.

    Args:
        sources: Pairs of role and source; the roles ``labels``, ``unlabeled`` and ``test`` mean
            what they mean in a recipe, others nothing.
        data: Section of a recipe: shares, folds, ``group_by``.
        seed: Of the splits.
        imgsz: Input side that smaller images are told for.
        out: HTML page; None writes ``data-check.html`` if there is something to show.
        group_list: A ``.csv`` list to write, with near-duplicates as groups.
        reporter: Shows progress.

    Returns:
        Findings as JSON values, and what makes the data unusable: images in two sources that
        must be apart, classes that are too small to be split.

    Raises:
        DataInvalid: A source cannot be opened, or has no image that can be decoded.
        UsageProblem: ``group_list`` exists, or the images have no files of their own.
    """
    opened = []
    for role, where in sources:
        source = open_source(where)
        if role in ("labels", "test"):
            source.require_labels()
        opened.append((role, grouped(source, data.group_by) if role == "labels" else source))
    if group_list is not None:
        _check_list(group_list, opened[0][1].paths is not None, opened[0][1].name)
    seen: list[Inspection] = []
    for _, source in opened:
        with reporter.bar(f"looking at {source.name}", total=len(source)) as bar:
            seen.append(inspect(source, bar.update))
        if not len(seen[-1].kept):
            first = (*source.skipped, *seen[-1].skipped)[0]
            raise DataInvalid(
                f"no image of {source.name} can be used, first {first.item!r}: {first.reason}"
            )
    errors: list[EdgeSSLError] = []
    remarks: list[str] = []
    facts: dict[str, Any] = {"splits": None, "folds": None, "groups": None}
    roles = []
    for (name, _), found in zip(opened, seen, strict=True):
        # sources without a role are told apart by what the user called them
        sides = [name if name in ROLES else found.source.name] * len(found.kept)
        if name == "labels":
            has_test = any(role == "test" for role, _ in sources)
            sides = _assign(found, data, seed, has_test, facts, errors)
        roles.append(Role(name, found, tuple(sides)))
        remarks += _remarks(found, imgsz)
    errors += _shared(roles, facts["folds"] is not None, remarks)
    near = _near(roles, remarks)
    near_facts = _near_facts(roles, near)
    if near_facts["near_across"]:
        remarks.append(
            f"{near_facts['near_across']} pair(s) of near-duplicates lie on two sides of a split "
            "or in two sources; a split keeps them together after --group-near-duplicates "
            "grouped.csv, with --labels grouped.csv --set data.group_by=column:group"
        )
    body = {
        "sources": [_described(role) for role in roles],
        **facts,
        "errors": [error.message for error in errors],
        "remarks": remarks,
        **near_facts,
        "page": None,
        "list": None,
    }
    something = bool(body["near_duplicates"]) or any(s["skipped_count"] for s in body["sources"])
    if out is not None or something:
        page = Path("data-check.html") if out is None else out
        body["page"] = str(_write_page(page, body, roles))
    if group_list is not None:
        body["list"] = str(_write_list(group_list, roles, near))
    return body, errors


def _described(role: Role) -> dict[str, Any]:
    seen = role.seen
    aspects = seen.sizes[:, 0] / seen.sizes[:, 1]
    body = describe(
        role.name, seen.source, labels=seen.labels, sizes=seen.sizes,
        source_sha256=seen.source_sha256, skipped=seen.skipped,
    )  # fmt: skip
    low, middle, high = (round(float(f(aspects)), 3) for f in (np.min, np.median, np.max))
    return body | {"aspect": {"min": low, "median": middle, "max": high}, "modes": seen.modes}


def _assign(
    seen: Inspection, data: Data, seed: int, has_test: bool, facts: dict[str, Any],
    errors: list[EdgeSSLError],
) -> list[str]:  # fmt: skip
    """Return the split of every labelled image as a run would make it, and fill in the facts."""
    prepared = seen.prepared()
    sides = ["labels"] * len(seen.kept)
    if prepared.groups is not None:
        facts["groups"] = len(set(prepared.groups))
    try:
        facts["folds"] = folds_for(prepared, data.folds, data.test_share, has_test)
        if facts["folds"] is not None:
            return sides
        test = 0.0 if has_test else data.test_share
        made = make_splits(prepared, seed=seed, val=data.validation_share, test=test)
    except DataInvalid as error:
        errors.append(error)
        return sides
    facts["splits"] = {}
    for split, rows in made.indices(prepared.source_sha256).items():
        name = {"val": "validation"}.get(split, split)
        facts["splits"][name] = len(rows)
        for row in rows:
            sides[row] = name
    return sides


def _remarks(seen: Inspection, imgsz: int | None) -> list[str]:
    found = []
    name = seen.source.name
    small = 0 if imgsz is None else int((seen.sizes.min(axis=1) < imgsz).sum())
    if small:
        found.append(
            f"{name}: {small} of {len(seen.kept)} images have a short side below {imgsz} pixels "
            "(--imgsz) and would be enlarged"
        )
    if seen.labels is None:
        return found
    counts = np.bincount(seen.labels, minlength=len(seen.source.class_names)).tolist()
    if remark := unevenness(dict(zip(seen.source.class_names, counts, strict=True))):
        found.append(f"{name}: {remark}; consider --set finetune.balanced=true")
    first: dict[str, int] = {}
    torn = [
        (first[sha], row)
        for row, sha in enumerate(seen.source_sha256)
        if seen.labels[first.setdefault(sha, row)] != seen.labels[row]
    ]
    if torn:
        a, b = (seen.items[row] for row in torn[0])
        found.append(f"{name}: {len(torn)} exact copies have another class, first {a!r} and {b!r}")
    return found


def _shared(roles: Sequence[Role], folds: bool, remarks: list[str]) -> list[EdgeSSLError]:
    """Return an error for any two sources that share an image."""
    errors: list[EdgeSSLError] = []
    for j, two in enumerate(roles):
        for one in roles[:j]:
            known = {sha: row for row, sha in enumerate(one.seen.source_sha256)}
            rows = [r for r, sha in enumerate(two.seen.source_sha256) if sha in known]
            if not rows:
                continue
            examples = "; ".join(
                f"{one.seen.items[known[two.seen.source_sha256[r]]]!r} is {two.seen.items[r]!r}"
                for r in rows[:EXAMPLES]
            )
            message = (
                f"{len(rows)} image(s) of {two.seen.source.name} ({two.name}) are also in "
                f"{one.seen.source.name} ({one.name}): {examples}"
            )
            if folds and {one.name, two.name} == {"labels", "unlabeled"}:
                remarks.append(f"{message}; in folds the pretraining may see them without labels")
            else:
                hint = "remove them from one of the two: what is measured must not be trained on"
                errors.append(DataInvalid(message, hint=hint))
    return errors


def _near(roles: Sequence[Role], remarks: list[str]) -> NearDuplicates | None:
    total = sum(len(role.seen.kept) for role in roles)
    if total > MOST_COMPARED:
        remarks.append(
            f"near-duplicates were not looked for: {total} images, at most {MOST_COMPARED}"
        )
        return None
    small = np.concatenate([role.seen.thumbnails for role in roles])
    return near_duplicates(small, [sha for role in roles for sha in role.seen.source_sha256])


def _near_facts(roles: Sequence[Role], near: NearDuplicates | None) -> dict[str, Any]:
    if near is None:
        return dict.fromkeys(("near_duplicates", "near_groups", "near_images", "near_across"))
    items = [item for role in roles for item in role.seen.items]
    sides = [side for role in roles for side in role.sides]
    paired = np.array([row for pair in near.pairs for row in (pair.a, pair.b)], np.int64)
    grown = np.unique(near.group[paired])
    return {
        "near_duplicates": pairs_of(near, items, sides),
        "near_groups": len(grown),
        "near_images": int(np.isin(near.group, grown).sum()),
        "near_across": sum(sides[p.a] != sides[p.b] for p in near.pairs),
    }


def _write_page(out: Path, body: dict[str, Any], roles: Sequence[Role]) -> Path:
    at = {}
    for role in roles:
        for position, item, side in zip(role.seen.kept, role.seen.items, role.sides, strict=True):
            at[side, item] = (role.seen.source, int(position))

    def shown(side: str, item: str) -> str | None:
        source, position = at[side, item]
        try:
            return picture(source.load(position))
        except ImageUnreadable:  # gone since it was looked at
            return None

    pairs = [
        pair | {f"{k}_picture": shown(pair[f"{k}_split"], pair[k]) for k in "ab"}
        for pair in body["near_duplicates"] or []
    ]
    skipped = []
    for role in roles:
        source = role.seen.source
        listed = [(s, None) for s in source.skipped]
        path_of = dict(zip(source.items, source.paths or (), strict=False))
        listed += [(s, path_of.get(s.item)) for s in role.seen.skipped]
        for left_out, path in listed:
            rest = salvage(path) if path and len(skipped) < SKIPPED_PICTURED else None
            skipped.append(
                {
                    "role": role.name,
                    "item": left_out.item,
                    "reason": left_out.reason,
                    "picture": None if rest is None else picture(rest),
                }
            )
    return write_data_page(out, body, pairs, skipped[:500])


def _check_list(path: Path, has_files: bool, name: str) -> None:
    if path.suffix.lower() != ".csv":
        raise UsageProblem(f"{path} must end in .csv", hint="for example grouped.csv")
    if path.exists():
        raise UsageProblem(f"{path} exists and is not overwritten", hint="choose another name")
    if not has_files:
        raise UsageProblem(
            f"the images of {name} have no files of their own to list",
            hint="lists are for folders and other lists",
        )


def _write_list(path: Path, roles: Sequence[Role], near: NearDuplicates | None) -> Path:
    """List the images of the first source, near-duplicates (and its groups) as ``group``."""
    seen = roles[0].seen
    assert seen.source.paths is not None  # see _check_list
    paths = seen.source.paths
    alike = [str(n) for n in (near.group if near else np.arange(len(seen.kept)))]
    units = connected(alike[: len(seen.kept)], seen.groups or ())
    group = {row: f"group {min(rows)}" for rows in units for row in rows}
    columns = {
        name: [values[position] for position in seen.kept]
        for name, values in seen.source.columns.items()
    }
    columns["group"] = [group[row] for row in range(len(seen.kept))]
    labels = None if seen.labels is None else [seen.source.class_names[c] for c in seen.labels]
    return write_list(path, [paths[position] for position in seen.kept], labels, columns)

"""Who is trained on, who chooses, who is measured: splits without leaks, and label draws.

Images with the same decoded pixels stay together, and so do the groups of ``group_by``, so an
exact copy or another picture of the same day never lies on two sides. The order within a class
comes from a hash of (seed, pixels): neither file names nor file order matter, nor the size that
images are prepared at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.data.assignment import by_class, by_group
from edgessl.data.decode import Prepared
from edgessl.data.image_set import Skipped
from edgessl.data.keyed_random import uniforms

# stands in the key where views have their number, so that draws and views stay independent
LABEL_DRAWS = -1


@dataclass(frozen=True, slots=True)
class Splits:
    """The assignment of one labelled source.

    Attributes:
        data_sha256: Identity of the labelled images, whatever their order and names.
        seed: Seed of the order within each class.
        asked: ``val`` and ``test`` as asked for: a fraction or a number of images.
        members: Split name to (source sha256, item name) pairs.
        duplicates: Images that are exact copies of another one.
        group_by: How groups were told, or None.
    """

    data_sha256: str
    seed: int
    asked: Mapping[str, float]
    members: Mapping[str, tuple[tuple[str, str], ...]]
    duplicates: int
    group_by: str | None = None

    def indices(self, source_sha256: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return the positions of every split among images (``Prepared.source_sha256``)."""
        side = {sha: name for name, pairs in self.members.items() for sha, _ in pairs}
        sides = [side.get(sha) for sha in source_sha256]
        return {
            name: np.array([i for i, own in enumerate(sides) if own == name], np.int64)
            for name in self.members
        }

    def save(self, path: Path, skipped: Sequence[Skipped] = ()) -> None:
        """Write ``splits.json``, with the files that were left out."""
        body = {
            "data_sha256": self.data_sha256,
            "seed": self.seed,
            "asked": dict(self.asked),
            "duplicates": self.duplicates,
            "group_by": self.group_by,
            "splits": {
                name: {"sha256": [sha for sha, _ in pairs], "items": [i for _, i in pairs]}
                for name, pairs in self.members.items()
            },
            "skipped": [asdict(item) for item in skipped],
        }
        files.write_json(path, "splits", body)


def make_splits(
    prepared: Prepared,
    *,
    seed: int,
    val: float = 0.15,
    test: float = 0.15,
    group_by: str | None = None,
) -> Splits:
    """Split labelled images by class into train, val and test.

    Args:
        prepared: Images with labels.
        seed: Another seed, another assignment.
        val: Fraction in (0, 1) or number of images (1 or more); 0 makes no such split.
        test: As ``val``. Train is what remains.
        group_by: How ``prepared.groups`` were told, to be remembered.

    Returns:
        Every split has about the same mix of classes, and at least one image of each.

    Raises:
        DataInvalid: No labels, shares that leave nothing to train on, a class with fewer
            distinct images (or groups) than splits, or groups that cannot be shared out.
    """
    if prepared.labels is None:
        raise DataInvalid("images without labels cannot be split by class")
    asked = {"val": val, "test": test}
    n = len(prepared.source_sha256)
    totals = {name: _total(name, share, n) for name, share in asked.items() if share}
    if sum(totals.values()) >= n:
        raise DataInvalid(
            f"val={val} and test={test} take all of the {n} images",
            hint="ask for less, so that some are left to train on",
        )
    names = ("train", *totals)
    assign = by_class if prepared.groups is None else by_group
    rows = assign(prepared, seed, totals)
    return Splits(
        data_sha256=labelled_sha256(prepared),
        seed=seed,
        asked=asked,
        members={
            name: tuple((prepared.source_sha256[i], prepared.items[i]) for i in sorted(rows[name]))
            for name in names
        },
        duplicates=n - len(set(prepared.source_sha256)),
        group_by=group_by,
    )


def load_splits(
    path: Path,
    prepared: Prepared,
    *,
    seed: int | None = None,
    val: float | None = None,
    test: float | None = None,
    group_by: str | None = None,
) -> Splits:
    """Read ``splits.json`` and check that it belongs to these images and to what is asked now.

    Args:
        path: The file.
        prepared: The labelled images.
        seed: As now asked for, like ``val`` and ``test`` in :func:`make_splits`; what is None
            is not compared.
        val: Share or number of the validation images.
        test: Share or number of the test images.
        group_by: How groups are told now.

    Raises:
        FileInvalid: Not a file of splits.
        DataInvalid: Other splits were asked for then, or images were added, removed, changed or
            moved to another class since.
    """
    body = files.read_json(path, "splits")
    try:
        splits = Splits(
            data_sha256=str(body["data_sha256"]),
            seed=body["seed"],
            asked=dict(body["asked"]),
            members={
                name: tuple(zip(part["sha256"], part["items"], strict=True))
                for name, part in body["splits"].items()
            },
            duplicates=body["duplicates"],
            group_by=body.get("group_by"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileInvalid(f"{path} is not a whole file of splits: {error}") from error
    then = {"seed": splits.seed, "group_by": splits.group_by, **splits.asked}
    now = {"seed": seed, "val": val, "test": test}
    now = {name: x for name, x in now.items() if x is not None} | {"group_by": group_by}
    check_unchanged(path, then, now, splits.data_sha256, splits.members, prepared)
    return splits


def check_unchanged(
    path: Path,
    then: Mapping[str, object],
    now: Mapping[str, object],
    data_sha256: str,
    members: Mapping[str, Sequence[tuple[str, str]]],
    prepared: Prepared,
) -> None:
    """Refuse a stored assignment that was asked for otherwise, or of other images.

    Args:
        path: Its file, for the message.
        then: What it was made with.
        now: What is asked for; names that it lacks are not compared.
        data_sha256: Identity of the images it was made of.
        members: These images, as in :class:`Splits`.
        prepared: The images of today.

    Raises:
        DataInvalid: Says what differs.
    """
    if other := [name for name, x in now.items() if x != then.get(name)]:
        was = ", ".join(f"{name}={then.get(name)}" for name in other)
        asked = ", ".join(f"{name}={now[name]}" for name in other)
        raise DataInvalid(
            f"{path} was written with {was}; now asked for: {asked}",
            hint="ask for the same again, or start a new run folder with --out",
        )
    if (seen := labelled_sha256(prepared)) != data_sha256:
        before = Counter(sha for pairs in members.values() for sha, _ in pairs)
        here = Counter(prepared.source_sha256)
        new, gone = (here - before).total(), (before - here).total()
        change = f"{new} new, {gone} gone" if new or gone else "labels or groups differ"
        raise DataInvalid(
            f"the labelled images changed since {path} was written ({change}; data sha256 "
            f"{seen[:12]}, then {data_sha256[:12]})",
            hint="restore the images, or start a new run folder with --out",
        )


def labelled_sha256(prepared: Prepared) -> str:
    """Return the identity of labelled images with their classes and groups, in any order."""
    assert prepared.labels is not None
    names = [prepared.class_names[c] for c in prepared.labels]
    if prepared.groups is not None:
        names = [f"{name} {group}" for name, group in zip(names, prepared.groups, strict=True)]
    pairs = zip(prepared.source_sha256, names, strict=True)
    lines = sorted(f"{sha} {name}\n" for sha, name in pairs)
    return files.sha256_bytes("".join(lines).encode())


def check_leaks(
    a_sha256: Sequence[str],
    b_sha256: Sequence[str],
    a_name: str,
    b_name: str,
    b_items: Sequence[str] = (),
) -> None:
    """Refuse two sources that share an image, pixel for pixel.

    Args:
        a_sha256: ``source_sha256`` of the images of the source called ``a_name``.
        b_sha256: ``source_sha256`` of the images of the source called ``b_name``.
        a_name: What the message calls the first source, for example ``--unlabeled photos``.
        b_name: What the message calls the second source.
        b_items: Names of the images of the second source, for the message.

    Raises:
        DataInvalid: They share images; the first three are named.
    """
    known = set(a_sha256)
    shared = [i for i, sha in enumerate(b_sha256) if sha in known]
    if shared:
        shown = [repr(b_items[i]) if b_items else b_sha256[i][:12] for i in shared[:3]]
        more = ", ..." if len(shared) > 3 else ""
        raise DataInvalid(
            f"{len(shared)} image(s) of {b_name} are also in {a_name}: {', '.join(shown)}{more}",
            hint=f"remove them from {a_name}: what is measured must not have been trained on",
        )


def draw_labels(
    labels: NDArray[np.int64],
    per_class: int,
    *,
    seed: int,
    draw: int,
    class_names: Sequence[str] = (),
    source_sha256: Sequence[str] = (),
) -> NDArray[np.int64]:
    """Choose ``per_class`` images of every class at random.

    The choice is a function of its arguments; a smaller ``per_class`` of the same draw is a
    subset of a larger one. A copy of an image is drawn only once the class has no other left.

    Args:
        labels: int64 (N,) of the images to choose from.
        per_class: Images per class, 1 or more.
        seed: Seed of the run.
        draw: Number of the draw; draws are repeated to see how much the choice matters.
        class_names: Names of the classes, for the message; numbers stand in without them.
        source_sha256: Identity of every image, to tell copies; without it all count as distinct.

    Returns:
        int64 positions in ``labels``, ascending.

    Raises:
        DataInvalid: A class has fewer images.
    """
    counts = {int(c): int(k) for c, k in zip(*np.unique(labels, return_counts=True), strict=True)}
    short = {c: k for c, k in counts.items() if k < per_class}
    if short or per_class < 1:
        names = {c: repr(class_names[c]) if class_names else f"class {c}" for c in short}
        listed = ", ".join(f"{names[c]}: {k}" for c, k in short.items()) or "nothing asked for"
        raise DataInvalid(
            f"cannot draw {per_class} labelled images per class: {listed}",
            hint=f"ask for 1 to {min(counts.values(), default=0)} labels per class",
        )
    order = np.argsort(
        uniforms(seed, draw, np.arange(len(labels)), LABEL_DRAWS, 1)[:, 0], kind="stable"
    )
    chosen = [_copies_last(order[labels[order] == c], source_sha256)[:per_class] for c in counts]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _copies_last(rows: NDArray[np.int64], source_sha256: Sequence[str]) -> NDArray[np.int64]:
    if not source_sha256:
        return rows
    _, first = np.unique([source_sha256[row] for row in rows], return_index=True)
    copy = np.ones(len(rows), bool)
    copy[first] = False
    return np.concatenate([rows[~copy], rows[copy]])


def _total(name: str, share: float, n: int) -> int:
    if not share >= 0 or (share > 1 and share != int(share)):
        raise DataInvalid(f"{name}={share} is neither a fraction in (0, 1) nor a number of images")
    return int(share) if share >= 1 else max(1, round(share * n))

"""Who is trained on, who chooses, who is measured: splits without leaks, and label draws.

Images with the same decoded pixels form a group, and groups are what is assigned, so an exact
copy never lies on two sides. The order within a class comes from a hash of (seed, pixels):
neither file names nor file order matter, nor the size that images are prepared at.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.errors import DataInvalid, FileInvalid
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
    """

    data_sha256: str
    seed: int
    asked: Mapping[str, float]
    members: Mapping[str, tuple[tuple[str, str], ...]]
    duplicates: int

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
            "splits": {
                name: {"sha256": [sha for sha, _ in pairs], "items": [i for _, i in pairs]}
                for name, pairs in self.members.items()
            },
            "skipped": [asdict(item) for item in skipped],
        }
        files.write_json(path, "splits", body)


def make_splits(prepared: Prepared, *, seed: int, val: float = 0.15, test: float = 0.15) -> Splits:
    """Split labelled images by class into train, val and test.

    Args:
        prepared: Images with labels.
        seed: Another seed, another assignment.
        val: Fraction in (0, 1) or number of images (1 or more); 0 makes no such split.
        test: As ``val``. Train is what remains.

    Returns:
        Every split has about the same mix of classes, and at least one image of each.

    Raises:
        DataInvalid: No labels, shares that leave nothing to train on, or a class with fewer
            distinct images than splits.
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
    by_class = _groups_by_class(prepared, seed)
    names = ("train", *totals)
    short = {c: len(g) for c, g in by_class.items() if len(g) < len(names)}
    if short:
        listed = ", ".join(f"{prepared.class_names[c]!r}: {k}" for c, k in short.items())
        raise DataInvalid(
            f"every class needs a distinct image for each of {', '.join(names)}; "
            f"too few in {listed}",
            hint="add images to these classes or remove the classes",
        )
    sizes = {c: sum(map(len, groups)) for c, groups in by_class.items()}
    quotas = {name: _spread(total, sizes) for name, total in totals.items()}
    rows: dict[str, list[int]] = {name: [] for name in names}
    for c, groups in by_class.items():
        wanted = {name: quotas[name][c] for name in totals}
        for name, members in _assign(groups, wanted).items():
            rows[name] += members
    return Splits(
        data_sha256=_data_sha256(prepared),
        seed=seed,
        asked=asked,
        members={
            name: tuple((prepared.source_sha256[i], prepared.items[i]) for i in sorted(rows[name]))
            for name in names
        },
        duplicates=n - len(set(prepared.source_sha256)),
    )


def load_splits(
    path: Path,
    prepared: Prepared,
    *,
    seed: int | None = None,
    val: float | None = None,
    test: float | None = None,
) -> Splits:
    """Read ``splits.json`` and check that it belongs to these images and to what is asked now.

    Args:
        path: The file.
        prepared: The labelled images.
        seed: As now asked for, like ``val`` and ``test`` in :func:`make_splits`; what is None
            is not compared.
        val: Share or number of the validation images.
        test: Share or number of the test images.

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
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileInvalid(f"{path} is not a whole file of splits: {error}") from error
    then = {"seed": splits.seed, **splits.asked}
    now = {"seed": seed, "val": val, "test": test}
    if other := [name for name, x in now.items() if x is not None and x != then.get(name)]:
        was = ", ".join(f"{name}={then.get(name)}" for name in other)
        asked = ", ".join(f"{name}={now[name]}" for name in other)
        raise DataInvalid(
            f"{path} was written with {was}; now asked for: {asked}",
            hint="ask for the same again, or start a new run folder with --out",
        )
    if (seen := _data_sha256(prepared)) != splits.data_sha256:
        before = Counter(sha for pairs in splits.members.values() for sha, _ in pairs)
        here = Counter(prepared.source_sha256)
        new, gone = (here - before).total(), (before - here).total()
        change = f"{new} new, {gone} gone" if new or gone else "labels differ"
        raise DataInvalid(
            f"the labelled images changed since {path} was written ({change}; data sha256 "
            f"{seen[:12]}, then {splits.data_sha256[:12]})",
            hint="restore the images, or start a new run folder with --out",
        )
    return splits


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
) -> NDArray[np.int64]:
    """Choose ``per_class`` images of every class at random.

    The choice is a function of its arguments; a smaller ``per_class`` of the same draw is a
    subset of a larger one.

    Args:
        labels: int64 (N,) of the images to choose from.
        per_class: Images per class, 1 or more.
        seed: Seed of the run.
        draw: Number of the draw; draws are repeated to see how much the choice matters.
        class_names: Names of the classes, for the message; numbers stand in without them.

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
    chosen = [order[labels[order] == c][:per_class] for c in counts]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _total(name: str, share: float, n: int) -> int:
    if not share >= 0 or (share > 1 and share != int(share)):
        raise DataInvalid(f"{name}={share} is neither a fraction in (0, 1) nor a number of images")
    return int(share) if share >= 1 else max(1, round(share * n))


def _groups_by_class(prepared: Prepared, seed: int) -> dict[int, list[list[int]]]:
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


def _data_sha256(prepared: Prepared) -> str:
    assert prepared.labels is not None
    names = (prepared.class_names[c] for c in prepared.labels)
    pairs = zip(prepared.source_sha256, names, strict=True)
    lines = sorted(f"{sha} {name}\n" for sha, name in pairs)
    return files.sha256_bytes("".join(lines).encode())

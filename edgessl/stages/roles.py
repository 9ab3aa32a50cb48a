"""Images by role: what is pretrained on, trained on with labels, chosen on, measured on.

An image is known by the hash of its decoded source pixels, so that roles stay apart whatever
size the images are prepared at. With too few labels for a test split there are folds instead:
see :attr:`Images.folds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.images import images_sha256
from edgessl.core.recipe import Recipe
from edgessl.data.decode import Prepared, prepare, prepare_storage
from edgessl.data.folds import folds_for, refuse_both
from edgessl.data.groups import grouped
from edgessl.data.image_set import ImageSet
from edgessl.data.sources import open_source
from edgessl.data.splits import check_leaks
from edgessl.stages import findings
from edgessl.stages.assignment import FILE as SPLITS_FILE
from edgessl.stages.assignment import (
    Folds,
    Pool,
    Split,
    Splits,
    hold_out,
    in_folds,
    shared_groups,
    split_of,
    unused_budgets,
)
from edgessl.stages.proving import held_out_rows

__all__ = ["Folds", "Images", "Pool", "Split", "Splits", "check_sources"]

PROOFS = 256  # unlabeled images that an embedding model is compared on


class Images:
    """The images of a recipe, decoded when first asked for.

    Args:
        recipe: Its ``data`` section and seed.
        spec: Size that images are prepared at.
        folder: Run folder: gets ``splits.json`` and ``data.json``, and keeps large pixel files
            while the run lasts.
        reporter: Told about counts and skipped files.
    """

    def __init__(self, recipe: Recipe, spec: InputSpec, folder: Path, reporter: Reporter) -> None:
        self.data, self.seed, self.spec = recipe.data, recipe.seed, spec
        self.balanced, self.budgets = recipe.finetune.balanced, recipe.labels
        self.folder, self.reporter = folder, reporter
        self._told_seen = False
        self._known: dict[int, str] = {}  # position in the labelled source to source sha256

    @property
    def has_labels(self) -> bool:
        """Whether the recipe names labelled images."""
        return self.data.labelled is not None

    @property
    def folds(self) -> Folds | None:
        """All labelled images and their folds; None with a test split, or without labels.

        Folds are made when ``data.folds`` says so: a number, or ``auto`` with no source of test
        images and fewer than 50 images for a test split. They are stored in ``splits.json`` and
        used again.

        Raises:
            DataInvalid: As :attr:`splits`.
        """
        if not self.has_labels:
            return None
        return self._assigned if isinstance(self._assigned, Folds) else None

    @property
    def splits(self) -> Splits:
        """Labelled images; the assignment is stored in ``splits.json`` and used again.

        Raises:
            DataInvalid: No images, no labels, too few per class, leaks between sources, a
                stored assignment that was made with other settings, or folds instead of splits.
        """
        if not isinstance(self._assigned, Splits):
            n = len(self._assigned.all.labels)
            raise DataInvalid(
                f"{self.data.labelled} has {n} labelled images, too few for a test split; there "
                f"are {self._assigned.count} folds instead",
                hint="name test images with --test, or force a split: --set data.folds=null",
            )
        return self._assigned

    @cached_property
    def _labelled_source(self) -> ImageSet:
        if self.data.labelled is None:
            raise DataInvalid(
                "labelled images are needed here, and only unlabeled ones were given",
                hint="name them with --labels (a folder of class folders, a .csv list, or a "
                "dataset)",
            )
        return _open_labelled(self.data.labelled, self.data.group_by)

    @cached_property
    def _assigned(self) -> Splits | Folds:
        data, source = self.data, self._labelled_source
        prepared = prepare(source, None, self.spec, cache=self.folder)
        self._tell_skipped(source, prepared)
        about = _describe("labels", source, prepared)
        if (remark := findings.unevenness(about["classes"])) and not self.balanced:
            self.reporter.warn(f"{remark}; consider --set finetune.balanced=true")
        self._tell_copies(str(data.labelled), prepared)
        number = folds_for(prepared, data.folds, data.test_share, data.test is not None)
        stored = (self.folder / SPLITS_FILE).is_file()
        tests: list[dict[str, Any]] = []
        if number is None:
            train, validation, test = hold_out(self.folder, source, prepared, data, self.seed)
            if test is None:
                test, described = self._separate_test(str(data.test), prepared)
                tests.append(described)
                for role in (train, validation):
                    name = f"the {role.name} split of {data.labelled}"
                    where = str(data.test)
                    check_leaks(role.source_sha256, test.source_sha256, name, where, test.items)
            made = Splits(train, validation, test, source.class_names)
            roles = {"train": train, "validation": validation, "test": test}
            splits = {name: len(split.labels) for name, split in roles.items()}
            told = ", ".join(f"{name} {n}" for name, n in splits.items())
        else:
            made = in_folds(self.folder, source, prepared, data, self.seed, number)
            roles, splits = {"all": made.all}, None
            told = f"{len(made.all.labels)} images in {number} folds, {data.repeats} times"
            if remark := unused_budgets(self.budgets):
                self.reporter.say(remark)
        self._known = dict(zip(prepared.kept.tolist(), prepared.source_sha256, strict=True))
        groups = None if prepared.groups is None else len(set(prepared.groups))
        self.reporter.say(
            f"data: {data.labelled}, {len(source.class_names)} classes; {told}"
            + ("" if groups is None else f"; {groups} groups kept together")
        )
        findings.write(
            self.folder,
            [about, *tests],
            {
                "splits": splits,
                "folds": number,
                "groups": groups,
                "near_duplicates": self._near_duplicates(roles, stored),
            }
            | ({} if number else {findings.OVERLAP: None}),
        )
        return made

    @cached_property
    def pool(self) -> Pool:
        """Images to pretrain on.

        The unlabeled ones if given, else those of the training split; never validation or test
        images. In folds without unlabeled images it is all labelled ones, without their labels:
        the nets have then seen the pixels, not the classes, of what they are tested on.

        Raises:
            DataInvalid: No images, or some of them are kept back for choosing or measuring.
        """
        data, side = self.data, self.spec.resize
        if data.unlabeled is not None and data.unlabeled == data.labels and self.folds is None:
            raise DataInvalid(
                f"{data.unlabeled} is given as labelled and as unlabeled images: pretraining "
                "would see the test images",
                hint="leave out --unlabeled: pretraining takes the training split of --labels",
            )
        if data.unlabeled is not None:
            source = open_source(data.unlabeled)
            rows = np.setdiff1d(np.arange(len(source)), self.held_out_rows)
            stored = prepare_storage(source, side, rows, cache=self.folder)
            if len(rows) < len(source):
                self.reporter.say(
                    f"{len(source) - len(rows)} unlabeled image(s) are kept back from pretraining, "
                    "to prove exported files on (data.held_out)"
                )
            self._tell_skipped(source, stored)
            findings.write(self.folder, [_describe("unlabeled", source, stored)])
            pool = Pool(stored.images, stored.source_sha256, images_sha256(stored.images))
            if self.has_labels:
                self.check_unseen(pool.source_sha256, f"--unlabeled {data.unlabeled}")
            return pool
        seen = self.splits.train if self.folds is None else self.folds.all
        if self.folds is not None:
            self.reporter.say(
                f"pretraining sees all {len(seen.labels)} labelled images, without their labels: "
                "also those that the folds test on"
            )
            self._told_seen = True
            self._record_overlap(len(seen.labels))
        if side == self.spec.height:
            return Pool(seen.images, seen.source_sha256, seen.data_sha256)
        members = set(seen.source_sha256)
        rows = [position for position, sha in self._known.items() if sha in members]
        stored = prepare_storage(self._labelled_source, side, rows, cache=self.folder)
        return Pool(stored.images, stored.source_sha256, images_sha256(stored.images))

    @cached_property
    def labelled_pool(self) -> Pool:
        """Images and labels to pretrain on, for a method that uses labels: the training split.

        Raises:
            DataInvalid: Unlabeled images were given, there are no labels, or folds, in which
                every label is tested on.
        """
        if self.data.unlabeled is not None:
            raise DataInvalid(
                f"this method learns from labels, and {self.data.unlabeled} was given as "
                "unlabeled images",
                hint="leave out --unlabeled: it trains on the training split of --labels",
            )
        train = self.splits.train  # refuses folds
        place = dict(zip(train.source_sha256, train.labels.tolist(), strict=True))
        labels = np.array([place[sha] for sha in self.pool.source_sha256], np.int64)
        return replace(self.pool, labels=labels)

    @cached_property
    def held_out_rows(self) -> NDArray[np.int64]:
        """Positions of the images of ``data.unlabeled`` that pretraining does not see."""
        if self.data.unlabeled is None:
            return np.empty(0, np.int64)
        tested = len(self.splits.test.labels) if self.has_labels and self.folds is None else 0
        n = len(open_source(self.data.unlabeled))
        return held_out_rows(n, tested, self.data, self.seed)

    @cached_property
    def held_out(self) -> Split | None:
        """Unlabeled images that pretraining does not see; None when all are trained on."""
        if not len(self.held_out_rows):
            return None
        source = open_source(str(self.data.unlabeled))
        prepared = prepare(source, self.held_out_rows, self.spec, cache=self.folder)
        return split_of("held-out unlabeled", replace(prepared, labels=None), None)

    @cached_property
    def proof(self) -> Split:
        """Images that files are compared on: the test split, else some of the unlabeled.

        In folds it is all labelled images with the label -1: the net that is shipped was trained
        on them, so they tell whether answers agree, not how many are right.
        """
        if self.folds is not None:
            seen = self.folds.all
            return replace(seen, name="labels", labels=np.full(len(seen.labels), -1, np.int64))
        if self.has_labels:
            return self.splits.test
        if self.held_out is not None:
            return self.held_out
        source = open_source(str(self.data.unlabeled))
        rows = np.linspace(0, len(source) - 1, min(PROOFS, len(source))).astype(np.int64)
        prepared = prepare(source, rows, self.spec, cache=self.folder)
        return split_of("unlabeled", replace(prepared, labels=None), None)

    @property
    def proof_source(self) -> ImageSet:
        """The source of :attr:`proof`, for its pictures as they were before preparation."""
        if not self.has_labels:
            return open_source(str(self.data.unlabeled))
        if self.folds is None and self.data.test is not None:
            return open_source(self.data.test)
        return self._labelled_source

    def check_unseen(self, trained_on: Sequence[str], name: str) -> None:
        """Refuse validation or test images that were pretrained on; in folds, say so once.

        In folds their number goes into ``data.json`` too.

        Args:
            trained_on: Source identities of the pretraining images.
            name: What the message calls them.

        Raises:
            DataInvalid: Names the first ones and how many there are.
        """
        if self.folds is not None:
            known = set(trained_on)
            shared = sum(sha in known for sha in self.folds.all.source_sha256)
            if known:  # a checkpoint may not say what it has seen
                self._record_overlap(shared)
            if shared and not self._told_seen:
                self.reporter.warn(
                    f"{shared} labelled image(s) are also in {name}: the pretraining saw them "
                    "without labels, also those that the folds test on"
                )
                self._told_seen = True
            return
        for role in (self.splits.validation, self.splits.test):
            called = f"the {role.name} images"
            check_leaks(trained_on, role.source_sha256, name, called, role.items)

    def _record_overlap(self, images: int) -> None:
        findings.write(self.folder, [], {findings.OVERLAP: images})

    def _separate_test(self, where: str, train: Prepared) -> tuple[Split, dict[str, Any]]:
        source = open_source(where)
        source.require_labels()
        prepared = prepare(source, None, self.spec, cache=self.folder)
        self._tell_skipped(source, prepared)
        self._tell_copies(where, prepared)
        unknown = sorted(set(source.class_names) - set(train.class_names))
        if unknown:
            raise DataInvalid(
                f"{where} has classes that the training labels lack: {', '.join(unknown[:5])}",
                hint="both need the same class names (folder names)",
            )
        if shared := shared_groups(source, train, self.data.group_by):
            self.reporter.warn(
                f"{len(shared)} group(s) have images in {where} and in {self.data.labelled}, "
                f"for example {min(shared)!r}: the test is not on unseen groups"
            )
        place = np.array([train.class_names.index(n) for n in source.class_names], np.int64)
        split = split_of("test", prepared, None)
        return replace(split, labels=place[split.labels]), _describe("test", source, prepared)

    def _near_duplicates(
        self, roles: dict[str, Split], stored: bool
    ) -> list[dict[str, Any]] | None:
        if stored and (known := findings.read(self.folder).get("near_duplicates")) is not None:
            return known
        images = sum(len(split.labels) for split in roles.values())
        if images > findings.MOST_COMPARED:
            return None
        found = findings.compare(
            [split.images for split in roles.values()],
            [sha for split in roles.values() for sha in split.source_sha256],
        )
        items = [item for split in roles.values() for item in split.items]
        sides = [name for name, split in roles.items() for _ in split.items]
        crossing = sum(sides[p.a] != sides[p.b] for p in found.pairs)
        if crossing:
            self.reporter.warn(
                f"{crossing} pair(s) of near-duplicates lie on two sides of a split; see: "
                f"edgessl data check --labels {self.data.labelled}"
            )
        return findings.pairs_of(found, items, sides)

    def _tell_copies(self, where: str, prepared: Prepared) -> None:
        if remark := findings.copies(prepared.items, prepared.source_sha256):
            self.reporter.warn(f"{where}: {remark}")

    def _tell_skipped(self, source: ImageSet, prepared: Prepared) -> None:
        skipped = (*source.skipped, *prepared.skipped)
        if skipped:
            self.reporter.warn(
                f"{source.name}: {len(skipped)} file(s) skipped, first {skipped[0].item!r}: "
                f"{skipped[0].reason}"
            )
        for item in skipped:
            self.reporter.detail(f"skipped {item.item!r}: {item.reason}")


def check_sources(recipe: Recipe) -> None:
    """Open every source of a recipe without decoding, so that a typo costs nothing.

    Raises:
        DataInvalid: A source is missing, empty, or lacks labels or groups that it must have; or
            both folds and a source of test images are asked for.
    """
    data = recipe.data
    refuse_both(data.folds, data.test is not None)
    if data.unlabeled is not None:
        open_source(data.unlabeled)
    if data.labelled is not None:
        _open_labelled(data.labelled, data.group_by)
    if data.test is not None:
        open_source(data.test).require_labels()
    further = (data.proof, recipe.export.calibration) if recipe.export.quantize != "none" else ()
    for where in filter(None, further):
        open_source(where)


def _open_labelled(where: str, group_by: str | None) -> ImageSet:
    source = grouped(open_source(where), group_by)
    source.require_labels()
    return source


def _describe(role: str, source: ImageSet, prepared: Prepared) -> dict[str, Any]:
    return findings.describe(
        role, source, labels=prepared.labels, sizes=prepared.source_sizes,
        source_sha256=prepared.source_sha256, skipped=prepared.skipped,
    )  # fmt: skip

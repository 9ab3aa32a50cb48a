"""Images by role: what is pretrained on, trained on with labels, chosen on, measured on.

An image is known by the hash of its decoded source pixels, so that roles stay apart whatever
size the images are prepared at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.images import images_sha256
from edgessl.core.recipe import Recipe
from edgessl.data.decode import Prepared, prepare, prepare_storage
from edgessl.data.image_set import ImageSet
from edgessl.data.labelled import Labelled
from edgessl.data.sources import open_source
from edgessl.data.splits import check_leaks, load_splits, make_splits

PROOFS = 256  # unlabeled images that an embedding model is compared on


@dataclass(frozen=True, slots=True)
class Split:
    """Prepared images of one role.

    Attributes:
        name: Of the role.
        images: uint8 (N, H, W, 3).
        labels: int64 (N,); -1 where there is none.
        sha256: Identity of each prepared image.
        source_sha256: Identity of each source image, before preparation.
        data_sha256: Identity of the ordered prepared images.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sha256: tuple[str, ...]
    source_sha256: tuple[str, ...]
    data_sha256: str

    @property
    def labelled(self) -> Labelled:
        """Images and labels alone."""
        return Labelled(self.images, self.labels)


@dataclass(frozen=True, slots=True)
class Splits:
    """The labelled images by role, and their classes."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """Images to pretrain on: uint8 (N, S, S, 3) with S the storage side, and who they are."""

    images: NDArray[np.uint8]
    source_sha256: tuple[str, ...]
    data_sha256: str


class Images:
    """The images of a recipe, decoded when first asked for.

    Args:
        recipe: Its ``data`` section and seed.
        spec: Size that images are prepared at.
        folder: Run folder: keeps ``splits.json`` and large pixel files while the run lasts.
        reporter: Told about counts and skipped files.
    """

    def __init__(self, recipe: Recipe, spec: InputSpec, folder: Path, reporter: Reporter) -> None:
        self.data, self.seed, self.spec = recipe.data, recipe.seed, spec
        self.folder, self.reporter = folder, reporter

    @property
    def has_labels(self) -> bool:
        """Whether the recipe names labelled images."""
        return self.data.labelled is not None

    @cached_property
    def splits(self) -> Splits:
        """Labelled images; the assignment is stored in ``splits.json`` and used again.

        Raises:
            DataInvalid: No images, no labels, too few per class, leaks between sources, or a
                stored assignment that was made with other settings.
        """
        data, path = self.data, self.folder / "splits.json"
        if data.labelled is None:
            raise DataInvalid(
                "labelled images are needed here, and only unlabeled ones were given",
                hint="name them with --labels (a folder of class folders, or a dataset)",
            )
        source = open_source(data.labelled)
        source.require_labels()
        prepared = prepare(source, None, self.spec, cache=self.folder)
        self._tell_skipped(source, prepared)
        shares = {"val": data.validation_share, "test": 0.0 if data.test else data.test_share}
        if path.is_file():
            splits = load_splits(path, prepared, seed=self.seed, **shares)
        else:
            splits = make_splits(prepared, seed=self.seed, **shares)
            splits.save(path, (*source.skipped, *prepared.skipped))
        rows = splits.indices(prepared.source_sha256)
        train = _split("train", prepared, rows["train"])
        validation = _split("validation", prepared, rows["val"])
        if data.test:
            test = self._separate_test(data.test, source.class_names)
            for role in (train, validation):
                name = f"the {role.name} split of {data.labelled}"
                check_leaks(role.source_sha256, test.source_sha256, name, data.test)
        else:
            test = _split("test", prepared, rows["test"])
        counts = ", ".join(f"{s.name} {len(s.labels)}" for s in (train, validation, test))
        self.reporter.say(f"data: {data.labelled}, {len(source.class_names)} classes; {counts}")
        return Splits(train, validation, test, source.class_names)

    @cached_property
    def pool(self) -> Pool:
        """Images to pretrain on; never validation or test images.

        Raises:
            DataInvalid: No images, or some of them are kept back for choosing or measuring.
        """
        data, side = self.data, self.spec.resize
        if data.unlabeled is not None:
            source = open_source(data.unlabeled)
            stored = prepare_storage(source, side, cache=self.folder)
            self._tell_skipped(source, stored)
            pool = Pool(stored.images, stored.source_sha256, images_sha256(stored.images))
            if self.has_labels:
                self.check_unseen(pool.source_sha256, f"--unlabeled {data.unlabeled}")
            return pool
        train = self.splits.train
        if side == self.spec.height:
            return Pool(train.images, train.source_sha256, train.data_sha256)
        source, members = open_source(str(data.labelled)), set(train.source_sha256)
        prepared = prepare(source, None, self.spec, cache=self.folder)
        known = zip(prepared.kept, prepared.source_sha256, strict=True)
        rows = [int(position) for position, sha in known if sha in members]
        stored = prepare_storage(source, side, rows, cache=self.folder)
        return Pool(stored.images, stored.source_sha256, images_sha256(stored.images))

    @cached_property
    def proof(self) -> Split:
        """Images that files are compared on: the test split, else some of the unlabeled."""
        if self.has_labels:
            return self.splits.test
        source = open_source(str(self.data.unlabeled))
        rows = np.linspace(0, len(source) - 1, min(PROOFS, len(source))).astype(np.int64)
        prepared = prepare(source, rows, self.spec, cache=self.folder)
        return Split(
            "unlabeled", prepared.images, np.full(len(prepared.images), -1, np.int64),
            tuple(prepared.sha256), tuple(prepared.source_sha256), images_sha256(prepared.images),
        )  # fmt: skip

    def check_unseen(self, trained_on: Sequence[str], name: str) -> None:
        """Refuse validation or test images that were pretrained on.

        Args:
            trained_on: Source identities of the pretraining images.
            name: What the message calls them.

        Raises:
            DataInvalid: Names the first ones and how many there are.
        """
        for role in (self.splits.validation, self.splits.test):
            check_leaks(trained_on, role.source_sha256, name, f"the {role.name} images")

    def _separate_test(self, where: str, class_names: tuple[str, ...]) -> Split:
        source = open_source(where)
        source.require_labels()
        prepared = prepare(source, None, self.spec, cache=self.folder)
        self._tell_skipped(source, prepared)
        unknown = sorted(set(source.class_names) - set(class_names))
        if unknown:
            raise DataInvalid(
                f"{where} has classes that the training labels lack: {', '.join(unknown[:5])}",
                hint="both need the same class names (folder names)",
            )
        place = np.array([class_names.index(name) for name in source.class_names], np.int64)
        split = _split("test", prepared, np.arange(len(prepared.images)))
        return Split(
            "test", split.images, place[split.labels], split.sha256, split.source_sha256,
            split.data_sha256,
        )  # fmt: skip

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
        DataInvalid: A source is missing, empty, or lacks labels that it must have.
    """
    data = recipe.data
    for where, needs_labels in ((data.unlabeled, False), (data.labelled, True), (data.test, True)):
        if where is not None:
            source = open_source(where)
            if needs_labels:
                source.require_labels()


def _split(name: str, prepared: Prepared, rows: NDArray[np.int64]) -> Split:
    assert prepared.labels is not None
    images = np.ascontiguousarray(prepared.images[rows])
    return Split(
        name=name,
        images=images,
        labels=prepared.labels[rows],
        sha256=tuple(prepared.sha256[i] for i in rows),
        source_sha256=tuple(prepared.source_sha256[i] for i in rows),
        data_sha256=images_sha256(images),
    )

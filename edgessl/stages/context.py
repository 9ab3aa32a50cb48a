"""What every stage works with: recipe, run folder, images, ledger, and whether it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, EdgeSSLError
from edgessl.core.images import images_sha256
from edgessl.core.ledger import Ledger
from edgessl.core.recipe import Recipe
from edgessl.core.runs import RunFolder
from edgessl.data.decode import Prepared, prepare, prepare_storage
from edgessl.data.image_set import ImageSet
from edgessl.data.sources import open_source
from edgessl.data.splits import check_leaks, load_splits, make_splits
from edgessl.evaluation.finetune import Labelled

STAGE_FILE = "stage.json"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Split:
    """Prepared images of one role, uint8 (N, H, W, 3), with classes and identities."""

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sha256: tuple[str, ...]
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


class Context:
    """One run in progress.

    Args:
        recipe: Validated recipe.
        run: Its run folder.
        reporter: Speaks to the user.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, reporter: Reporter) -> None:
        self.recipe, self.run, self.reporter = recipe, run, reporter
        self.spec = InputSpec.square(recipe.data.imgsz)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the run, read afresh."""
        return Ledger.open(self.run.path)

    @cached_property
    def splits(self) -> Splits:
        """Labelled images, split once; the assignment is stored in ``splits.json``.

        Raises:
            DataInvalid: No images, no labels, too few per class, or leaks between sources.
        """
        data, path = self.recipe.data, self.run.path / "splits.json"
        source = open_source(data.labels)
        source.require_labels()
        prepared = prepare(source, None, self.spec, cache=self.run.path)
        self._tell_skipped(source, prepared)
        if path.is_file():
            splits = load_splits(path, prepared)
        else:
            test_share = 0.0 if data.test else data.test_share
            splits = make_splits(
                prepared, seed=self.recipe.seed, val=data.validation_share, test=test_share
            )
            splits.save(path)
        rows = splits.indices(prepared.sha256)
        train, validation = (
            _split("train", prepared, rows["train"]),
            _split("validation", prepared, rows["val"]),
        )
        if data.test:
            test = self._separate_test(data.test, source.class_names)
            for other in (train, validation):
                check_leaks(other.sha256, test.sha256, f"{data.labels} ({other.name})", data.test)
        else:
            test = _split("test", prepared, rows["test"])
        counts = ", ".join(f"{s.name} {len(s.labels)}" for s in (train, validation, test))
        self.reporter.say(f"data: {data.labels}, {len(source.class_names)} classes; {counts}")
        return Splits(train, validation, test, source.class_names)

    @cached_property
    def unlabeled(self) -> tuple[NDArray[np.uint8], str]:
        """Images to pretrain on, uint8 (N, S, S, 3), and their identity; never test images."""
        data, side = self.recipe.data, self.spec.resize
        if data.unlabeled is None:
            if side == self.spec.height:
                return self.splits.train.images, self.splits.train.data_sha256
            source, members = open_source(data.labels), set(self.splits.train.sha256)
            prepared = prepare(source, None, self.spec, cache=self.run.path)
            rows = [
                int(k)
                for k, sha in zip(prepared.kept, prepared.sha256, strict=True)
                if sha in members
            ]
            stored = prepare_storage(source, side, rows, cache=self.run.path)
        else:
            source = open_source(data.unlabeled)
            stored = prepare_storage(source, side, cache=self.run.path)
            self._tell_skipped(source, stored)
            self._check_unlabeled(stored, side)
        return stored.images, images_sha256(stored.images)

    def _check_unlabeled(self, stored: Prepared, side: int) -> None:
        data = self.recipe.data
        kept_back = {*self.splits.validation.sha256, *self.splits.test.sha256}
        for spec in {data.labels, data.test or data.labels}:
            source = open_source(spec)
            at_spec = prepare(source, None, self.spec, cache=self.run.path)
            rows = [
                int(k)
                for k, sha in zip(at_spec.kept, at_spec.sha256, strict=True)
                if sha in kept_back
            ]
            if rows:
                held = prepare_storage(source, side, rows, cache=self.run.path)
                check_leaks(
                    stored.sha256, held.sha256, f"--unlabeled {data.unlabeled}",
                    f"the validation and test images of {spec}", held.items,
                )  # fmt: skip

    def _separate_test(self, where: str, class_names: tuple[str, ...]) -> Split:
        source = open_source(where)
        source.require_labels()
        prepared = prepare(source, None, self.spec, cache=self.run.path)
        self._tell_skipped(source, prepared)
        unknown = sorted(set(source.class_names) - set(class_names))
        if unknown:
            raise DataInvalid(
                f"{where} has classes that the training labels lack: {', '.join(unknown[:5])}",
                hint="both need the same class names (folder names)",
            )
        place = np.array([class_names.index(name) for name in source.class_names], np.int64)
        split = _split("test", prepared, np.arange(len(prepared.images)))
        return Split("test", split.images, place[split.labels], split.sha256, split.data_sha256)

    def _tell_skipped(self, source: ImageSet, prepared: Prepared) -> None:
        skipped = (*source.skipped, *prepared.skipped)
        if skipped:
            self.reporter.warn(
                f"{source.name}: {len(skipped)} file(s) skipped, first {skipped[0].item!r}: "
                f"{skipped[0].reason}"
            )
        for item in skipped:
            self.reporter.detail(f"skipped {item.item!r}: {item.reason}")

    def folder(self, *parts: str) -> Path:
        """Return a folder of the run."""
        return self.run.path.joinpath(*parts)

    def stage(
        self, name: str, folder: Path, identity: dict[str, Any], work: Callable[[], Result],
        load: Callable[[], Result],
    ) -> Result:  # fmt: skip
        """Do a stage's work, or keep what a finished one left.

        Args:
            name: Stage name for messages and ``run.json``.
            folder: Its folder; ``stage.json`` in it says that it was finished, and with what.
            identity: Everything that its result depends on (JSON values).
            work: Does it.
            load: Loads the finished result.
        """
        marker = folder / STAGE_FILE
        if marker.is_file() and files.read_json(marker, "stage")["identity"] == identity:
            with suppress(EdgeSSLError):
                result = load()
                self.reporter.say(f"{name}: kept ({folder})")
                self.run.finish_stage(name, 0.0, "kept")
                return result
        start = time.monotonic()
        try:
            result = work()
        except EdgeSSLError:
            self.run.finish_stage(name, time.monotonic() - start, "failed")
            raise
        seconds = time.monotonic() - start
        files.write_json(marker, "stage", {"identity": identity, "seconds": round(seconds, 3)})
        self.run.finish_stage(name, seconds)
        return result


def _split(name: str, prepared: Prepared, rows: NDArray[np.int64]) -> Split:
    assert prepared.labels is not None
    images = np.ascontiguousarray(prepared.images[rows])
    return Split(
        name=name,
        images=images,
        labels=prepared.labels[rows],
        sha256=tuple(prepared.sha256[i] for i in rows),
        data_sha256=images_sha256(images),
    )


def clear(folder: Path) -> None:
    """Remove a stage folder that will be written again."""
    shutil.rmtree(folder, ignore_errors=True)

"""What every stage works with: recipe, run folder, images, ledger, and whether it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from edgessl.core import files
from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError, Interrupted, out_of_memory
from edgessl.core.ledger import Ledger
from edgessl.core.recipe import Recipe
from edgessl.core.runs import RunFolder
from edgessl.stages.roles import Images, Splits

STAGE_FILE = "stage.json"
Result = TypeVar("Result")


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
        self.images = Images(recipe, self.spec, run.path, reporter)

    @cached_property
    def pictures(self) -> Images:
        """The images as exported files take them: of the model's size, or ``export.raw_size``."""
        if self.recipe.export.raw_size is None:
            return self.images
        height, width = self.recipe.export.raw_size
        spec = InputSpec(height=height, width=width, resize=min(height, width))
        return Images(self.recipe, spec, self.run.path, self.reporter)

    @property
    def splits(self) -> Splits:
        """The labelled images by role; see :attr:`Images.splits`."""
        return self.images.splits

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        folds = self.images.folds
        return self.images.splits.class_names if folds is None else folds.class_names

    @property
    def ledger(self) -> Ledger:
        """The ledger of the run, read afresh."""
        return Ledger.open(self.run.path)

    def folder(self, *parts: str) -> Path:
        """Return a folder of the run."""
        return self.run.path.joinpath(*parts)

    def stage(
        self,
        name: str,
        folder: Path,
        identity: dict[str, Any],
        work: Callable[[], Result],
        load: Callable[[], Result],
    ) -> Result:
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
            result = _explaining_memory(work)
        except EdgeSSLError as error:
            how = "interrupted" if isinstance(error, Interrupted) else "failed"
            with suppress(EdgeSSLError):  # on a full disk the first error tells more
                self.run.finish_stage(name, time.monotonic() - start, how)
            raise
        seconds = time.monotonic() - start
        files.write_json(marker, "stage", {"identity": identity, "seconds": round(seconds, 3)})
        self.run.finish_stage(name, seconds)
        return result


def _explaining_memory(work: Callable[[], Result]) -> Result:
    """Turn a failed allocation, which libraries raise in many ways, into an OutOfMemory."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if (explained := out_of_memory(error)) is not None:
            raise explained from error
        raise


def clear(folder: Path) -> None:
    """Remove a folder that will be written again."""
    shutil.rmtree(folder, ignore_errors=True)

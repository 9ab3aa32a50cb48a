"""Converters and runtimes of one target, each call in a child process.

Images travel as ``.npy`` files in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.images import images_sha256
from edgessl.core.recipe import Export
from edgessl.exporters.base import Form, Scheme, Written
from edgessl.stages.child import run_child
from edgessl.stages.conversion import as_json, written_from


class Workshop:
    """Where the files of one target are made and tried; a context manager.

    Args:
        target: Name in the table of targets.
        section: Time and memory that a child process may take.
        log: File that the child processes print to.
    """

    def __init__(self, target: str, section: Export, log: Path) -> None:
        self.target, self.log = target, log
        self._limits: dict[str, Any] = {
            "timeout_s": section.timeout_s, "memory_mb": section.memory_mb, "log": log,
        }  # fmt: skip
        self._folder = tempfile.TemporaryDirectory(prefix="edgessl-")
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def place(self, name: str) -> Path:
        """Return an empty folder of its own for files that are tried, whatever failed before."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder.name))

    def convert(self, model: Path, out: Path, form: Form) -> tuple[Written, str]:
        """Write a plain net in float32; return what was written, and its format."""
        answer = self._run(
            "convert", {"model_folder": str(model), "out_folder": str(out), "form": asdict(form)}
        )
        self.versions |= answer["versions"]
        return written_from(answer["written"]), answer["format"]

    def quantize(
        self, source: Path, written: Written, out: Path, scheme: Scheme, images: NDArray[np.uint8]
    ) -> Written:
        """Write a quantised copy of a float file; ``images`` calibrate it."""
        job = {
            "source": str(source), "written": as_json(written), "out_folder": str(out),
            "scheme": asdict(scheme), "images": self._saved(images),
        }  # fmt: skip
        answer = self._run("quantize", job)
        self.versions |= answer["versions"]
        return written_from(answer["written"])

    def finish(self, folder: Path, written: Written, contract: str, classes: Sequence[str]) -> str:
        """Store the contract in the file, and return the script that runs it."""
        job = {
            "folder": str(folder), "written": as_json(written), "contract": contract,
            "classes": list(classes),
        }  # fmt: skip
        return self._run("finish", job)["snippet"]

    def predict(
        self, folder: Path, written: Written, images: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Run a file on pictures in a fresh process that has the runtime only: (N, C) logits."""
        got = Path(self._folder.name) / "outputs.npy"
        job = {
            "folder": str(folder), "written": as_json(written), "images": self._saved(images),
            "outputs": str(got),
        }  # fmt: skip
        self._run("predict", job)
        logits = np.load(got, allow_pickle=False)
        got.unlink()
        return logits

    def race(
        self, pair: Sequence[tuple[Path, Written]], images: NDArray[np.uint8]
    ) -> tuple[float, float]:
        """Return the median milliseconds of two files, timed in turn on one thread."""
        first, second = self._run("race", self._pair(pair, images))["ms"]
        return first, second

    def layer_errors(
        self, pair: Sequence[tuple[Path, Written]], images: NDArray[np.uint8]
    ) -> dict[str, float]:
        """Return the signal-to-noise ratio (dB) of every layer in the second file, by module."""
        return self._run("layer_errors", self._pair(pair, images))["snr_db"]

    def _pair(
        self, pair: Sequence[tuple[Path, Written]], images: NDArray[np.uint8]
    ) -> dict[str, Any]:
        return {
            "folders": [str(folder) for folder, _ in pair],
            "written": [as_json(written) for _, written in pair],
            "images": self._saved(images),
        }

    def _saved(self, images: NDArray[np.uint8]) -> str:
        path = Path(self._folder.name) / f"{images_sha256(images)[:24]}.npy"
        if not path.exists():
            np.save(path, images, allow_pickle=False)
        return str(path)

    def _run(self, task: str, job: dict[str, Any]) -> dict[str, Any]:
        return run_child(task, {"target": self.target} | job, **self._limits)

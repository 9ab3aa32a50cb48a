"""Which images a net has learned from, sealed beside it: it is never measured on them.

``images.txt`` holds the source identity of one image per line: those of pretraining, those whose
labels were trained on, and those that choices were made on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.data.splits import check_leaks
from edgessl.stages.context import Context

IMAGES_FILE = "images.txt"


def write_seen(folder: Path, source_sha256: Iterable[str]) -> dict[str, str]:
    """Write the list and return the fact about it that the artifact must seal."""
    files.write_text(folder / IMAGES_FILE, "".join(f"{sha}\n" for sha in source_sha256))
    return {"images_sha256": files.sha256_file(folder / IMAGES_FILE)}


def read_seen(folder: Path, artifact: Artifact) -> list[str]:
    """Return the images that an artifact has learned from; none if it does not say.

    Raises:
        FileInvalid: The list is missing or was changed.
    """
    expected = artifact.facts.get("images_sha256")
    if expected is None:
        return []
    path = folder / IMAGES_FILE
    if not path.is_file() or files.sha256_file(path) != expected:
        raise FileInvalid(
            f"{path} is missing or was changed: it says which images were learned from",
            hint="copy the whole folder of the checkpoint",
        )
    return path.read_text(encoding="utf-8").split()


def check_unseen(context: Context, folder: Path) -> None:
    """Refuse a net that has learned from images that this run measures on.

    A pretraining checkpoint must not have seen the validation images either. In folds nothing
    is refused: every labelled image is trained on in some fold.

    Raises:
        DataInvalid: It has; the first images are named.
        FileInvalid: The list of its images is missing or was changed.
    """
    artifact, images = Artifact.load(folder), context.images
    seen = read_seen(folder, artifact)
    if not images.has_labels:
        return  # nothing is measured
    if artifact.artifact_kind == "encoder":
        images.check_unseen(seen, f"the pretraining images of {folder}")
    elif images.folds is None:
        test, name = images.splits.test, f"the images that {folder} was trained on"
        check_leaks(seen, test.source_sha256, name, "the test images", test.items)

"""What was found in the data: data.json, with splits.json for what it does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from pydantic import Field, ValidationError

from edgessl.core.artifact import Document
from edgessl.report.formats import count, plural
from edgessl.report.plot_cells import bar_cell
from edgessl.report.read import Run
from edgessl.report.recorded import first_error
from edgessl.report.tolerant import mapping

CLASSES_SHOWN = 40
PAIRS_SHOWN = 20
UNEVEN = 3.0  # from so many times on, the classes are called uneven
ROLES = {"labels": "Labelled images", "unlabeled": "Unlabeled images", "test": "Test images"}

COUNTED = (
    "but each counts as an image in accuracy and n: n then overstates how many different images "
    "were measured."
)
DUPLICATES = {
    "labels": f": copies are kept on one side of a split, {COUNTED}",
    "test": f": copies are kept, {COUNTED}",
    "unlabeled": ": pretraining saw every copy.",
}


class Skipped(Document):
    """A file that could not be used."""

    item: str
    reason: str = ""


class Source(Document):
    """One source of images as ``data.json`` describes it; sizes are (width, height)."""

    role: str
    name: str = ""
    images: int = Field(ge=0)
    classes: dict[str, int] | None = None
    sizes: dict[str, tuple[int, int]] | None = None
    duplicates: int = 0
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0

    @property
    def title(self) -> str:
        """What the images are for."""
        return ROLES.get(self.role, self.role)

    @property
    def size_text(self) -> str:
        """Sizes in pixels: one, or least, median and greatest."""
        known = {k: f"{w} x {h}" for k, (w, h) in (self.sizes or {}).items()}
        if not known:
            return ""
        if len(set(known.values())) == 1:
            return f"{next(iter(known.values()))} px"
        order = [k for k in ("min", "median", "max") if k in known]
        return ", ".join(f"{k} {known[k]}" for k in order) + " px"

    @property
    def skipped_rows(self) -> list[tuple[str, str]]:
        """Return (file, reason)."""
        return [(skipped.item, skipped.reason) for skipped in self.skipped]

    @property
    def unevenness(self) -> float | None:
        """How many times as many images the largest class has as the smallest."""
        sizes = [n for n in (self.classes or {}).values() if n > 0]
        return max(sizes) / min(sizes) if len(sizes) > 1 else None

    @property
    def class_rows(self) -> list[tuple[str, str, str, Markup]]:
        """Return (class, images, share, bar), the largest first."""
        sizes = sorted((self.classes or {}).items(), key=lambda item: -item[1])
        most, total = max((n for _, n in sizes), default=1) or 1, sum(n for _, n in sizes) or 1
        return [(k, count(n), f"{100 * n / total:.1f}%", bar_cell(n / most)) for k, n in sizes]


class NearDuplicate(Document):
    """Two images that look alike; ``distance`` as its finder defines it."""

    a: str
    b: str
    a_split: str = ""
    b_split: str = ""
    distance: float | None = None

    @property
    def across(self) -> bool:
        """Whether the two are on different sides of a split."""
        return self.a_split != self.b_split


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known about the images of a run."""

    sources: list[Source] = field(default_factory=list)
    splits: list[tuple[str, int]] = field(default_factory=list)
    folds: int | None = None
    groups: int | None = None
    near: list[NearDuplicate] | None = None
    pretraining_overlap: int | None = None
    classes: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def recorded(self) -> bool:
        """Whether anything is known at all."""
        return bool(self.sources or self.splits)

    @property
    def training_images_per_class(self) -> float | None:
        """Mean number of labelled training images in a class; None when not recorded."""
        images = dict(self.splits).get("train")
        return images / self.classes if images and self.classes else None

    @property
    def validation(self) -> int | None:
        """Labelled images that choices were made on; None with folds, or when not recorded."""
        return None if self.folds else dict(self.splits).get("validation")

    @property
    def choices(self) -> str:
        """The labels that were used for choosing, beside those of training; empty with folds."""
        if not self.validation:
            return ""
        return (
            f"plus {plural(self.validation, 'labelled validation image')} for choices "
            "(learning rate, penalty, which net ships)"
        )

    @property
    def seen_in_pretraining(self) -> str:
        """How many of the labelled images pretraining saw; empty where none, or not known."""
        seen = self.pretraining_overlap or 0
        labelled = next((s for s in self.sources if s.role == "labels"), None)
        if seen < 1:
            return ""
        if labelled is None:
            return f"{plural(seen, 'labelled image')}"
        if seen >= labelled.images - labelled.duplicates:
            return f"all {plural(labelled.images, 'labelled image')}"
        return f"{count(seen)} of the {plural(labelled.images, 'labelled image')}"


def find_out(run: Run) -> Findings:
    """Read the findings of a run; what does not fit its form is noted and left out."""
    document = run.findings
    sources = _each(Source, document.get("sources"), run)
    near = document.get("near_duplicates")
    pairs = None if near is None else _each(NearDuplicate, near, run)
    found = Findings(
        sources=sources,
        splits=_splits(run),
        folds=_whole(document.get("folds")),
        pretraining_overlap=_whole(document.get("pretraining_overlap")),
        groups=_whole(document.get("groups")),
        near=pairs,
        classes=len(run.class_names) or max((len(s.classes or {}) for s in sources), default=0),
    )
    found.remarks.extend(_remarks(found))
    return found


def _each(kind: type[Any], body: object, run: Run) -> list[Any]:
    found = []
    for index, item in enumerate(body if isinstance(body, list) else []):
        try:
            found.append(kind.model_validate(item))
        except ValidationError as error:
            run.notes.add(f"data.json: {kind.__name__} {index + 1}: {first_error(error)}")
    if body is not None and not isinstance(body, list):
        run.notes.add(f"data.json: a list of {kind.__name__} was expected")
    return found


def _splits(run: Run) -> list[tuple[str, int]]:
    """Return ``(images of what, how many)``: the splits, and what was pretrained on."""
    found: list[tuple[str, int]] = []
    for source in (run.findings.get("splits"), run.splits.get("splits")):
        for name, value in mapping(source).items():
            members = mapping(value).get("sha256", value)
            number = len(members) if isinstance(members, list) else _whole(members)
            name = {"val": "validation"}.get(str(name), str(name))
            if number is not None and name not in dict(found):
                found.append((name, number))
    measured = [row.n for row in run.rows if row.split == "test"]
    if found and measured and not dict(found).get("test"):
        found = [pair for pair in found if pair[0] != "test"]
        found.append(("test, a source of its own", max(measured)))
    for artifact in run.artifacts:
        images = _whole(artifact.artifact.facts.get("images"))
        title = "pretrained on, without labels"
        if artifact.artifact.artifact_kind == "encoder" and images and title not in dict(found):
            found.append((title, images))
    return found


def _remarks(found: Findings) -> list[str]:
    """Say in words what a reader should know before believing a figure."""
    remarks = []
    for source in found.sources:
        about = source.title.lower()
        if source.skipped_count:
            remarks.append(
                f"{plural(source.skipped_count, 'file')} of the {about} could not be used."
            )
        if source.duplicates:
            copies = f"{plural(source.duplicates, 'exact duplicate')} among the {about}"
            remarks.append(f"{copies}{DUPLICATES.get(source.role, '.')}")
        if source.unevenness and source.unevenness >= UNEVEN:
            remarks.append(
                f"The {about} are uneven: the largest class has {source.unevenness:.1f} times the "
                "images of the smallest. Top-1 favours large classes; read the balanced figure "
                "and the recall of each class."
            )
    if found.near is None:
        remarks.append("Near-duplicates were not looked for.")
    elif across := sum(pair.across for pair in found.near):
        remarks.append(
            f"{plural(across, 'pair')} of near-duplicates lie on different sides of a split: "
            "the accuracy may be flattered."
        )
    elif not found.near:
        remarks.append("No near-duplicates were found.")
    if found.folds:
        remarks.append(f"There is no test split: {found.folds} folds took its place.")
    return remarks if found.sources else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

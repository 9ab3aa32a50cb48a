"""What ``pretrain.teacher`` may name, and what to do where it names none."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from edgessl.core.errors import FileInvalid, RecipeInvalid, UsageProblem
from edgessl.core.recipe import Recipe
from edgessl.core.widths import parse_width
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.stages.networks import artifact_folder

# where a run folder keeps what may teach, best first
PLACES = ("pretrain", "pretrain-imagenet", "finetune", "finetune/*", "extract/*")
FORMS = "a folder that pretrain or finetune wrote, ARCH=FILE or ARCH=imagenet"


@dataclass(frozen=True, slots=True)
class Named:
    """What a recipe calls its teacher.

    Attributes:
        text: As written.
        folder: Of its artifact; None for a stock net.
        encoder: Of a stock net.
        width: Of a stock net.
        weights: Of a stock net: a file, ``imagenet``, or None for random ones.
    """

    text: str
    folder: Path | None = None
    encoder: str = ""
    width: float = 1.0
    weights: str | None = None


def named_teacher(recipe: Recipe) -> Named | None:
    """Return what a recipe names as its method's teacher; None for a method that does without.

    Raises:
        RecipeInvalid: A teacher is missing, unknown, not wanted, or has no trained weights where
            it must; the hint says how to get one.
        FileInvalid: The folder holds no net.
    """
    section = recipe.pretrain
    kind = METHODS.load(section.method).teacher_kind
    if section.teacher is None:
        if kind in ("frozen", "online"):
            raise _missing(recipe, kind)
        return None
    if kind == "none":
        fitting = [name for name in METHODS if METHODS[name].facts["teacher"]]
        raise RecipeInvalid(
            f"method '{section.method}' has no teacher, but pretrain.teacher names "
            f"{section.teacher}",
            hint=f"leave it out, or choose a method with one: {', '.join(fitting)}",
        )
    named = parsed_teacher(section.teacher)
    if kind != "online" and named.folder is None and named.weights is None:
        raise RecipeInvalid(
            f"the teacher of '{section.method}' must have been trained, and {named.text} names "
            "random weights",
            hint=f"name {FORMS}; or {_first_a_teacher(recipe)}",
        )
    return named


def parsed_teacher(text: str) -> Named:
    """Return what the name of a teacher means.

    Raises:
        RecipeInvalid: No such encoder, no single width, or weights that nobody publishes.
        FileInvalid: The path holds no encoder.
    """
    path = Path(text).expanduser()
    if path.exists():
        return Named(text, folder=_folder(path))
    arch, equals, weights = text.partition("=")
    encoder, at, width = arch.partition("@")
    try:
        ENCODERS.load(encoder)
    except UsageProblem as error:
        raise RecipeInvalid(
            f"the teacher {text} is no folder here, and no encoder",
            hint=f"name {FORMS}; encoders: {error.hint}",
        ) from None
    multiplier = _width(encoder, width) if at else 1.0
    if equals and (not weights or multiplier != 1):
        raise RecipeInvalid(
            f"the teacher {text} names weights that there are none of"
            + (": they are published for 1x" if weights else ""),
            hint=f"{encoder}=imagenet, or {encoder}=FILE",
        )
    return Named(text, None, encoder, multiplier, weights or None)


def _folder(path: Path) -> Path:
    try:
        return artifact_folder(path, *PLACES)
    except FileInvalid:
        if path.is_dir():
            raise
        raise FileInvalid(
            f"the teacher {path} is a file that does not say what it holds",
            hint=f"name its encoder, for example resnet18={path}",
        ) from None


def _width(encoder: str, text: str) -> float:
    try:
        host, *slims = parse_width(text)
    except ValueError:
        host, slims = 0.0, []
    if slims != [host]:
        raise RecipeInvalid(
            f"the teacher's width {text!r} is not a single one", hint=f"for example {encoder}@0.5x"
        )
    return host


def _missing(recipe: Recipe, kind: str) -> RecipeInvalid:
    method = recipe.pretrain.method
    if kind == "online":
        return RecipeInvalid(
            f"method '{method}' trains a teacher along, and none is named",
            hint="name an encoder: --teacher resnet18 (see: edgessl list encoders)",
        )
    return RecipeInvalid(
        f"method '{method}' learns from a trained teacher, and none is named",
        hint=_first_a_teacher(recipe),
    )


def _first_a_teacher(recipe: Recipe) -> str:
    """Return the commands that make a teacher on the same images and then use it."""
    data, folder = recipe.data, "runs/teacher"
    options = {
        "--unlabeled": data.unlabeled, "--labels": data.labels, "--test": data.test,
        "--group-by": data.group_by, "--imgsz": str(data.imgsz),
        "--seed": str(recipe.seed) if recipe.seed else None,
        "--set": "encoder.stem=small" if data.imgsz <= 64 else None,
    }  # fmt: skip
    words = ["edgessl", "pretrain", "--method", "moco-v2", "--encoder", "resnet18", "--width", "1x"]
    for option, value in options.items():
        words += [option, value] if value is not None else []
    first = shlex.join([*words, "--out", folder])
    return f"pretrain one on the same images: {first}; then add: --teacher {folder}"

"""A commented recipe for the user's own images, from a quick look at them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.errors import UsageProblem
from edgessl.core.recipe_text import load_yaml
from edgessl.stages import choices
from edgessl.stages.choices import Asked, Choice, Seen
from edgessl.stages.opening import DEFAULTS_FILE
from edgessl.stages.recipes import validated
from edgessl.stages.survey import Survey

WIDTH = 98
COMMENTS_AT = 30
FEW = 5  # images of a class: below, no split has enough of it
FEW_TO_PRETRAIN = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One key of a section; ``off`` writes it as a comment, to be switched on by hand."""

    key: str
    value: object
    why: str = ""
    off: bool = False


def write_recipe(
    seen: Seen, asked: Asked, out: Path = DEFAULTS_FILE, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the recipe that fits what was seen and asked for.

    Args:
        seen: The sources.
        asked: What the user decided.
        out: The file.
        overwrite: Replace a file that is there.

    Returns:
        ``recipe`` (the file), ``seen`` per source, ``warnings``, and ``labelled``: whether the
        whole chain can be run.

    Raises:
        UsageProblem: The file exists, or no source was given.
        RecipeInvalid: What was asked for does not make a valid recipe.
    """
    check_target(out, overwrite)
    if seen.unlabeled is None and seen.labels is None:
        raise UsageProblem(
            "no images were named",
            hint="edgessl init --labels FOLDER (class folders), --unlabeled FOLDER, or both",
        )
    text = recipe_text(seen, asked, absolute=out.parent.resolve() != Path.cwd())
    validated(load_yaml(text, str(out)))
    files.write_text(out, text)
    sources = {"unlabeled": seen.unlabeled, "labels": seen.labels, "test": seen.test}
    found = {role: asdict(survey) for role, survey in sources.items() if survey is not None}
    return {
        "recipe": str(out), "seen": found, "warnings": _warnings(seen),
        "labelled": seen.labels is not None,
    }  # fmt: skip


def _warnings(seen: Seen) -> list[str]:
    """Return what the user should know before a long run."""
    found = []
    classes = (seen.labels.classes or {}) if seen.labels else {}
    if few := [f"{name} {n}" for name, n in classes.items() if n < FEW]:
        found.append(f"fewer than {FEW} images in {len(few)} class(es): {', '.join(few[:5])}")
    if seen.labels and seen.test and seen.test.classes is not None:
        unknown = sorted(set(seen.test.classes) - set(classes))
        if unknown:
            found.append(f"{seen.test.source} has classes without labels: {', '.join(unknown[:5])}")
    if seen.pretraining_images < FEW_TO_PRETRAIN:
        found.append(f"{seen.pretraining_images} images are few to pretrain on")
    return found


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        UsageProblem: It exists.
    """
    if out.is_dir():
        raise UsageProblem(f"{out} is a folder", hint="name a file: --out edgessl.yaml")
    if out.exists() and not overwrite:
        raise UsageProblem(
            f"{out} already exists", hint="replace it with --yes, or choose another --out"
        )


def recipe_text(seen: Seen, asked: Asked, *, absolute: bool = False) -> str:
    """Return the recipe as YAML with comments.

    Args:
        seen: The sources.
        asked: What the user decided.
        absolute: Write absolute paths, for a recipe that lies in another folder.
    """
    lines = [
        "# Written by edgessl init from a quick look at the images. Change what you like:",
        "# edgessl schema recipe lists all keys; lines with a key behind a # are off.",
        "# edgessl data check looks at every image, edgessl run --dry-run says how long it takes.",
        f"name: {_yaml(_run_name(seen))}",
        "seed: 0",
    ]
    sections = [
        ("data", "images, and which of them measure", _data(seen, asked, absolute)),
        ("encoder", "the network", _encoder(seen, asked)),
        ("pretrain", "learning from images without labels", _pretrain(seen, asked)),
    ]
    if seen.labels is not None:
        sections += [
            ("labels", "how many labels are used", _labels(seen)),
            ("evaluate", "what the pretrained features are worth", _evaluate(seen)),
            ("finetune", "training with labels", _finetune(seen, asked)),
        ]
    sections += [
        ("export", "files for runtimes", [_line("targets", choices.targets())]),
        ("bench", "measuring them", _bench(asked)),
    ]
    for name, about, body in sections:
        lines += ["", f"# {about}", f"{name}:"]
        for line in body:
            lines += _rendered(line)
    if seen.labels is None:
        lines += [
            "",
            "# No labelled images were named. edgessl pretrain and edgessl extract work as it is;",
            "# for the whole chain add data.labels: a folder with one sub-folder per class.",
        ]
    return "\n".join(lines) + "\n"


def _data(seen: Seen, asked: Asked, absolute: bool) -> list[Line]:
    lines = [
        Line(role, _path(survey.source, absolute), survey.text())
        for role, survey in (
            ("unlabeled", seen.unlabeled), ("labels", seen.labels), ("test", seen.test),
        )
        if survey is not None
    ]  # fmt: skip
    if seen.labels is not None and seen.test is None:
        lines.append(Line("test", "folder", "test images of your own, if you have some", off=True))
    lines.append(_line("imgsz", choices.image_side(seen, asked)))
    if seen.labels is not None:
        lines.append(_line("folds", choices.folds(seen)))
        why = "images of one folder (a day, a camera) stay together when split"
        lines.append(Line("group_by", "folder", why, off=True))
    return lines


def _encoder(seen: Seen, asked: Asked) -> list[Line]:
    name, width, stem = choices.encoder(_side(seen, asked), asked)
    why = "ImageNet weights as a rival to beat and a start; fetched once from torchvision"
    return [
        _line("name", name), _line("width", width), _line("stem", stem),
        Line("weights", "imagenet", why, off=True),
    ]  # fmt: skip


def _pretrain(seen: Seen, asked: Asked) -> list[Line]:
    side, images = _side(seen, asked), seen.pretraining_images
    small = side <= choices.SMALL_IMAGES
    _, width, _ = choices.encoder(side, asked)
    views = {
        "preset": Choice(
            "cifar_asym" if small else "byol_asym",
            "no blur: it leaves nothing of small images" if small else "two different random views",
        ),
        "crop_scale": choices.crop(side),
        "flip": choices.mirror(seen, asked),
    }
    nets = f"all of {width.value} at once" if "-" in str(width.value) else "one width"
    lines = [Line("method", "sacl-xd", f"trains {nets}; see: edgessl list methods")]
    if small:
        lines.append(Line("options", {"projector": (512, 512)}, "enough for a small net"))
    lines.append(Line("views", None))
    lines += [Line(f"  {key}", choice.value, choice.why) for key, choice in views.items()]
    lines += [
        _line("epochs", choices.epochs(images)),
        _line("batch", choices.batch(images)),
        Line("learning_rate", 0.002, "of the optimiser adamw"),
        Line("max_seconds", 3600, "a time budget: epochs are cut to fit", off=True),
    ]
    return lines


def _labels(seen: Seen) -> list[Line]:
    assert seen.labels is not None
    counts = (seen.labels.classes or {}).values()
    why = f"all; the classes have {min(counts):,} to {max(counts):,} images. 10: ten of each"
    return [Line("per_class", None, why), _line("curve", choices.curve(seen))]


def _evaluate(seen: Seen) -> list[Line]:
    return [
        Line("protocols", ("knn", "linear"), "nearest neighbours, and a linear classifier"),
        _line("neighbours", choices.neighbours(seen)),
    ]


def _finetune(seen: Seen, asked: Asked) -> list[Line]:
    return [
        Line("scratch", True, "the same net without pretraining, to see what pretraining paid"),
        Line("epochs", 50, "passes over the labelled images"),
        _line("batch", choices.finetune_batch(seen)),
        Line("learning_rates", (0.001, 0.003), "the better one on validation images is used"),
        _line("balanced", choices.balanced(seen)),
        Line("flip", choices.mirror(seen, asked).value, "as in pretraining"),
    ]


def _bench(asked: Asked) -> list[Line]:
    return [
        Line("device", asked.device or "local", "see: edgessl list devices"),
        Line("preset", "quick", "standard and sustained take longer and say more"),
        Line("allow_unstable", True, "the verdict is printed beside every figure all the same"),
    ]


def _side(seen: Seen, asked: Asked) -> int:
    return int(str(choices.image_side(seen, asked).value))


def _line(key: str, choice: Choice) -> Line:
    return Line(key, choice.value, choice.why)


def _rendered(line: Line) -> list[str]:
    """Return a key with its comment beside it, or above it when that would be too long."""
    indent = " " * (2 + len(line.key) - len(line.key.lstrip()))
    key = line.key.strip()
    value = "" if line.value is None and not line.why else f" {_yaml(line.value)}"
    text = f"{indent}{'# ' if line.off else ''}{key}:{value}"
    why = _visible(line.why)
    if not why:
        return [text]
    beside = f"{text:<{COMMENTS_AT}}  # {why}"
    if len(beside) <= WIDTH:
        return [beside]
    head = f"{indent}# "
    above = textwrap.wrap(why, WIDTH, initial_indent=head, subsequent_indent=head)
    return [*above, text]


def _yaml(value: object) -> str:
    """Return a value in YAML's flow style."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*|[\d.]+x(-[\d.]+x)*", value)
        special = value.lower() in ("null", "true", "false")
        return value if plain and not special else f'"{_visible(value, quoted=True)}"'
    return str(value)


def _path(source: str, absolute: bool) -> str:
    path = Path(source).expanduser()
    return str(path.resolve()) if absolute and path.exists() else source


def _visible(text: str, *, quoted: bool = False) -> str:
    """Escape what is not printable as in a double-quoted YAML string, and quotes there."""
    shown = []
    for c in text:
        if c.isprintable():
            shown.append(f"\\{c}" if quoted and c in '"\\' else c)
        else:
            code = ord(c)
            shown.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(shown)


def _run_name(seen: Seen) -> str:
    survey: Survey = seen.labels or seen.most
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(survey.source).expanduser().resolve().name)
    return plain.strip("-._")[:40] or "run"

"""The Python API of the commands that train nothing and make no run folder.

They are part of :mod:`edgessl.api`; each returns a :class:`Finding`.
"""

# ruff: noqa: PLR0913  (a function has one parameter per option)

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgessl.core.console import Reporter
from edgessl.core.errors import EdgeSSLError, MissingExtra
from edgessl.core.registry import missing_extra

__all__ = ["Finding", "cost", "doctor", "init", "paper_costs", "predict", "runs"]


@dataclass(frozen=True)
class Finding:
    """What a command found out.

    Attributes:
        command: Its name.
        result: JSON values.
        next: The command to call next.
        errors: What the exit code is about, if it is not 0.
    """

    command: str
    result: dict[str, Any]
    next: str
    errors: tuple[EdgeSSLError, ...] = field(default=())


def init(
    *,
    unlabeled: str | None = None,
    labels: str | None = None,
    test: str | None = None,
    encoder: str | None = None,
    width: str | None = None,
    imgsz: int | None = None,
    device: str | None = None,
    mirror: bool | None = None,
    out: Path = Path("edgessl.yaml"),
    overwrite: bool = False,
) -> Finding:
    """Look at images and write a commented recipe for them.

    Args:
        unlabeled: Images to pretrain on.
        labels: Labelled images, for example a folder of class folders.
        test: Labelled images to measure on.
        encoder: Name of the encoder; None chooses by the size of the images.
        width: Widths; None takes the default.
        imgsz: Input side in pixels; None chooses by the size of the images.
        device: Where the files will be measured.
        mirror: Whether a mirrored image keeps its class; None guesses from the class names.
        out: The recipe.
        overwrite: Replace a file that is there.

    Raises:
        DataInvalid: A source is not there, holds no image, or has no labels where it must.
        UsageProblem: The recipe exists already, or no source was given.
    """
    from edgessl.stages.choices import Asked, Seen
    from edgessl.stages.init import check_target, write_recipe
    from edgessl.stages.survey import look_at

    check_target(out, overwrite)
    seen = Seen(
        unlabeled=look_at(unlabeled, labelled=False) if unlabeled else None,
        labels=look_at(labels, labelled=True) if labels else None,
        test=look_at(test, labelled=True) if test else None,
    )
    asked = Asked(encoder, width, imgsz, device, mirror)
    result = write_recipe(seen, asked, out, overwrite=overwrite)
    named = "" if out == Path("edgessl.yaml") else f" {shlex.quote(str(out))}"
    after = f"edgessl run{named} --dry-run" if result["labelled"] else "edgessl pretrain --dry-run"
    return Finding("init", result, after)


def predict(
    model: str | Path | None,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    csv: Path | None = None,
    features: bool = True,
    reporter: Reporter | None = None,
) -> Finding:
    """Ask an exported or extracted model about pictures.

    Args:
        model: Export folder, extracted model, run folder, or ``last`` (also for None).
        images: Image files, folders, lists, IDX files or datasets.
        top: Classes to tell per picture.
        csv: File to write one line per picture to.
        features: Whether an embedding model's features are of use; if not, and without ``csv``,
            such a model is refused.
        reporter: Told about progress and skipped files.

    Raises:
        DataInvalid: None of the images can be read.
        FileInvalid: The model is missing, altered, or not one that is deployed.
        MissingExtra, NativeCrash: Its runtime is not installed, or died.
    """
    from edgessl.stages.predict import predict as stage

    result = stage(
        model, images, top=top, table=csv, features_wanted=features,
        reporter=reporter or Reporter(),
    )  # fmt: skip
    folder = result["model"]
    exported = (Path(folder) / "artifact.json").is_file()
    after = f"edgessl {'bench' if exported else 'export'} {shlex.quote(folder)}"
    return Finding("predict", result, after)


def runs(folder: Path | None = None) -> Finding:
    """List the run folders in ``runs/`` or another folder, the newest last.

    Raises:
        FileInvalid: No such folder.
    """
    from edgessl.stages.overview import runs_in

    found = runs_in(folder)
    path = shlex.quote(found[-1]["path"]) if found else ""
    after = f"edgessl report {path}" if found else "edgessl run quickstart"
    if found and found[-1]["command"] and found[-1]["status"] in ("unfinished", "interrupted"):
        command = found[-1]["command"]
        recipe = f" {path}/recipe.yaml" if command == "run" else ""
        after = f"edgessl {command}{recipe} --resume --out {path}"
    return Finding("runs", {"runs": found}, after)


def cost(
    settings: Mapping[str, Any] | None = None,
    *,
    images: int | None = None,
    teacher: str | None = None,
    teacher_epochs: int | None = None,
    measure: bool = False,
    reporter: Reporter | None = None,
) -> Finding:
    """Count parameters, operations and bytes of a pretraining, and compare the methods.

    Args:
        settings: Dotted recipe values; the others come from ``edgessl.yaml``, else defaults.
        images: Images to pretrain on; None counts those of the recipe.
        teacher: As ``pretrain.teacher``, also for methods that are only compared; None takes the
            recipe's, else a ResNet-50, told as an assumption.
        teacher_epochs: Of a teacher whose own pretraining is not known; None: as many as here.
        measure: Also take a few steps, and report seconds, hours and memory as ``measured``.
        reporter: Told what is being measured.

    Raises:
        RecipeInvalid, DataInvalid: Bad values, or images that cannot be opened.
        UsageProblem, FileInvalid: The teacher cannot be counted.
        MissingExtra: torch is not installed.
    """
    _require_torch()
    from edgessl.core.recipe_text import read_recipe_values
    from edgessl.stages.cost import cost_of, taught_by
    from edgessl.stages.opening import DEFAULTS_FILE
    from edgessl.stages.recipes import validated

    there = DEFAULTS_FILE.is_file()
    recipe = validated(read_recipe_values(DEFAULTS_FILE) if there else {}, settings)
    result = cost_of(recipe, images, teacher=teacher, teacher_epochs=teacher_epochs)
    result["values_from"] = str(DEFAULTS_FILE) if there else "defaults"
    if measure:
        from edgessl.stages.measured_cost import measured_cost

        counted = result["training"]["images"]
        result["measured"] = measured_cost(
            taught_by(recipe, teacher), counted, reporter or Reporter()
        )
    return Finding("cost", result, "edgessl pretrain")


def paper_costs() -> Finding:
    """Compute the cost column of the SACL+XD paper, row by row, beside what is printed there.

    Raises:
        MissingExtra: torch is not installed.
    """
    _require_torch()
    from edgessl.stages.paper_costs import paper_costs as stage

    return Finding("cost", stage(), "edgessl cost")


def _require_torch() -> None:
    for package in ("torch", "torchvision"):
        if find_spec(package) is None:
            raise missing_extra("edgessl cost", package, "train")


def doctor(*, target: str | None = None, device: str | None = None) -> Finding:
    """Say what works on this machine, trying every package in a process of its own.

    Args:
        target: Look only at what this target needs.
        device: Look only at what this device needs.

    Returns:
        ``errors`` holds a MissingExtra when what was asked for does not work, or, if nothing was
        asked, when an installed package cannot be imported.

    Raises:
        UsageProblem: No such target or device.
    """
    from edgessl.stages.doctor import examine

    result = examine(target, device)
    if result["works"]:
        return Finding("doctor", result, "edgessl run quickstart")
    # what is merely not set up is no part of the problem unless it was asked for
    asked = [a for a in result["abilities"] if target or device or not a["optional"]]
    fixes = [fix for a in asked for fix in a["fix"].split("; ") if fix]
    error = MissingExtra("; ".join(result["problems"]), hint="; ".join(dict.fromkeys(fixes)))
    return Finding("doctor", result, "edgessl doctor", (error,))

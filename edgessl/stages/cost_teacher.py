"""What a teacher costs: its passes while it teaches, and apart from them its own pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.core.recipe import Recipe
from edgessl.cost.training import COUNTINGS, Passes, training_flops
from edgessl.methods import METHODS
from edgessl.stages.cost_nets import Nets, Operations, phases
from edgessl.stages.teacher_names import parsed_teacher

ASSUMED = "resnet50"  # of published comparisons; told as an assumption wherever it is used
PRETRAINED_BY = "moco-v2"  # what SEED's and DisCo's teachers of this size are trained with


@dataclass(frozen=True, slots=True)
class TeacherCost:
    """A teacher, counted.

    Attributes:
        name: As it was named.
        assumed: Whether nobody named it.
        one_pass: Operations of a forward pass on one image.
        pretraining: JSON values: method, units, epochs, images, FLOPs in every counting, and
            whether it is ``assumed`` because nothing is known of it.
    """

    name: str
    assumed: bool
    one_pass: Operations
    pretraining: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"name": self.name, "assumed": self.assumed, "one_pass": dict(self.one_pass),
                "pretraining": self.pretraining}  # fmt: skip


def teacher_cost(
    recipe: Recipe, *, images: int, epochs: int, name: str | None = None
) -> TeacherCost:
    """Count a teacher on images of the recipe's size.

    Args:
        recipe: Gives the teacher when ``name`` does not.
        images: Seen per epoch by a pretraining that nothing is known of.
        epochs: Its epochs.
        name: As ``pretrain.teacher``; None where it is only to be compared with.

    Raises:
        RecipeInvalid: No such encoder, or no single width.
        FileInvalid: The path holds no encoder.
    """
    given = name or recipe.pretrain.teacher
    text, side = given or ASSUMED, recipe.data.imgsz
    named = parsed_teacher(text)
    if named.folder is not None:
        return _of_folder(text, named.folder, side, images, epochs)
    stem = "stock" if named.weights else recipe.encoder.stem  # published weights have stock stems
    one_pass = Nets(named.encoder, stem, side).one_pass(named.width)
    return TeacherCost(text, given is None, one_pass, _assumed(one_pass, images, epochs))


def _assumed(one_pass: Operations, images: int, epochs: int) -> dict[str, Any]:
    units = Passes.of(METHODS[PRETRAINED_BY].facts).dense
    assert units is not None
    return _pretraining({c: units * n for c, n in one_pass.items()}, PRETRAINED_BY, images, epochs)


def _pretraining(step: Operations, method: str, images: int, epochs: int) -> dict[str, Any]:
    flops = {c: training_flops(step[c], images, epochs) for c in COUNTINGS}
    return {"method": method, "images": images, "epochs": epochs, "flops": flops, "assumed": True}


def _of_folder(text: str, folder: Path, side: int, images: int, epochs: int) -> TeacherCost:
    """Count a teacher of our own, whose pretraining is known if it is a pretraining's result."""
    artifact = Artifact.load(folder, verify=False)
    facts = artifact.facts
    try:
        name, stem = str(facts["architecture"]), facts["stem"]
        host, slims = (
            float(facts["host_width" if "host_width" in facts else "width"]),
            [*map(float, facts.get("slim_widths", ()))],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileInvalid(f"{folder}: the document lacks or garbles {error}") from error
    own = str(facts.get("tuned", "")).removesuffix("x")  # a fine-tuned slim net teaches itself
    one_pass = Nets(name, stem, side).one_pass(float(own or host))
    method = str(facts.get("method"))
    if method not in METHODS.entries or not {"epochs", "images"} <= set(facts) or own:
        return TeacherCost(text, False, one_pass, _assumed(one_pass, images, epochs))
    options = METHODS.load(method).Options.model_validate(facts.get("options", {}))
    nets, widths = Nets(name, stem, artifact.input.height), (host, [] if slims == [host] else slims)
    trained = int(facts["epochs"])
    parts = phases(options, Passes.of(METHODS[method].facts), trained)
    steps = [(n / trained, nets.step(passes, widths)) for n, passes in parts]
    mean = {c: sum(share * step[c] for share, step in steps) for c in COUNTINGS}
    known = _pretraining(mean, method, int(facts["images"]), trained)
    return TeacherCost(text, False, one_pass, known | {"assumed": False})

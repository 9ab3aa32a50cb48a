"""What a teacher costs: its passes while it teaches, and apart from them its own pretraining."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl.core.artifact import Artifact
from edgessl.core.recipe import Recipe
from edgessl.cost.training import COUNTINGS, Passes, training_flops
from edgessl.methods import METHODS
from edgessl.stages.cost_nets import Nets, Operations
from edgessl.stages.networks import artifact_folder

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
        UsageProblem: No such encoder.
        FileInvalid: The folder holds no encoder.
    """
    given = name or recipe.pretrain.teacher
    text = given or ASSUMED
    side = recipe.data.imgsz
    if Path(text).expanduser().is_dir():
        return _of_folder(text, side, images, epochs)
    encoder, _, width = text.partition("=")[0].partition("@")
    nets = Nets(encoder, "stock", side)
    one_pass = nets.one_pass(float(width.removesuffix("x") or 1))
    return TeacherCost(text, given is None, one_pass, _assumed(one_pass, images, epochs))


def _assumed(one_pass: Operations, images: int, epochs: int) -> dict[str, Any]:
    units = Passes.of(METHODS[PRETRAINED_BY].facts).dense
    assert units is not None
    return _pretraining({c: units * n for c, n in one_pass.items()}, PRETRAINED_BY, images, epochs)


def _pretraining(step: Operations, method: str, images: int, epochs: int) -> dict[str, Any]:
    flops = {c: training_flops(step[c], images, epochs) for c in COUNTINGS}
    return {"method": method, "images": images, "epochs": epochs, "flops": flops, "assumed": True}


def _of_folder(text: str, side: int, images: int, epochs: int) -> TeacherCost:
    """Count a teacher of our own, whose pretraining is known."""
    artifact = Artifact.load(
        artifact_folder(Path(text).expanduser(), "pretrain", "finetune/*"), verify=False
    )
    facts = artifact.facts
    host, slims = float(facts["host_width"]), [float(w) for w in facts["slim_widths"]]
    one_pass = Nets(facts["architecture"], facts["stem"], side).one_pass(host)
    if "epochs" not in facts or facts.get("method") not in METHODS.entries:
        return TeacherCost(text, False, one_pass, _assumed(one_pass, images, epochs))
    nets = Nets(facts["architecture"], facts["stem"], artifact.input.height)
    options = METHODS.load(facts["method"]).Options.model_validate(facts.get("options", {}))
    passes = options.passes(Passes.of(METHODS[facts["method"]].facts))
    step = nets.step(passes, (host, [] if slims == [host] else slims))
    known = _pretraining(step, facts["method"], int(facts["images"]), int(facts["epochs"]))
    return TeacherCost(text, False, one_pass, known | {"assumed": False})

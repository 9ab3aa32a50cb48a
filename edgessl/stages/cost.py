"""What a recipe will cost, counted on the real networks without running them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid
from edgessl.core.recipe import Recipe
from edgessl.core.widths import width_label
from edgessl.cost.training import COUNTINGS, Passes, stored_bytes, training_flops
from edgessl.data.decode import MEMORY_LIMIT_BYTES
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.stages.cost_nets import Nets, meta_network, phases
from edgessl.stages.cost_teacher import TeacherCost, teacher_cost
from edgessl.stages.pretrain import make_view_specs, method_options
from edgessl.stages.refusals import refuse_slices
from edgessl.training.plan import Plan, check_plan

LOCAL_UNITS = 3  # a local crop is a pass with gradient


def cost_of(
    recipe: Recipe,
    images: int | None = None,
    *,
    teacher: str | None = None,
    teacher_epochs: int | None = None,
) -> dict[str, Any]:
    """Count parameters, operations and bytes of a recipe's pretraining.

    Args:
        recipe: Its data, encoder and pretrain sections.
        images: Images to pretrain on; None counts those that the recipe names.
        teacher: As ``pretrain.teacher``, also for methods that are only compared; None takes the
            recipe's, else a ResNet-50, told as an assumption.
        teacher_epochs: Of a teacher whose own pretraining is not known; None: as many as here.

    Returns:
        JSON values. Operations come in two countings (see
        :data:`edgessl.cost.training.COUNTINGS`): ``macs`` of convolutions and Linear layers, and
        ``seed_compat``, which adds four operations per BatchNorm output, as published cost tables
        do. Networks are without a classifier, as in pretraining. ``compared`` holds every method
        on the same encoder and images.

    Raises:
        RecipeInvalid: The method does not train these widths, or there is no such teacher.
        InvalidInput: The widths are no slices of one net, or it cannot take the image size.
        DataInvalid: The images of the recipe cannot be opened, or are fewer than a batch.
        FileInvalid: The teacher cannot be counted.
    """
    section = recipe.pretrain
    images = _images(recipe) if images is None else images
    plan = Plan(images, section.batch, section.epochs, section.learning_rate)
    check_plan(plan)
    seen = plan.steps_per_epoch * plan.batch
    helper = teacher_cost(recipe, images=seen, epochs=teacher_epochs or plan.epochs, name=teacher)
    bill = _Bill(recipe, Nets(recipe.encoder.name, recipe.encoder.stem, recipe.data.imgsz),
                 helper, seen * len(recipe.starts))  # fmt: skip
    own = bill.of(section.method)
    spec = InputSpec.square(recipe.data.imgsz)
    size = stored_bytes(images, spec.resize)
    return {
        "method": section.method,
        "encoder": recipe.encoder.name,
        "width": recipe.encoder.width,
        "stem": recipe.encoder.stem,
        "imgsz": recipe.data.imgsz,
        "classifier": "not counted",
        "nets": _nets(bill),
        "teacher": helper.as_dict() if own["teacher"] != "none" else None,
        "local_crops": _local_crops(recipe),
        "passes": own["passes"],
        "first_epochs": own["first_epochs"],
        "per_image": bill.step(section.method, bill.phases(section.method)[-1][1]),
        "training": {
            "images": images,
            "epochs": plan.epochs,
            "batch": plan.batch,
            "steps": plan.steps,
            "starts": len(recipe.starts),
            "flops": own["flops"],
            "flops_before": own["flops_before"],
        },
        "compared": _compared(bill, own),
        "compared_teacher": helper.as_dict(),
        "stored_images": {
            "side": spec.resize,
            "bytes": size,
            "where": "memory" if size <= MEMORY_LIMIT_BYTES else "a file in the run folder",
        },
        "kind": "computed",
    }  # fmt: skip


def taught_by(recipe: Recipe, teacher: str | None) -> Recipe:
    """Return the recipe with a teacher, if one is named and its method has one."""
    if teacher is None or METHODS.load(recipe.pretrain.method).teacher_kind == "none":
        return recipe
    section = recipe.pretrain.model_copy(update={"teacher": teacher})
    return recipe.model_copy(update={"pretrain": section})


@dataclass(frozen=True, slots=True)
class _Bill:
    """Costs of any method with the encoder, images and teacher of a recipe."""

    recipe: Recipe
    nets: Nets
    teacher: TeacherCost
    seen: int  # images per epoch, in all starts

    @property
    def widths(self) -> tuple[float, list[float]]:
        """Host and slim nets; none where the host is the only net."""
        host, *slims = self.recipe.widths
        return host, [] if slims == [host] else slims

    def phases(self, method: str) -> list[tuple[int, Passes]]:
        """Return epochs and units of a method, with the recipe's options where it is its own."""
        usual, section = Passes.of(METHODS[method].facts), self.recipe.pretrain
        if method != section.method:
            return [(section.epochs, usual)]
        parts = phases(method_options(self.recipe), usual, section.epochs)
        epochs, last = parts[-1]  # what comes before trains without local crops
        crops = LOCAL_UNITS * section.views.local
        return [*parts[:-1], (epochs, replace(last, local=last.local or crops))]

    def step(
        self, method: str, passes: Passes, widths: tuple[float, Sequence[float]] | None = None
    ) -> Any:
        """Return the operations of a step per image, by counting."""
        crops = _local_crops(self.recipe) if method == self.recipe.pretrain.method else None
        return self.nets.step(
            passes, widths or self.widths, teacher=self.teacher.one_pass,
            local_side=crops["side"] if crops else 0,
        )  # fmt: skip

    def of(self, method: str) -> dict[str, Any]:
        """Return the FLOPs of a method; one that trains one width trains once for every slim net.

        ``flops_before`` are those of the pretraining of a teacher that must be there before; None
        where none must.
        """
        parts, (host, slims) = self.phases(method), self.widths
        *early, (_, passes) = parts
        trainings: list[tuple[float, Sequence[float]]] = [(host, slims)]
        is_own = method == self.recipe.pretrain.method
        if slims and passes.host is None and not is_own:
            trainings = [(width, []) for width in slims]
        per_image = dict.fromkeys(COUNTINGS, 0.0)  # in all epochs together
        for epochs, units in parts:
            for widths in trainings:
                step = self.step(method, units, widths)
                per_image = {c: n + epochs * step[c] for c, n in per_image.items()}
        slim_nets = len(trainings[0][1])
        kind = METHODS.load(method).teacher_kind
        if kind == "optional":  # taken where the options ask for one
            kind = "frozen" if any(p.teacher for _, p in parts) else "none"
        return {
            "method": method,
            "widths": ["-".join(map(width_label, (h, *s))) for h, s in trainings],
            "passes": passes.text(slim_nets),
            "first_epochs": [{"epochs": n, "passes": p.text(slim_nets)} for n, p in early],
            "teacher": kind,
            "flops": {c: training_flops(n, self.seen, 1) for c, n in per_image.items()},
            "flops_before": self.teacher.pretraining["flops"] if kind == "frozen" else None,
        }


def _compared(bill: _Bill, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every method with the ratio of its FLOPs to those of the recipe's method."""

    def whole(row: dict[str, Any], counting: str) -> float:
        before = row["flops_before"]
        return row["flops"][counting] + (before[counting] if before else 0.0)

    return [
        row | {
            "ratio": {c: round(row["flops"][c] / own["flops"][c], 4) for c in COUNTINGS},
            "ratio_with_teacher": {c: round(whole(row, c) / whole(own, c), 4) for c in COUNTINGS},
        }
        for row in (own if name == own["method"] else bill.of(name) for name in METHODS)
    ]  # fmt: skip


def _nets(bill: _Bill) -> list[dict[str, Any]]:
    recipe, (host, slims) = bill.recipe, bill.widths
    roles = [("host" if slims else "only net", host), *(("slim", width) for width in slims)]
    architecture = ENCODERS.load(recipe.encoder.name)
    refuse_slices(recipe)
    found = []
    for role, width in roles:
        network = meta_network(recipe.encoder.name, width, classes=None, stem=recipe.encoder.stem)
        features = architecture.feature_size(width)
        projector = [features, *method_options(recipe).projector]
        found.append({
            "role": role,
            "width": width_label(width),
            "parameters": sum(tensor.numel() for tensor in network.parameters()),
            "features": features,
            "projector_macs": sum(a * b for a, b in pairwise(projector)),
            **bill.nets.one_pass(width),
        })  # fmt: skip
    return found


def _local_crops(recipe: Recipe) -> dict[str, int] | None:
    count = recipe.pretrain.views.local
    return {"count": count, "side": make_view_specs(recipe)[-1].size} if count else None


def _images(recipe: Recipe) -> int:
    """Return how many images the recipe pretrains on, as far as the listing tells."""
    data = recipe.data
    labelled = METHODS.load(recipe.pretrain.method).uses_labels
    if data.unlabeled is not None and not labelled:
        return len(open_source(data.unlabeled))
    if data.labelled is None:
        raise DataInvalid(
            f"{recipe.pretrain.method} learns from labels, and there are no labelled images",
            hint="name them (--labels), or their number (--images)",
        )
    kept = 1 - data.validation_share - (0 if data.test else data.test_share)
    return round(len(open_source(str(data.labelled))) * kept)

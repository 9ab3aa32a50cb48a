"""What a recipe will cost, counted on the real networks without running them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgessl.core.artifact import InputSpec
from edgessl.core.recipe import Recipe
from edgessl.core.widths import width_label
from edgessl.cost.macs import count_macs
from edgessl.cost.training import THOP_BATCHNORM_OPS, Passes, stored_bytes, training_flops
from edgessl.data.decode import MEMORY_LIMIT_BYTES
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.training.loop import Plan, check_plan


def cost_of(recipe: Recipe, images: int | None = None) -> dict[str, Any]:
    """Count parameters, operations and bytes of a recipe's pretraining.

    Args:
        recipe: Its data, encoder and pretrain sections.
        images: Images to pretrain on; None counts those that the recipe names.

    Returns:
        JSON values; ``macs`` of one image are those of convolutions and Linear layers,
        ``macs_with_batchnorm`` adds four operations per BatchNorm output, as published cost
        tables do. Networks are without a classifier, as in pretraining.

    Raises:
        RecipeInvalid: The method does not train these widths.
        DataInvalid: The images of the recipe cannot be opened, or are fewer than a batch.
    """
    host, *slims = recipe.widths
    dense = slims == [host]
    nets = [_net(recipe, host, "only net" if dense else "host")]
    nets += [] if dense else [_net(recipe, width, "slim") for width in slims]
    spec = InputSpec.square(recipe.data.imgsz)
    section = recipe.pretrain
    passes = Passes.of(METHODS[section.method].facts)
    per_image = {
        key: passes.operations(nets[0][key], [net[key] for net in nets[1:]])
        for key in ("macs", "macs_with_batchnorm")
    }
    images = _images(recipe) if images is None else images
    plan = Plan(images, section.batch, section.epochs, section.learning_rate)
    check_plan(plan)
    seen = plan.steps_per_epoch * plan.batch
    flops = {key: training_flops(macs, seen, plan.epochs) for key, macs in per_image.items()}
    size = stored_bytes(images, spec.resize)
    return {
        "method": section.method,
        "encoder": recipe.encoder.name,
        "width": recipe.encoder.width,
        "stem": recipe.encoder.stem,
        "imgsz": recipe.data.imgsz,
        "nets": nets,
        "passes": passes.text(0 if dense else len(slims)),
        "per_image": per_image,
        "training": {
            "images": images,
            "epochs": plan.epochs,
            "batch": plan.batch,
            "steps": plan.steps,
            "starts": len(recipe.starts),
            "flops": flops["macs"] * len(recipe.starts),
            "flops_with_batchnorm": flops["macs_with_batchnorm"] * len(recipe.starts),
        },
        "stored_images": {
            "side": spec.resize,
            "bytes": size,
            "where": "memory" if size <= MEMORY_LIMIT_BYTES else "a file in the run folder",
        },
        "kind": "computed",
    }


def _net(recipe: Recipe, width: float, role: str) -> dict[str, Any]:
    architecture, side = ENCODERS.load(recipe.encoder.name), recipe.data.imgsz
    with torch.device("meta"):
        network: nn.Module = architecture.network(width, classes=None, stem=recipe.encoder.stem)
    return {
        "role": role,
        "width": width_label(width),
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
        "features": architecture.feature_size(width),
        "macs": count_macs(network, side, side),
        "macs_with_batchnorm": count_macs(network, side, side, batchnorm_ops=THOP_BATCHNORM_OPS),
    }


def _images(recipe: Recipe) -> int:
    """Return how many images the recipe pretrains on, as far as the listing tells."""
    data = recipe.data
    if data.unlabeled is not None:
        return len(open_source(data.unlabeled))
    kept = 1 - data.validation_share - (0 if data.test else data.test_share)
    return round(len(open_source(str(data.labelled))) * kept)

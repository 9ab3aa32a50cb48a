"""Pretraining: unlabeled images to a host whose slices are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from edgessl.core.artifact import Artifact
from edgessl.core.errors import RecipeInvalid, nearest
from edgessl.core.images import to_model_input
from edgessl.core.recipe import Recipe
from edgessl.data.views import Views, view_specs
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import write_tensors
from edgessl.methods import METHODS
from edgessl.slimming.extract import build_sliced
from edgessl.slimming.sliced import Sliced, recalibrate
from edgessl.stages.context import Context
from edgessl.stages.networks import host_facts, net_spec
from edgessl.training.loop import Job, Plan, train


def pretrain(context: Context) -> Path:
    """Run the recipe's ``pretrain`` section and return its folder (an ``encoder`` artifact).

    Raises:
        RecipeInvalid: The method refuses its options or widths.
        DataInvalid: See :attr:`Context.unlabeled`.
        Interrupted: Stopped; the state is saved.
    """
    recipe, folder = context.recipe, context.folder("pretrain")
    images, images_sha = context.unlabeled
    identity = {
        "pretrain": recipe.pretrain.model_dump(mode="json", exclude={"save_every_s"}),
        "encoder": recipe.encoder.model_dump(mode="json"),
        "seed": recipe.seed,
        "data_sha256": images_sha,
    }

    def work() -> Path:
        _pretrain(context, images, folder, identity)
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    return context.stage("pretrain", folder, identity, work, load)


def _pretrain(
    context: Context, images: NDArray[np.uint8], folder: Path, identity: dict[str, Any]
) -> None:
    recipe, section = context.recipe, context.recipe.pretrain
    spec = net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    method_class = METHODS.load(section.method)
    options = method_options(recipe)
    sliced = build_sliced(architecture, spec, seed=recipe.seed)
    features = sliced.plan.groups[architecture.feature_group(sliced.host)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = method_class.from_options(sliced, features, options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = method.to(device).to(memory_format=torch.channels_last)
    views = make_views(recipe, context)
    stored = torch.from_numpy(images).to(device)

    def loss(module: nn.Module, indices: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        batch = stored[torch.from_numpy(indices).to(device)]
        return module(views(batch, indices, epoch))

    plan = Plan(
        items=len(images), batch=section.batch, epochs=section.epochs,
        learning_rate=section.learning_rate, optimizer=section.optimizer,
        weight_decay=section.weight_decay, warmup=section.warmup, seed=recipe.seed,
    )  # fmt: skip
    context.reporter.say(
        f"pretrain: {section.method}, {spec.architecture} {recipe.encoder.width}, "
        f"{len(images)} images of {context.spec.resize} px, on {device.type}"
    )
    job = Job(
        method, loss, plan, "pretrain", folder, identity, section.max_seconds,
        section.save_every_s, after_step=method.after_step,
    )  # fmt: skip
    followed = train(job, context.reporter)
    sliced = method.encoder.to("cpu").to(memory_format=torch.contiguous_format)
    _recalibrate(sliced, images, context, section.recalibrate_batches)
    write_tensors(folder / "encoder.safetensors", sliced.state_dict())
    facts = host_facts(architecture, spec, sliced) | {
        "method": section.method,
        "options": options.model_dump(mode="json"),
        "epochs": followed.epochs,
        "steps": followed.steps,
        "images": len(images),
        "data_sha256": identity["data_sha256"],
        "seed": recipe.seed,
    }
    Artifact.sealed(
        folder, ["encoder.safetensors"], artifact_kind="encoder", format="safetensors",
        input=context.spec, facts=facts,
    )  # fmt: skip


def method_options(recipe: Recipe) -> Any:
    """Return the validated options of the recipe's method.

    Raises:
        RecipeInvalid: All errors at once, unknown names with the nearest one.
    """
    section = recipe.pretrain
    model = METHODS.load(section.method).Options
    try:
        return model.model_validate(section.options)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            place = ".".join(("pretrain", "options", *map(str, item["loc"])))
            if item["type"] == "extra_forbidden":
                known = nearest(str(item["loc"][-1]), model.model_fields)
                lines.append(f"{place}: unknown option of {section.method}; {known}")
            else:
                lines.append(f"{place}: {item['msg'].lower()} (got {item['input']!r:.60})")
        raise RecipeInvalid("\n".join(lines)) from None


def make_views(recipe: Recipe, context: Context) -> Views:
    """Return the random views of the recipe.

    Raises:
        RecipeInvalid: No such preset.
    """
    wanted = recipe.pretrain.views
    specs = view_specs(wanted.preset, recipe.data.imgsz, flip=wanted.flip)
    if wanted.crop_scale is not None:
        specs = tuple(replace(s, crop_scale=wanted.crop_scale) for s in specs)
    return Views(specs, context.spec.mean, context.spec.std, recipe.seed)


def _recalibrate(sliced: Sliced, images: NDArray[np.uint8], context: Context, batches: int) -> None:
    """Re-estimate all BatchNorm statistics on training images as they look when deployed."""
    spec, size = context.spec, min(256, len(images))
    edge = (spec.resize - spec.height) // 2
    order = np.random.Generator(np.random.PCG64([context.recipe.seed, 1])).permutation(len(images))
    parts = [order[i : i + size] for i in range(0, len(order) - size + 1, size)][:batches]
    prepared = [
        torch.from_numpy(
            to_model_input(images[p][:, edge : edge + spec.height, edge : edge + spec.width], spec)
        )
        for p in parts
    ]
    for width in ("host", "slim"):
        recalibrate(sliced, width, prepared)

"""Pretraining: unlabeled images to a host whose slices are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import RecipeInvalid, nearest
from edgessl.core.images import to_model_input
from edgessl.core.recipe import Recipe
from edgessl.data.views import PRESETS, Views, view_specs
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import write_tensors
from edgessl.methods import METHODS
from edgessl.slimming.extract import build_sliced
from edgessl.slimming.sliced import HOST, Sliced, recalibrate
from edgessl.stages.context import STAGE_FILE, Context, clear
from edgessl.stages.networks import host_facts, net_spec, weights_identity
from edgessl.stages.roles import Pool
from edgessl.stages.seen import write_seen
from edgessl.stages.watch import as_deployed, make_watch
from edgessl.training.loop import Job, LossFunction, Plan, train
from edgessl.training.optimizers import LarsSettings
from edgessl.training.record import check_finite


def pretrain_folder(context: Context, start: str = "random") -> Path:
    """Return the stage folder of a pretraining that begins at ``random`` or ``weights``."""
    return context.folder("pretrain" if start == "random" else "pretrain-imagenet")


def pretrain(context: Context, start: str = "random") -> Path:
    """Run the recipe's ``pretrain`` section once and return its folder (an ``encoder`` artifact).

    Args:
        context: The run.
        start: One of ``recipe.starts``: ``random``, or ``weights`` (those of the recipe's
            ``encoder.weights`` fill the slim nets).

    Raises:
        RecipeInvalid: The method refuses its options or widths.
        DataInvalid: See :attr:`Images.pool`.
        FileInvalid: The weights cannot be used.
        Collapsed: The monitors raised an alarm; the state is saved.
        Interrupted: Stopped; the state is saved.
    """
    pool, folder = context.images.pool, pretrain_folder(context, start)
    identity = pretrain_identity(context, start)
    if (folder / STAGE_FILE).is_file() and not is_finished(context, start):
        clear(folder)  # finished from other weights, the one thing that may change on resuming

    def work() -> Path:
        _pretrain(context, pool, folder, identity)
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    return context.stage(folder.name, folder, identity, work, load)


def pretrain_identity(context: Context, start: str) -> dict[str, Any]:
    """Return everything that the result of a pretraining depends on."""
    recipe = context.recipe
    return {
        "pretrain": recipe.pretrain.model_dump(
            mode="json", exclude={"save_every_s", "monitor", "starts"}
        ),
        "encoder": recipe.encoder.model_dump(mode="json", exclude={"weights"}),
        "weights": None if start == "random" else weights_identity(recipe),
        "seed": recipe.seed,
        "data_sha256": context.images.pool.data_sha256,
    }


def is_finished(context: Context, start: str) -> bool:
    """Return whether a pretraining with this recipe on these images is finished."""
    marker = pretrain_folder(context, start) / STAGE_FILE
    if not marker.is_file():
        return False
    return files.read_json(marker, "stage")["identity"] == pretrain_identity(context, start)


def _pretrain(context: Context, pool: Pool, folder: Path, identity: dict[str, Any]) -> None:
    recipe, section = context.recipe, context.recipe.pretrain
    spec, weights = net_spec(recipe), identity["weights"]
    method, options = build_method(recipe)
    if weights is not None:
        weights = _fill(method.encoder, spec.architecture, weights)
    device = best_device()
    method = method.to(device).to(memory_format=torch.channels_last)
    variant = section.method if weights is None else f"imagenet+{section.method}"
    context.reporter.say(
        f"{folder.name}: {variant}, {spec.architecture} {recipe.encoder.width}, "
        f"{len(pool.images)} images of {context.spec.resize} px, on {device.type}"
    )
    job = Job(
        method, view_loss(recipe, context.spec, pool.images, device),
        make_plan(recipe, len(pool.images)), folder.name, folder, identity, section.max_seconds,
        section.save_every_s, after_step=method.after_step,
        watch=make_watch(context, method, pool),
    )  # fmt: skip
    followed = train(job, context.reporter)
    sliced = method.encoder
    for width in (HOST,) if sliced.is_dense else (HOST, *sliced.labels):
        recalibrate(sliced, width, deployed_batches(context, device))
    sliced.to("cpu").to(memory_format=torch.contiguous_format)
    check_finite(sliced, followed.steps)
    write_tensors(folder / "encoder.safetensors", sliced.state_dict())
    facts = write_seen(folder, pool.source_sha256)
    facts |= host_facts(ENCODERS.load(spec.architecture), spec, sliced) | {
        "variant": variant,
        "weights": weights,
        "method": section.method,
        "options": options.model_dump(mode="json"),
        "epochs": followed.epochs,
        "steps": followed.steps,
        "images": len(pool.images),
        "data_sha256": pool.data_sha256,
        "seed": recipe.seed,
    }
    Artifact.sealed(
        folder, ["encoder.safetensors"], artifact_kind="encoder", format="safetensors",
        input=context.spec, facts=facts,
    )  # fmt: skip


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _fill(sliced: Sliced, architecture: str, weights: dict[str, Any]) -> dict[str, Any]:
    """Start from stock weights; return where they came from and their SHA-256."""
    from edgessl.encoders.weights import stock_weights
    from edgessl.slimming.start import fill_sliced

    tensors = stock_weights(ENCODERS.load(architecture), weights["where"])
    fill_sliced(sliced, tensors)
    return weights | {"sha256": weights["sha256"] or files.sha256_bytes(save(tensors))}


def view_loss(
    recipe: Recipe, spec: InputSpec, images: NDArray[np.uint8], device: torch.device
) -> LossFunction:
    """Return the loss of a method over the recipe's random views of stored images."""
    views, stored = make_views(recipe, spec), torch.from_numpy(images)

    def loss(module: nn.Module, indices: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        batch = stored[torch.from_numpy(indices)].to(device, non_blocking=True)
        return module(views(batch, indices, epoch))

    return loss


def build_method(recipe: Recipe) -> tuple[Any, Any]:
    """Return the recipe's method with fresh weights, and its options.

    Raises:
        RecipeInvalid: The method refuses its options or widths, or takes another number of views
            than the preset makes.
        InvalidInput: The widths do not fit into each other.
    """
    kind = METHODS.load(recipe.pretrain.method)
    _check_views(recipe, kind.views)
    spec = net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    options = method_options(recipe)
    sliced = build_sliced(architecture, spec, seed=recipe.seed)
    group = architecture.feature_group(sliced.host)
    features = {label: slim.plan.groups[group] for label, slim in sliced.slims.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = kind.from_options(sliced, features, options)
    return method, options


def _check_views(recipe: Recipe, wanted: int) -> None:
    section = recipe.pretrain
    made = len(view_specs(section.views.preset, recipe.data.imgsz))
    if made == wanted:
        return
    fitting = [name for name, specs in PRESETS.items() if len(specs) == wanted]
    raise RecipeInvalid(
        f"method '{section.method}' takes {wanted} view(s) of each image, "
        f"but pretrain.views.preset '{section.views.preset}' makes {made}",
        hint=f"presets that make {wanted}: {', '.join(fitting) or 'none'}",
    )


def make_plan(recipe: Recipe, images: int) -> Plan:
    """Return the training plan of the recipe for a number of images."""
    section = recipe.pretrain
    return Plan(
        items=images, batch=section.batch, epochs=section.epochs,
        learning_rate=section.learning_rate, optimizer=section.optimizer,
        weight_decay=section.weight_decay, warmup=section.warmup, seed=recipe.seed,
        lars=LarsSettings(**section.lars.model_dump()) if section.optimizer == "lars" else None,
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


def make_views(recipe: Recipe, spec: InputSpec) -> Views:
    """Return the random views of the recipe, normalised as in ``spec``.

    Raises:
        RecipeInvalid: No such preset.
    """
    wanted = recipe.pretrain.views
    specs = view_specs(wanted.preset, recipe.data.imgsz, flip=wanted.flip)
    if wanted.crop_scale is not None:
        specs = tuple(replace(s, crop_scale=wanted.crop_scale) for s in specs)
    return Views(specs, spec.mean, spec.std, recipe.seed)


def deployed_batches(context: Context, device: torch.device) -> Iterator[Tensor]:
    """Yield batches of pretraining images without augmentation, cropped as when deployed."""
    pool, spec = context.images.pool, context.spec
    n = len(pool.images)
    size = min(256, n)
    order = np.random.Generator(np.random.PCG64([context.recipe.seed, 1])).permutation(n)
    batches = range(0, n - size + 1, size)[: context.recipe.pretrain.recalibrate_batches]
    for start in batches:
        images = as_deployed(pool.images[np.sort(order[start : start + size])], spec)
        yield torch.from_numpy(to_model_input(images, spec)).to(device)

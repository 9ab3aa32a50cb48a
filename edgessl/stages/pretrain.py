"""Pretraining: unlabeled images to a host whose slices are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
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
from edgessl.cost.training import Passes
from edgessl.data.views import PRESETS, Views, ViewSpec, view_specs
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import write_tensors
from edgessl.methods import METHODS
from edgessl.methods.base import Method, Options, Parts
from edgessl.slimming.extract import build_sliced
from edgessl.slimming.sliced import HOST, Sliced, recalibrate
from edgessl.stages.context import STAGE_FILE, Context, clear
from edgessl.stages.networks import host_facts, net_spec, weights_identity
from edgessl.stages.projectors import projector_layers, write_projector
from edgessl.stages.roles import Pool
from edgessl.stages.seen import write_seen
from edgessl.stages.teachers import check_teacher, load_teacher, teacher_of_stage, tell_teacher
from edgessl.stages.watch import as_deployed, make_watch
from edgessl.training.loop import Job, train
from edgessl.training.optimizers import LarsSettings
from edgessl.training.plan import Plan
from edgessl.training.record import check_finite
from edgessl.training.update import LossFunction

# what pretrain.views may change in every view of a preset
CHANGEABLE = (
    "crop_scale", "flip", "jitter", "brightness", "contrast", "saturation", "hue", "gray", "blur",
    "solarize",
)  # fmt: skip
FEWEST_KEYS = 32  # of a queue that is cut to the images


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
        RecipeInvalid: The method refuses its options, widths or teacher.
        DataInvalid: See :attr:`Images.pool`; or the teacher knows images that are measured on.
        FileInvalid: The weights or the teacher cannot be used.
        Collapsed: The monitors raised an alarm; the state is saved.
        Interrupted: Stopped; the state is saved.
    """
    pool, folder = pool_of(context), pretrain_folder(context, start)
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
            mode="json", exclude={"save_every_s", "monitor", "starts", "options"}
        ),
        "options": method_options(recipe).model_dump(mode="json"),
        "encoder": recipe.encoder.model_dump(mode="json", exclude={"weights"}),
        "weights": None if start == "random" else weights_identity(recipe),
        "teacher": teacher_of_stage(context, pretrain_folder(context, start)),
        "seed": recipe.seed,
        "data_sha256": pool_of(context).data_sha256,
    }


def pool_of(context: Context) -> Pool:
    """Return the images that the recipe's method trains on.

    Raises:
        DataInvalid: See :attr:`Images.pool` and :attr:`Images.labelled_pool`.
    """
    method = METHODS.load(context.recipe.pretrain.method)
    return context.images.labelled_pool if method.uses_labels else context.images.pool


def is_finished(context: Context, start: str) -> bool:
    """Return whether a pretraining with this recipe on these images is finished."""
    marker = pretrain_folder(context, start) / STAGE_FILE
    if not marker.is_file():
        return False
    return files.read_json(marker, "stage")["identity"] == pretrain_identity(context, start)


def number_of_classes(context: Context, pool: Pool) -> int:
    """Return how many classes the labels of a pool have; 0 where it has none."""
    return 0 if pool.labels is None else len(context.class_names)


def _pretrain(context: Context, pool: Pool, folder: Path, identity: dict[str, Any]) -> None:
    recipe, section = context.recipe, context.recipe.pretrain
    spec, weights, teacher = net_spec(recipe), identity["weights"], identity["teacher"]
    check_teacher(context)
    n = len(pool.images)
    method, options = build_method(recipe, classes=number_of_classes(context, pool), images=n)
    _tell_queue(context, options, n)
    if weights is not None:
        weights = _fill(method.encoder, spec.architecture, weights)
    layers, device = projector_layers(method), best_device()
    method = method.to(device).to(memory_format=torch.channels_last)
    variant = section.method if weights is None else f"imagenet+{section.method}"
    context.reporter.say(
        f"{folder.name}: {variant}, {spec.architecture} {recipe.encoder.width}, "
        f"{len(pool.images)} images of {context.spec.resize} px, on {device.type}"
    )
    if teacher is not None:
        tell_teacher(context, teacher, options.projector, layers)
    loss = view_loss(recipe, context.spec, pool, device)
    job = Job(
        method, loss,
        make_plan(recipe, len(pool.images)), folder.name, folder, identity, section.max_seconds,
        section.save_every_s, begin=method.begin, after_step=method.after_step,
        watch=make_watch(context, method, pool, make_views(recipe, context.spec), loss),
        early_epochs=early_epochs(recipe),
    )  # fmt: skip
    followed = train(job, context.reporter)
    sliced = method.encoder
    for width in (HOST,) if sliced.is_dense else (HOST, *sliced.labels):
        recalibrate(sliced, width, deployed_batches(context, device))
    files_beside = write_projector(folder, method, deployed_batches(context, device))
    sliced.to("cpu").to(memory_format=torch.contiguous_format)
    check_finite(sliced, followed.steps)
    write_tensors(folder / "encoder.safetensors", sliced.state_dict())
    facts = write_seen(folder, pool.source_sha256)
    facts |= host_facts(ENCODERS.load(spec.architecture), spec, sliced) | {
        "variant": variant,
        "weights": weights,
        "method": section.method,
        "options": options.model_dump(mode="json"),
        "projector": layers,
        "teacher": teacher,
        "uses_labels": method.uses_labels,
        "epochs": followed.epochs,
        "steps": followed.steps,
        "images": len(pool.images),
        "data_sha256": pool.data_sha256,
        "seed": recipe.seed,
    }
    Artifact.sealed(
        folder, ["encoder.safetensors", *files_beside], artifact_kind="encoder",
        format="safetensors", input=context.spec, facts=facts,
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


def _tell_queue(context: Context, options: Options, images: int) -> None:
    """Say so when a queue was cut to the images, warn when it is too long for them."""
    queue: int = getattr(options, "queue", 0) if options.negatives_in_queue else 0
    if (
        queue
        and "queue" not in context.recipe.pretrain.options
        and queue == max(FEWEST_KEYS, images // 4)
    ):
        context.reporter.say(
            f"queue: {queue} keys, a quarter of the images (pretrain.options.queue sets it)"
        )
    elif queue > images:
        context.reporter.warn(
            f"pretrain.options.queue is {queue} for {images} images: each meets older keys of "
            "its own as negatives, which can spoil the training"
        )


def view_loss(recipe: Recipe, spec: InputSpec, pool: Pool, device: torch.device) -> LossFunction:
    """Return the loss of the recipe's method over random views of stored images."""
    views, stored = make_views(recipe, spec), torch.from_numpy(pool.images)
    labels = None if pool.labels is None else torch.from_numpy(pool.labels)

    def loss(module: nn.Module, indices: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        rows = torch.from_numpy(indices)
        made = views(stored[rows].to(device, non_blocking=True), indices, epoch)
        return module(made) if labels is None else module(made, labels[rows].to(device))

    return loss


def build_method(
    recipe: Recipe, *, classes: int = 0, images: int | None = None
) -> tuple[Method, Options]:
    """Return the recipe's method with fresh weights, and its options.

    Args:
        recipe: Its encoder and pretrain sections.
        classes: For a method that uses labels: how many classes there are.
        images: How many there are to pretrain on; a queue that the recipe leaves open is cut to a
            quarter of them, as an image must not meet many older keys of its own.

    Raises:
        RecipeInvalid: The method refuses its options, widths or teacher, or takes more views
            than the preset makes.
        InvalidInput: The widths do not fit into each other, or the teacher cannot be loaded.
    """
    kind: type[Method] = METHODS.load(recipe.pretrain.method)
    make_view_specs(recipe)  # a preset of too few views is told before anything is built
    spec = net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    options = method_options(recipe)
    to_cut = options.negatives_in_queue and "queue" not in options.model_fields_set
    if images is not None and to_cut:
        fitting = max(FEWEST_KEYS, images // 4)
        if getattr(options, "queue", 0) > fitting:
            options = options.model_copy(update={"queue": fitting})
    teacher = load_teacher(recipe)
    sliced = build_sliced(architecture, spec, seed=recipe.seed)
    group = architecture.feature_group(sliced.host)
    features = {label: slim.plan.groups[group] for label, slim in sliced.slims.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = kind(Parts(sliced, features, teacher, classes, recipe.seed, group), options)
    return method, options


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


def early_epochs(recipe: Recipe) -> int:
    """Return how many first epochs the recipe's method trains otherwise, at another cost."""
    method = recipe.pretrain.method
    return method_options(recipe).early(Passes.of(METHODS[method].facts))[0]


def make_views(recipe: Recipe, spec: InputSpec) -> Views:
    """Return the random views of the recipe's method, normalised as in ``spec``.

    Raises:
        RecipeInvalid: See :func:`make_view_specs`.
    """
    return Views(make_view_specs(recipe), spec.mean, spec.std, recipe.seed)


def make_view_specs(recipe: Recipe) -> tuple[ViewSpec, ...]:
    """Return what views the recipe's method gets: the first ones of the preset, local crops last.

    A local crop has the colours of the first view, is blurred as often as a whole view is on
    average, and never solarised.

    Raises:
        RecipeInvalid: No such preset, it makes fewer views than the method takes, or there are
            local crops for a method that takes none.
    """
    section, wanted, side = recipe.pretrain, recipe.pretrain.views, recipe.data.imgsz
    kind: type[Method] = METHODS.load(section.method)
    preset = wanted.preset or ("finetune" if kind.uses_labels else "cifar_asym")
    specs = view_specs(preset, side)
    if len(specs) < kind.views:
        fitting = [name for name, made in PRESETS.items() if len(made) >= kind.views]
        raise RecipeInvalid(
            f"method '{section.method}' takes {kind.views} views of each image, "
            f"but pretrain.views.preset '{preset}' makes {len(specs)}",
            hint=f"presets that make enough: {', '.join(fitting) or 'none'}",
        )
    if wanted.local and not kind.takes_local:
        raise RecipeInvalid(
            f"method '{section.method}' takes no local crops (pretrain.views.local is "
            f"{wanted.local})",
            hint="leave pretrain.views.local out, or choose --method sacl-xd",
        )
    changes = {key: getattr(wanted, key) for key in CHANGEABLE}
    changes = {key: value for key, value in changes.items() if value is not None}
    whole = tuple(replace(spec, **changes) for spec in specs[: kind.views])
    small = wanted.local_size or max(8, 4 * round(side / 7))
    local = replace(
        whole[0], size=small, crop_scale=wanted.local_scale, solarize=0.0,
        blur=fmean(spec.blur for spec in whole),
    )  # fmt: skip
    return (*whole, *(local,) * wanted.local)


def deployed_batches(context: Context, device: torch.device) -> Iterator[Tensor]:
    """Yield batches of pretraining images without augmentation, cropped as when deployed."""
    pool, spec = pool_of(context), context.spec
    n = len(pool.images)
    size = min(256, n)
    order = np.random.Generator(np.random.PCG64([context.recipe.seed, 1])).permutation(n)
    batches = range(0, n - size + 1, size)[: context.recipe.pretrain.recalibrate_batches]
    for start in batches:
        images = as_deployed(pool.images[np.sort(order[start : start + size])], spec)
        yield torch.from_numpy(to_model_input(images, spec)).to(device)

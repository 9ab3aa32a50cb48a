"""Teachers: what ``pretrain.teacher`` names becomes a net, known by the hash of its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import FileInvalid, RecipeInvalid
from edgessl.core.recipe import Recipe
from edgessl.core.widths import width_label
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import load_model
from edgessl.encoders.weights import IMAGENET, fill, stock_weights
from edgessl.methods.base import Teacher
from edgessl.stages.context import STAGE_FILE, Context
from edgessl.stages.networks import load_host
from edgessl.stages.projectors import read_projector
from edgessl.stages.seen import check_unseen
from edgessl.stages.teacher_names import Named, named_teacher


def check_teacher(context: Context) -> None:
    """Refuse a teacher that has learned from images that this run measures on.

    Raises:
        RecipeInvalid, FileInvalid: As :func:`named_teacher`.
        DataInvalid: As :func:`edgessl.stages.seen.check_unseen`.
    """
    named = named_teacher(context.recipe)
    if named is not None and named.folder is not None:
        check_unseen(context, named.folder)


def teacher_identity(recipe: Recipe) -> dict[str, Any] | None:
    """Return what the identity of a stage and its artifact say of the teacher.

    Returns:
        JSON values: its ``name`` as written, architecture and width, ``sha256`` (the seal of an
        artifact, the hash of a file, None for stock and random weights), and of a net of our own
        how it was trained. None without a teacher.

    Raises:
        RecipeInvalid, FileInvalid: As :func:`named_teacher`.
    """
    named = named_teacher(recipe)
    if named is None:
        return None
    if named.folder is None:
        weights, sha256 = named.weights, None
        if weights == IMAGENET:
            weights = ENCODERS.load(named.encoder).weights
        elif weights is not None:
            sha256 = _hash(Path(weights).expanduser())
        width = width_label(named.width)
        return {"name": named.text, "architecture": named.encoder, "width": width,
                "sha256": sha256, "trained": weights}  # fmt: skip
    artifact = Artifact.load(named.folder, verify=False)
    facts = artifact.facts
    width = facts.get("tuned") or width_label(float(facts.get("width", facts.get("host_width", 1))))
    how = facts.get("variant", facts.get("method", artifact.artifact_kind))
    return {"name": named.text, "architecture": facts.get("architecture"), "width": width,
            "sha256": artifact.seal, "trained": how, "imgsz": artifact.input.height}  # fmt: skip


def tell_teacher(
    context: Context,
    identity: dict[str, Any],
    asked: Sequence[int],
    layers: Sequence[dict[str, Any]] | None,
) -> None:
    """Say who teaches, and where the student follows the teacher instead of its recipe.

    Args:
        context: The run.
        identity: See :func:`teacher_identity`.
        asked: Widths of the projector in the recipe.
        layers: Those that were built; see :func:`edgessl.stages.projectors.projector_layers`.
    """
    net = f"teacher: {identity['name']}, {identity['architecture']} {identity['width']}"
    context.reporter.say(f"{net}, {identity['trained'] or 'random weights'}")
    if alarm := _last_alarm(context.recipe):
        context.reporter.warn(
            f"the pretraining of the teacher {identity['name']} ended with an alarm: {alarm}"
        )
    theirs, ours = identity.get("imgsz"), context.spec.height
    if theirs not in (None, ours):
        context.reporter.say(f"the teacher was trained on {theirs} px and sees {ours} px")
    dimensions = layers[-1].get("outputs") if layers else None
    if asked and dimensions not in (None, asked[-1]):
        context.reporter.say(
            f"the projector ends in {dimensions} dimensions, as the teacher's codes do, not in the "
            f"{asked[-1]} of pretrain.options.projector"
        )


def _last_alarm(recipe: Recipe) -> str | None:
    """Return what the last look at the teacher's own pretraining found wrong."""
    named = named_teacher(recipe)
    if named is None or named.folder is None:
        return None
    looks = files.read_jsonl(named.folder / "monitor.jsonl")
    # nothing seals this log, so a line may be any JSON value
    return looks[-1].get("alarm") if looks and isinstance(looks[-1], dict) else None


def teacher_of_stage(context: Context, folder: Path) -> dict[str, Any] | None:
    """Return :func:`teacher_identity`, or what a finished pretraining says when it is gone.

    Args:
        context: The run.
        folder: Of the pretraining.

    Raises:
        FileInvalid: The teacher is not the one that the finished pretraining learned from.
        RecipeInvalid: As :func:`named_teacher`.
    """
    marker = folder / STAGE_FILE
    known = None
    if marker.is_file():
        known = files.read_json(marker, "stage")["identity"].get("teacher")
    try:
        now = teacher_identity(context.recipe)
    except (FileInvalid, RecipeInvalid):
        if known is not None and known["name"] == context.recipe.pretrain.teacher:
            return known
        raise
    if known is not None and now != known:
        raise FileInvalid(
            f"{folder} learned from another teacher than {known['name']} is now "
            f"({_told(known)}; now {_told(now)})",
            hint="bring the teacher back, or choose another --out",
        )
    return now


def _told(identity: dict[str, Any] | None) -> str:
    if identity is None:
        return "none"
    sha256 = identity["sha256"]
    return f"{identity['architecture']} {identity['width']}" + (
        f", {sha256[:12]}" if sha256 else ""
    )


def _hash(path: Path) -> str:
    if not path.is_file():
        raise FileInvalid(f"no such file: {path}", hint="pretrain.teacher: ARCH=FILE")
    return files.sha256_file(path)


def load_teacher(recipe: Recipe) -> Teacher | None:
    """Return the teacher of the recipe's method, in eval mode; None for one that does without.

    Raises:
        RecipeInvalid, FileInvalid: As :func:`named_teacher`; or it cannot take the
            images of this recipe, or its files are altered or do not fit.
    """
    named = named_teacher(recipe)
    if named is None:
        return None
    if named.folder is None:
        network, projector = _stock(recipe, named), None
    else:
        network, projector = _own(recipe, named.folder)
    network = network.eval().to(memory_format=torch.channels_last)
    return Teacher(network, _features(network, recipe, named), projector, named.text)


def _stock(recipe: Recipe, named: Named) -> nn.Module:
    architecture: Architecture = ENCODERS.load(named.encoder)
    if named.weights is not None:  # they are those of the stock stem
        network = architecture.network(named.width, classes=None)
        fill(network, stock_weights(architecture, named.weights))
        return network
    # another seed: a teacher of the same architecture would begin as its student
    return architecture.network(
        named.width, classes=None, stem=recipe.encoder.stem, seed=recipe.seed + 1
    )


def _own(recipe: Recipe, folder: Path) -> tuple[nn.Module, nn.Module | None]:
    """Return the net of an artifact without its head, and the projector of its pretraining."""
    artifact = Artifact.load(folder)
    _check_input(recipe, folder, artifact.input)
    if artifact.facts.get("form") == "plain":
        network, _ = load_model(folder)
        head = ENCODERS.load(artifact.facts["architecture"]).head
        parent, _, leaf = head.rpartition(".")
        setattr(network.get_submodule(parent), leaf, nn.Identity())
        return network, None
    host = load_host(folder)
    if (tuned := artifact.facts.get("tuned")) is not None:
        return host.plain(tuned, head=False), None
    features = host.architecture.feature_size(host.spec.host_width)
    return host.sliced.host, read_projector(folder, artifact, features)


def _check_input(recipe: Recipe, folder: Path, theirs: InputSpec) -> None:
    ours = InputSpec.square(recipe.data.imgsz)
    if (theirs.mean, theirs.std) != (ours.mean, ours.std):
        raise RecipeInvalid(
            f"the teacher in {folder} takes images normalised with mean {theirs.mean} and std "
            f"{theirs.std}, and these are with {ours.mean} and {ours.std}",
            hint="a teacher sees the same images as its student",
        )


@torch.no_grad()
def _features(network: nn.Module, recipe: Recipe, named: Named) -> int:
    """Return how many features come out for images of the recipe's size."""
    side = recipe.data.imgsz
    try:
        shape = network(torch.zeros(1, 3, side, side)).shape
    except (RuntimeError, ValueError, AssertionError) as error:  # asserted by nets of timm
        raise RecipeInvalid(
            f"the teacher {named.text} cannot take images of {side} px: {error}",
            hint="larger images (--imgsz), or a teacher that was pretrained at this size",
        ) from None
    if len(shape) != 2:
        raise RecipeInvalid(f"the teacher {named.text} gives {tuple(shape)}, not pooled features")
    return int(shape[1])

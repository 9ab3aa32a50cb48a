"""Fine-tuning a slim net on few labels, beside its rivals: from scratch, from ImageNet weights.

All variants get the same search: every learning rate of the recipe on the first draw, the best
on validation for all draws. The model of the first draw is what is shipped.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from edgessl.core.artifact import Artifact
from edgessl.core.errors import UsageProblem
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import write_tensors
from edgessl.evaluation.finetune import with_head
from edgessl.evaluation.outputs import outputs
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.stages.context import Context, clear
from edgessl.stages.evaluate import describe, stock_start
from edgessl.stages.networks import (
    HEAD,
    Host,
    host_facts,
    load_host,
    net_spec,
    told_of,
    upbringing,
    variant_of,
    weights_identity,
)  # fmt: skip
from edgessl.stages.rounds import Rounds, budgets
from edgessl.stages.rows import write_predictions
from edgessl.stages.seen import check_unseen, write_seen
from edgessl.stages.study import Start, Study


def run_finetune(context: Context, checkpoints: Sequence[Path], label: str) -> Path:
    """Run the recipe's ``finetune`` section for one width and return its folder.

    Args:
        context: The run.
        checkpoints: Folders of pretraining checkpoints of one encoder; empty trains the rivals
            only.
        label: Name of the slim net, for example ``1x``.

    Returns:
        See :func:`finetune_folder`: a ``model`` artifact, the host with the tuned slice and its
        head.

    Raises:
        DataInvalid: Too few labels, or a checkpoint was pretrained on validation or test
            images.
        Diverged: Every learning rate of a variant diverged.
        UsageProblem: Nothing to train: no checkpoint, and the rivals are switched off.
    """
    recipe, folder = context.recipe, finetune_folder(context, label)
    hosts = [load_host(checkpoint) for checkpoint in checkpoints]
    spec = hosts[0].spec if hosts else net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    for checkpoint, host in zip(checkpoints, hosts, strict=True):
        if "tuned" in host.artifact.facts:
            raise UsageProblem(
                f"{checkpoint} is fine-tuned already",
                hint="give the pretraining checkpoint that it came from",
            )
        check_unseen(context, checkpoint)
    made = budgets(context, curve=recipe.finetune.curve)
    identity = {
        "finetune": recipe.finetune.model_dump(mode="json", exclude={"widths"}),
        "labels": recipe.labels.model_dump(mode="json"),
        "encoder": asdict(spec) | {"slim_widths": list(spec.slim_widths)},
        "width": label,
        "seed": recipe.seed,
        "checkpoints": [host.artifact.seal for host in hosts],
        "weights": weights_identity(recipe),
        "data": [made[0].train.data_sha256, made[0].test.data_sha256],
    }

    def work() -> Path:
        starts = _starts(context, architecture, spec, hosts, label)
        study = Study(context, folder, identity, label, made)
        shipped, weights = study.run([start for start, _ in starts])
        host = next((h for start, h in starts if start is shipped), None)
        _write(context, spec, host, weights, shipped.variant, label, made[0])
        clear(folder / "training")
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    context.stage(f"finetune {label}", folder, identity, work, load)
    for row in context.ledger.find(stage="finetune", width=label, draw=None):
        context.reporter.say(describe(row))
    return folder


def finetune_folder(context: Context, label: str) -> Path:
    """Return the folder of a fine-tuned width: ``finetune``, with several widths below it."""
    several = len(context.recipe.widths) > 2
    return context.folder("finetune", label) if several else context.folder("finetune")


def _starts(
    context: Context,
    architecture: Architecture,
    spec: NetSpec,
    hosts: Sequence[Host],
    label: str,
) -> list[tuple[Start, Host | None]]:
    """Return the variants, rivals first, each with the host that its weights come from."""
    recipe = context.recipe

    def headed(network: nn.Module, draw: int) -> nn.Module:
        return _headed(context, architecture, network, draw)

    def scratch(draw: int) -> nn.Module:
        plain = architecture.network(
            spec.width(label), classes=None, stem=spec.stem, seed=recipe.seed + draw
        )
        return headed(plain, draw)

    stock = stock_start(context, label)

    def imagenet(draw: int) -> nn.Module:
        assert stock is not None
        return headed(copy.deepcopy(stock), draw)

    def pretrained(host: Host) -> Start:
        def network(draw: int) -> nn.Module:
            return headed(host.plain(label, head=False), draw)

        return Start(variant_of(host), network, pretrained=True, told=told_of(host))

    starts: list[tuple[Start, Host | None]] = []
    if recipe.finetune.scratch or not hosts:
        starts.append((Start("scratch", scratch, pretrained=False), None))
    if stock is not None:
        starts.append((Start("imagenet", imagenet, pretrained=False), None))
    starts += [(pretrained(host), host) for host in hosts]
    names = [start.variant for start, _ in starts]
    if len(set(names)) != len(names):
        raise UsageProblem(
            f"two checkpoints are called {', '.join(names)}",
            hint="give one of each: they could not be told apart in the ledger",
        )
    return starts


def _headed(
    context: Context, architecture: Architecture, network: nn.Module, draw: int
) -> nn.Module:
    features = outputs(network, context.images.proof.images[:1], context.spec).shape[1]
    classes = len(context.class_names)
    with_head(network, architecture.head, features, classes, seed=context.recipe.seed + draw)
    return network


def _write(
    context: Context, spec: NetSpec, host: Host | None, shipped: dict[str, Tensor], variant: str,
    label: str, rounds: Rounds,
) -> None:  # fmt: skip
    """Put the tuned slice back into its host and seal it with its head; record its answers."""
    folder, recipe = finetune_folder(context, label), context.recipe
    architecture = ENCODERS.load(spec.architecture)
    sliced = host.sliced if host else build_sliced(architecture, spec, seed=recipe.seed)
    parents = (host.artifact.seal,) if host else ()
    sliced.write_back(label, shipped)
    head = {
        f"{HEAD}.{label}.{part}": shipped[f"{architecture.head}.{part}"]
        for part in ("weight", "bias")
    }
    write_tensors(folder / "model.safetensors", {**sliced.state_dict(), **head})
    facts = write_seen(folder, _seen(host, rounds))
    facts |= upbringing(host.artifact.facts) if host else {}
    facts |= host_facts(architecture, spec, sliced) | {
        "variant": variant,
        "tuned": label,
        "draw": None if rounds.folds else 0,
        "labels_per_class": rounds.per_class,
        "trained_on": "all labels" if rounds.folds else "the first draw of labels",
        "seed": recipe.seed,
    }
    artifact = Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=context.spec, labels=context.class_names, parents=parents, facts=facts,
    )  # fmt: skip
    if rounds.folds:
        return  # no image is left that the shipped model has not seen
    test = rounds.test
    logits = outputs(load_host(folder).plain(label), test.images, context.spec)
    write_predictions(folder / "predictions.csv", test.sha256, test.labels, logits)
    row = context.ledger.find(id=f"finetune/{label}/{variant}/{rounds.budget}/draw0")[0]
    context.ledger.put([row.model_copy(update={"artifact_sha256": artifact.seal})])


def _seen(host: Host | None, rounds: Rounds) -> list[str]:
    """Return the images that the shipped model has learned from, choices included."""
    part = rounds.rounds[0]
    seen = list(host.seen) if host else []
    if rounds.folds:
        seen += rounds.train.source_sha256
    else:
        seen += [rounds.train.source_sha256[i] for i in part.train]
        seen += [rounds.validation.source_sha256[i] for i in part.validation]
    return list(dict.fromkeys(seen))

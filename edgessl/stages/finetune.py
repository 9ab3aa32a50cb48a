"""Fine-tuning the slim net on few labels, and the same net from scratch, over label draws.

Both variants get the same search: every learning rate of the recipe on the first draw, the best
on validation for all draws. The model of the first draw is what is shipped.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from edgessl.core.artifact import Artifact
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import write_tensors
from edgessl.evaluation.finetune import with_head
from edgessl.evaluation.outputs import outputs
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.slimming.sliced import Sliced
from edgessl.stages.context import Context, clear
from edgessl.stages.evaluate import describe
from edgessl.stages.networks import HEAD, Host, host_facts, load_host, net_spec
from edgessl.stages.pretrain import check_unseen
from edgessl.stages.rows import write_predictions
from edgessl.stages.study import Start, Study


def run_finetune(context: Context, checkpoint: Path | None) -> Path:
    """Run the recipe's ``finetune`` section and return its folder (a ``model`` artifact).

    Args:
        context: The run.
        checkpoint: Folder of a pretraining checkpoint; None trains from scratch only.

    Raises:
        DataInvalid: Too few labels, or the checkpoint was pretrained on validation or test
            images.
        Diverged: Every learning rate of a variant diverged.
    """
    recipe, folder = context.recipe, context.folder("finetune")
    host = load_host(checkpoint) if checkpoint else None
    spec = host.spec if host else net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    if checkpoint:
        check_unseen(context, checkpoint)
    identity = {
        "finetune": recipe.finetune.model_dump(mode="json"),
        "labels": recipe.labels.model_dump(mode="json"),
        "encoder": asdict(spec),
        "seed": recipe.seed,
        "checkpoint": host.artifact.seal if host else None,
        "data": [context.splits.train.data_sha256, context.splits.test.data_sha256],
    }

    def work() -> Path:
        sliced = host.sliced if host else build_sliced(architecture, spec, seed=recipe.seed)
        starts = [_scratch(context, architecture, spec)]
        if host:
            starts.append(_pretrained(context, architecture, host))
            if not recipe.finetune.scratch:
                del starts[0]
        shipped = Study(context, folder, identity, spec.label).run(starts)
        parents = (host.artifact.seal,) if host else ()
        _write(context, architecture, spec, sliced, shipped, starts[-1].variant, parents)
        clear(folder / "training")
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    context.stage("finetune", folder, identity, work, load)
    for row in context.ledger.find(stage="finetune", draw=None):
        context.reporter.say(f"  {row.variant:<10} {row.metric:<12} {describe(row)}")
    return folder


def _pretrained(context: Context, architecture: Architecture, host: Host) -> Start:
    host.head.clear()
    variant = str(host.artifact.facts.get("method", "checkpoint"))
    return Start(variant, lambda draw: _headed(context, architecture, host.plain(), draw))


def _scratch(context: Context, architecture: Architecture, spec: NetSpec) -> Start:
    def network(draw: int) -> nn.Module:
        plain = architecture.network(
            spec.slim_width, classes=None, stem=spec.stem, seed=context.recipe.seed + draw
        )
        return _headed(context, architecture, plain, draw)

    return Start("scratch", network)


def _headed(
    context: Context, architecture: Architecture, network: nn.Module, draw: int
) -> nn.Module:
    features = outputs(network, context.splits.train.images[:1], context.spec).shape[1]
    classes = len(context.splits.class_names)
    with_head(network, architecture.head, features, classes, seed=context.recipe.seed + draw)
    return network


def _write(
    context: Context, architecture: Architecture, spec: NetSpec, sliced: Sliced,
    shipped: dict[str, Tensor], variant: str, parents: tuple[str, ...],
) -> None:  # fmt: skip
    """Put the tuned slice back into the host and seal it with its head; record its answers."""
    folder, splits = context.folder("finetune"), context.splits
    sliced.write_back(shipped)
    head = {
        f"{HEAD}.{spec.label}.{part}": shipped[f"{architecture.head}.{part}"]
        for part in ("weight", "bias")
    }
    write_tensors(folder / "model.safetensors", {**sliced.state_dict(), **head})
    recipe = context.recipe
    facts = host_facts(architecture, spec, sliced) | {
        "variant": variant,
        "draw": 0,
        "labels_per_class": recipe.labels.per_class,
        "seed": recipe.seed,
    }
    artifact = Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=context.spec, labels=splits.class_names, parents=parents, facts=facts,
    )  # fmt: skip
    network = load_host(folder).plain()
    logits = outputs(network, splits.test.images, context.spec)
    write_predictions(folder / "predictions.csv", splits.test.sha256, splits.test.labels, logits)
    budget = recipe.labels.per_class or "all"
    row = context.ledger.find(id=f"finetune/{variant}/{budget}/draw0")[0]
    context.ledger.put([row.model_copy(update={"artifact_sha256": artifact.seal})])

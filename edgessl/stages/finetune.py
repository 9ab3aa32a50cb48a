"""Fine-tuning the slim net on few labels, and the same net from scratch, over label draws.

Both variants get the same search: every learning rate of the recipe on the first draw, the best
on validation for all draws. The model of the first draw is what is shipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.ledger import LedgerRow
from edgessl.data.view_specs import ViewSpec
from edgessl.data.views import Views
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import write_tensors
from edgessl.evaluation.answers import outputs
from edgessl.evaluation.finetune import best_of, finetune, with_head
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.slimming.sliced import Sliced
from edgessl.stages.context import Context
from edgessl.stages.evaluate import describe, label_draws
from edgessl.stages.networks import HEAD, host_facts, load_host, net_spec
from edgessl.stages.rows import accuracy_row, summary_row, write_predictions
from edgessl.training.loop import Plan, fit_to_budget

MakeNetwork = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts: a variant name and a fresh network with a head per draw."""

    variant: str
    network: MakeNetwork


def run_finetune(context: Context, checkpoint: Path | None) -> Path:
    """Run the recipe's ``finetune`` section and return its folder (a ``model`` artifact).

    Args:
        context: The run.
        checkpoint: Folder of a pretraining checkpoint; None trains from scratch only.
    """
    recipe, folder = context.recipe, context.folder("finetune")
    host = load_host(checkpoint) if checkpoint else None
    spec = host.spec if host else net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
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
            host.head.clear()
            variant = str(host.artifact.facts.get("method", "checkpoint"))
            plain = host.plain
            starts.append(
                Start(variant, lambda draw: _headed(context, architecture, plain(), draw))
            )
            if not recipe.finetune.scratch:
                del starts[0]
        shipped = _Study(context, folder, identity, spec).run(starts)
        parents = (host.artifact.seal,) if host else ()
        _write(context, architecture, spec, sliced, shipped, starts[-1].variant, parents)
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    context.stage("finetune", folder, identity, work, load)
    for row in context.ledger.find(stage="finetune", draw=None):
        context.reporter.say(f"  {row.variant:<10} {row.metric:<12} {describe(row)}")
    return folder


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


class _Study:
    """All trainings of the stage; each finished one is a line of ``draws.jsonl``."""

    def __init__(
        self, context: Context, folder: Path, identity: dict[str, Any], spec: NetSpec
    ) -> None:
        self.context, self.folder, self.width = context, folder, spec.label
        self.log = folder / "draws.jsonl"
        done = files.read_jsonl(self.log)
        if not done or done[0].get("identity") != identity:
            self.log.unlink(missing_ok=True)
            files.append_jsonl(self.log, done := [{"identity": identity}])
        self.done = done
        self.draws = label_draws(context.recipe, context.splits.train.labels)

    def run(self, starts: list[Start]) -> dict[str, Tensor]:
        """Train every variant on every draw; return the weights of the last one's first draw."""
        plan = self._plan(starts[0])
        rates = self.context.recipe.finetune.learning_rates
        rows: dict[str, list[LedgerRow]] = {}
        shipped: dict[str, Tensor] = {}
        for start in starts:
            ship = start is starts[-1]
            tried = [self._train(start, replace(plan, learning_rate=r), 0, ship) for r in rates]
            best = best_of([result["validation"] for result, _ in tried])
            chosen = replace(plan, learning_rate=rates[best])
            results = [tried[best][0]]
            results += [self._train(start, chosen, draw, False)[0] for draw, _ in self.draws[1:]]
            if ship:
                shipped = tried[best][1] or self._weights(start, chosen)
                curve = self._training(start, chosen, 0) / "metrics.jsonl"
                files.write_bytes(self.folder / "metrics.jsonl", curve.read_bytes())
            rows[start.variant] = [self._row(start.variant, chosen, r) for r in results]
            self._summarise(start.variant, rows)
        return shipped

    def _plan(self, start: Start) -> Plan:
        """Fit the epochs to the stage's budget once; all trainings share them."""
        section, splits = self.context.recipe.finetune, self.context.splits
        saved = next((line["plan"] for line in self.done if "plan" in line), None)
        if saved is not None:
            return Plan(**saved)
        plan = Plan(
            items=len(self.draws[0][1]), batch=section.batch, epochs=section.epochs,
            learning_rate=section.learning_rates[0], optimizer=section.optimizer,
            weight_decay=section.weight_decay, warmup=0.05, drop_last=False,
            seed=self.context.recipe.seed,
        )  # fmt: skip
        if section.max_seconds is not None:
            runs = (1 + section.scratch) * (len(section.learning_rates) + len(self.draws) - 1)
            views, network = self._views(), start.network(0)
            data = splits.train.labelled.subset(self.draws[0][1])
            images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)

            def loss(
                module: nn.Module, indices: NDArray[np.int64], epoch: int
            ) -> dict[str, Tensor]:
                (x,) = views(images[torch.from_numpy(indices)], indices, epoch)
                return {
                    "total": nn.functional.cross_entropy(
                        module(x), labels[torch.from_numpy(indices)]
                    )
                }

            network.train()
            wanted = plan.epochs
            plan, _ = fit_to_budget(plan, network, loss, section.max_seconds / runs)
            if plan.epochs < wanted:
                self.context.reporter.warn(
                    f"finetune: {plan.epochs} instead of {wanted} epochs, to stay within "
                    f"{section.max_seconds:.0f} s for {runs} trainings"
                )
        files.append_jsonl(self.log, [{"plan": asdict(plan)}])
        return plan

    def _views(self) -> Views:
        section, spec = self.context.recipe.finetune, self.context.spec
        view = ViewSpec(
            size=spec.height, crop_scale=section.crop_scale, interpolation="bilinear",
            flip=section.flip,
        )  # fmt: skip
        return Views((view,), spec.mean, spec.std, self.context.recipe.seed)

    def _train(
        self, start: Start, plan: Plan, draw: int, keep: bool
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Train once, or return the finished line (then without weights)."""
        key = {"variant": start.variant, "lr": plan.learning_rate, "draw": draw}
        for line in self.done:
            if all(line.get(k) == v for k, v in key.items()):
                return line, {}
        began = time.monotonic()
        network = self._fitted(start, plan, draw)
        splits, spec = self.context.splits, self.context.spec
        validation = outputs(network, splits.validation.images, spec).argmax(1)
        test = outputs(network, splits.test.images, spec).argmax(1)
        line = key | {
            "validation": float((validation == splits.validation.labels).mean()),
            "correct": "".join("01"[int(c)] for c in test == splits.test.labels),
            "seconds": round(time.monotonic() - began, 3),
        }
        files.append_jsonl(self.log, [line])
        self.done.append(line)
        return line, dict(network.state_dict()) if keep else {}

    def _fitted(self, start: Start, plan: Plan, draw: int) -> nn.Module:
        data = self.context.splits.train.labelled.subset(self.draws[draw][1])
        label = f"finetune {start.variant}, draw {draw}, lr {plan.learning_rate:g}"
        return finetune(
            start.network(draw), data, self._views(), replace(plan, items=len(data.labels)),
            reporter=self.context.reporter, label=label,
            folder=self._training(start, plan, draw),
        )  # fmt: skip

    def _training(self, start: Start, plan: Plan, draw: int) -> Path:
        name = f"{start.variant}-draw{draw}-lr{plan.learning_rate:g}"
        return self.folder / "training" / name

    def _weights(self, start: Start, plan: Plan) -> dict[str, Tensor]:
        """Repeat the first draw of a resumed run whose weights were not kept."""
        return dict(self._fitted(start, plan, 0).state_dict())

    def _row(self, variant: str, plan: Plan, line: dict[str, Any]) -> LedgerRow:
        recipe, splits = self.context.recipe, self.context.splits
        budget = recipe.labels.per_class or "all"
        return accuracy_row(
            np.array([c == "1" for c in line["correct"]]),
            id=f"finetune/{variant}/{budget}/draw{line['draw']}", stage="finetune",
            variant=variant, width=self.width, target="pytorch", split="test",
            data_sha256=splits.test.data_sha256, labels_per_class=recipe.labels.per_class,
            seed=recipe.seed, draw=line["draw"], metric="top1", seconds=line["seconds"],
            note=f"{plan.epochs} epochs, learning rate {plan.learning_rate:g} chosen on validation",
        )  # fmt: skip

    def _summarise(self, variant: str, rows: dict[str, list[LedgerRow]]) -> None:
        scratch = rows.get("scratch") if variant != "scratch" else None
        budget = self.context.recipe.labels.per_class or "all"
        summary = summary_row(
            rows[variant], parent=scratch, id=f"finetune/{variant}/{budget}",
            note="delta: paired with scratch on the same label draws" if scratch else None,
        )  # fmt: skip
        self.context.ledger.put([*rows[variant], summary])


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

"""All trainings of a fine-tuning stage: every variant, every budget and round, equal search.

Each finished training is a line of ``draws.jsonl``, so that a stopped stage goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.errors import Diverged
from edgessl.data.labelled import Labelled
from edgessl.data.view_specs import ViewSpec
from edgessl.data.views import Views
from edgessl.evaluation.finetune import Lessons, best_of, classification_loss, finetune
from edgessl.evaluation.outputs import outputs
from edgessl.stages.context import Context, clear
from edgessl.stages.rounds import Round, Rounds, trainings_of
from edgessl.stages.study_rows import Found, study_rows
from edgessl.training import checkpoints
from edgessl.training.budget import fit_to_budget
from edgessl.training.plan import Plan

MakeNetwork = Callable[[int], nn.Module]
Weights = dict[str, Tensor]
DIVERGED = -1.0  # validation accuracy of a training whose loss was not finite
SHIPPED = "shipped"  # stands for the round number when all labels are trained on


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts: a variant name and a fresh network with a head per round.

    ``pretrained`` tells own pretraining from the rivals (scratch, ImageNet).
    """

    variant: str
    network: MakeNetwork
    pretrained: bool
    told: str = ""  # what a reader of its figures must know


class Study:
    """The trainings of one stage.

    Args:
        context: The run.
        folder: Stage folder; lines of another ``identity`` in it are forgotten.
        identity: Everything that the trainings depend on.
        width: Name of the slim net, for the ledger.
        budgets: Rounds at every number of labels; the first one's model is shipped.
    """

    def __init__(
        self,
        context: Context,
        folder: Path,
        identity: dict[str, Any],
        width: str,
        budgets: Sequence[Rounds],
    ) -> None:
        self.context, self.folder, self.identity, self.width = context, folder, identity, width
        self.budgets = budgets
        self.log = folder / "draws.jsonl"
        done = files.read_jsonl(self.log)
        if not done or done[0].get("identity") != identity:
            clear(folder / "training")
            self.log.unlink(missing_ok=True)
            files.append_jsonl(self.log, done := [{"identity": identity}])
        self.done = done

    def run(self, starts: Sequence[Start]) -> tuple[Start, Weights]:
        """Train every variant on every round and put the rows of the stage into the ledger.

        Returns:
            The start that is shipped, and the weights trained from it: those of the first
            round, in folds those of a training on all labels.

        Raises:
            Diverged: Every learning rate of a variant diverged, or the chosen one on a round.
        """
        found: list[Found] = []
        kept: dict[str, Weights] = {}
        for rounds in self.budgets:
            plan = self._plan(starts, rounds)
            found += [self._search(start, rounds, plan, kept) for start in starts]
        self.context.ledger.replace(
            "finetune", study_rows(self.context, self.width, found), self.width
        )
        return self._ship(starts, found, kept)

    def _search(self, start: Start, rounds: Rounds, plan: Plan, kept: dict[str, Weights]) -> Found:
        """Choose the learning rate on the first round, then train on the others with it.

        In folds it is chosen in every fold on its own validation images: those of one fold are
        tested in another.
        """
        rates = self.context.recipe.finetune.learning_rates
        if rounds.folds:
            return self._search_folds(
                start, rounds, [replace(plan, learning_rate=r) for r in rates]
            )
        main = rounds is self.budgets[0]
        tried = [
            self._train(start, rounds, replace(plan, learning_rate=rate), rounds.rounds[0])
            for rate in rates
        ]
        best = best_of([line["validation"] for line, _ in tried])
        chosen = replace(plan, learning_rate=rates[best])
        if main and tried[best][1]:
            kept[start.variant] = tried[best][1]
        lines = [tried[best][0]]
        lines += [self._train(start, rounds, chosen, part)[0] for part in rounds.rounds[1:]]
        return Found(start.variant, rounds, chosen, tuple(map(_converged, lines)), start.told)

    def _search_folds(self, start: Start, rounds: Rounds, plans: Sequence[Plan]) -> Found:
        lines: list[dict[str, Any]] = []
        chosen: list[Plan] = []
        for part in rounds.rounds:
            tried = [self._train(start, rounds, plan, part)[0] for plan in plans]
            best = best_of([line["validation"] for line in tried])
            lines.append(_converged(tried[best]))
            chosen.append(plans[best])
        # the model of all labels is trained at the rate that most folds chose
        usual = max(plans, key=chosen.count)
        return Found(start.variant, rounds, usual, tuple(lines), start.told)

    def _ship(
        self, starts: Sequence[Start], found: Sequence[Found], kept: dict[str, Weights]
    ) -> tuple[Start, Weights]:
        """Choose the variant by its mean validation accuracy; train it again where need be."""
        rounds = self.budgets[0]
        wanted = [s for s in starts if s.pretrained] or list(starts)
        if self.context.recipe.finetune.ship == "best":
            wanted = list(starts)
        results = {f.variant: f for f in found if f.rounds is rounds}
        means = [
            float(np.mean([line["validation"] for line in results[s.variant].lines]))
            for s in wanted
        ]
        start = wanted[best_of(means)]
        plan = results[start.variant].plan
        if len(wanted) > 1:
            listed = ", ".join(
                f"{s.variant} {100 * m:.1f} %" for s, m in zip(wanted, means, strict=True)
            )
            self.context.reporter.say(f"finetune: ships {start.variant} (validation: {listed})")
        part, weights = rounds.rounds[0], kept.get(start.variant)
        folder = self._training(start, rounds, plan, part.draw)
        if rounds.folds:
            everything = np.arange(len(rounds.train.labels))
            part = Round(-1, everything, part.validation, part.test)
            folder = self._training(start, rounds, plan, SHIPPED)
        if weights is None:  # a resumed run, whose weights were not kept
            weights = dict(self._fitted(start, rounds, plan, part, folder).state_dict())
        files.write_bytes(self.folder / "metrics.jsonl", (folder / "metrics.jsonl").read_bytes())
        return start, weights

    def _plan(self, starts: Sequence[Start], rounds: Rounds) -> Plan:
        """Fit the epochs to the stage's budget once; all trainings on these rounds share them."""
        section = self.context.recipe.finetune
        for line in self.done:
            if "plan" in line and line.get("budget") == rounds.budget:
                return Plan.from_dict(line["plan"])
        data = self._data(rounds, rounds.rounds[0])
        plan = Plan(
            items=len(data.labels), batch=section.batch, epochs=section.epochs,
            learning_rate=section.learning_rates[0], optimizer=section.optimizer,
            weight_decay=section.weight_decay, warmup=0.05, drop_last=False,
            seed=self.context.recipe.seed,
        )  # fmt: skip
        if section.max_seconds is not None:
            recipe = self.context.recipe
            trainings = len(starts) * sum(
                trainings_of(recipe, len(r.rounds), r.folds) for r in self.budgets
            )
            available = section.max_seconds / len(self.context.recipe.slim_labels) / trainings
            network = starts[0].network(0).train().to(memory_format=torch.channels_last)
            loss = classification_loss(self._lessons(data), torch.device("cpu"))
            plan, _ = fit_to_budget(plan, network, loss, available)
            if plan.epochs < section.epochs:
                self.context.reporter.warn(
                    f"finetune {self.width}: {plan.epochs} instead of {section.epochs} epochs, to "
                    f"stay within {available:.1f} s for each of {trainings} trainings"
                )
        files.append_jsonl(self.log, [{"plan": asdict(plan), "budget": rounds.budget}])
        return plan

    def _lessons(self, data: Labelled) -> Lessons:
        section, spec = self.context.recipe.finetune, self.context.spec
        view = ViewSpec(
            size=spec.height, crop_scale=section.crop_scale, interpolation="bilinear",
            flip=section.flip,
        )  # fmt: skip
        views = Views((view,), spec.mean, spec.std, self.context.recipe.seed)
        return Lessons(data, views, section.balanced)

    def _data(self, rounds: Rounds, part: Round) -> Labelled:
        return rounds.train.labelled.subset(part.train)

    def _train(
        self, start: Start, rounds: Rounds, plan: Plan, part: Round
    ) -> tuple[dict[str, Any], Weights]:
        """Train once, or return the finished line (then without weights)."""
        key = {
            "variant": start.variant, "budget": rounds.budget, "lr": plan.learning_rate,
            "draw": part.draw,
        }  # fmt: skip
        for line in self.done:
            if all(line.get(k) == v for k, v in key.items()):
                return line, {}
        began, weights = time.monotonic(), {}
        folder = self._training(start, rounds, plan, part.draw)
        try:
            network = self._fitted(start, rounds, plan, part, folder)
            chosen = self._correct(network, rounds.validation.labelled.subset(part.validation))
            measured = self._correct(network, rounds.test.labelled.subset(part.test))
        except Diverged as error:  # a rate that diverges has lost the search, no more
            self.context.reporter.warn(error.message)
            line = key | {"validation": DIVERGED, "correct": "", "problem": error.message}
        else:
            line = key | {
                "validation": float(chosen.mean()),
                "correct": "".join("01"[int(c)] for c in measured),
            }
            if rounds is self.budgets[0] and part is rounds.rounds[0] and not rounds.folds:
                weights = dict(network.state_dict())
        line["seconds"] = round(time.monotonic() - began, 3)
        files.append_jsonl(self.log, [line])
        checkpoints.discard(folder / "last")
        self.done.append(line)
        return line, weights

    def _fitted(
        self, start: Start, rounds: Rounds, plan: Plan, part: Round, folder: Path
    ) -> nn.Module:
        data = self._data(rounds, part)
        which = f"draw {part.draw}" if part.draw >= 0 else "all labels"
        label = f"finetune {self.width} {start.variant}, {which}, lr {plan.learning_rate:g}"
        return finetune(
            start.network(max(0, part.draw)), self._lessons(data),
            replace(plan, items=len(data.labels)),
            reporter=self.context.reporter, label=label, folder=folder,
            identity={
                "stage": self.identity, "draw": part.draw, "variant": start.variant,
                "budget": rounds.budget,
            },
        )  # fmt: skip

    def _correct(self, network: nn.Module, data: Labelled) -> NDArray[np.bool_]:
        logits = outputs(network, data.images, self.context.spec)
        if not np.isfinite(logits).all():
            raise Diverged("finetune: the trained network gives no finite outputs")
        return logits.argmax(1) == data.labels

    def _training(self, start: Start, rounds: Rounds, plan: Plan, draw: int | str) -> Path:
        name = f"{start.variant}-{rounds.budget}-draw{draw}-lr{plan.learning_rate:g}"
        return self.folder / "training" / name


def _converged(line: dict[str, Any]) -> dict[str, Any]:
    if line["validation"] == DIVERGED:
        raise Diverged(line["problem"], hint="give lower finetune.learning_rates")
    return line

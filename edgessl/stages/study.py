"""All trainings of a fine-tuning stage: every variant, every label draw, equal search.

Each finished training is a line of ``draws.jsonl``, so that a stopped stage goes on where it was.
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
from edgessl.core.errors import Diverged
from edgessl.core.ledger import LedgerRow
from edgessl.data.view_specs import ViewSpec
from edgessl.data.views import Views
from edgessl.evaluation.finetune import best_of, classification_loss, finetune
from edgessl.evaluation.outputs import outputs
from edgessl.stages.context import Context, clear
from edgessl.stages.evaluate import label_draws
from edgessl.stages.rows import accuracy_row, summary_row
from edgessl.training import checkpoints
from edgessl.training.loop import Plan, fit_to_budget

MakeNetwork = Callable[[int], nn.Module]
Rows = list[LedgerRow]
Lines = list[dict[str, Any]]
DIVERGED = -1.0  # validation accuracy of a training whose loss was not finite


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts: a variant name and a fresh network with a head per draw."""

    variant: str
    network: MakeNetwork


class Study:
    """The trainings of one stage.

    Args:
        context: The run.
        folder: Stage folder; lines of another ``identity`` in it are forgotten.
        identity: Everything that the trainings depend on.
        width: Label of the slim width, for the ledger.
    """

    def __init__(
        self, context: Context, folder: Path, identity: dict[str, Any], width: str
    ) -> None:
        self.context, self.folder, self.identity, self.width = context, folder, identity, width
        self.log = folder / "draws.jsonl"
        done = files.read_jsonl(self.log)
        if not done or done[0].get("identity") != identity:
            clear(folder / "training")
            self.log.unlink(missing_ok=True)
            files.append_jsonl(self.log, done := [{"identity": identity}])
        self.done = done
        self.draws = label_draws(context)

    def run(self, starts: list[Start]) -> dict[str, Tensor]:
        """Train every variant on every draw and put the rows of the stage into the ledger.

        Returns:
            Weights of the last variant's first draw, at its best learning rate.

        Raises:
            Diverged: Every learning rate of a variant diverged, or the chosen one on a draw.
        """
        plan = self._plan(starts)
        rates = self.context.recipe.finetune.learning_rates
        rows: Rows = []
        scratch: tuple[Rows, Lines] | None = None
        shipped: dict[str, Tensor] = {}
        for start in starts:
            ship = start is starts[-1]
            tried = [self._train(start, replace(plan, learning_rate=r), 0, ship) for r in rates]
            best = best_of([result["validation"] for result, _ in tried])
            chosen = replace(plan, learning_rate=rates[best])
            results = [tried[best][0]]
            results += [self._train(start, chosen, draw, False)[0] for draw, _ in self.draws[1:]]
            for line in results:
                _refuse_diverged(line)
            if ship:
                shipped = tried[best][1] or self._weights(start, chosen)
                curve = self._training(start, chosen, 0) / "metrics.jsonl"
                files.write_bytes(self.folder / "metrics.jsonl", curve.read_bytes())
            made = self._rows(start.variant, chosen, results, scratch)
            rows += made
            if start.variant == "scratch":
                scratch = (made, results)
        self.context.ledger.replace("finetune", rows)
        return shipped

    def _plan(self, starts: list[Start]) -> Plan:
        """Fit the epochs to the stage's budget once; all trainings share them."""
        section = self.context.recipe.finetune
        saved = next((line["plan"] for line in self.done if "plan" in line), None)
        if saved is not None:
            return Plan(**saved)
        data = self.context.splits.train.labelled.subset(self.draws[0][1])
        plan = Plan(
            items=len(data.labels), batch=section.batch, epochs=section.epochs,
            learning_rate=section.learning_rates[0], optimizer=section.optimizer,
            weight_decay=section.weight_decay, warmup=0.05, drop_last=False,
            seed=self.context.recipe.seed,
        )  # fmt: skip
        if section.max_seconds is not None:
            runs = len(starts) * (len(section.learning_rates) + len(self.draws) - 1)
            network = starts[0].network(0).train().to(memory_format=torch.channels_last)
            loss = classification_loss(data, self._views(), torch.device("cpu"))
            plan, _ = fit_to_budget(plan, network, loss, section.max_seconds / runs)
            if plan.epochs < section.epochs:
                self.context.reporter.warn(
                    f"finetune: {plan.epochs} instead of {section.epochs} epochs, to stay within "
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
        began, weights = time.monotonic(), {}
        splits = self.context.splits
        try:
            network = self._fitted(start, plan, draw)
            validation = self._answers(network, splits.validation.images)
            test = self._answers(network, splits.test.images)
        except Diverged as error:  # a rate that diverges has lost the search, no more
            self.context.reporter.warn(error.message)
            line = key | {"validation": DIVERGED, "correct": "", "problem": error.message}
        else:
            line = key | {
                "validation": float((validation == splits.validation.labels).mean()),
                "correct": "".join("01"[int(c)] for c in test == splits.test.labels),
            }
            weights = dict(network.state_dict()) if keep else {}
        line["seconds"] = round(time.monotonic() - began, 3)
        files.append_jsonl(self.log, [line])
        checkpoints.discard(self._training(start, plan, draw) / "last")
        self.done.append(line)
        return line, weights

    def _fitted(self, start: Start, plan: Plan, draw: int) -> nn.Module:
        data = self.context.splits.train.labelled.subset(self.draws[draw][1])
        label = f"finetune {start.variant}, draw {draw}, lr {plan.learning_rate:g}"
        return finetune(
            start.network(draw), data, self._views(), replace(plan, items=len(data.labels)),
            reporter=self.context.reporter, label=label,
            folder=self._training(start, plan, draw),
            identity={"stage": self.identity, "draw": draw, "variant": start.variant},
        )  # fmt: skip

    def _answers(self, network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        logits = outputs(network, images, self.context.spec)
        if not np.isfinite(logits).all():
            raise Diverged("finetune: the trained network gives no finite outputs")
        return logits.argmax(1)

    def _training(self, start: Start, plan: Plan, draw: int) -> Path:
        name = f"{start.variant}-draw{draw}-lr{plan.learning_rate:g}"
        return self.folder / "training" / name

    def _weights(self, start: Start, plan: Plan) -> dict[str, Tensor]:
        """Repeat the first draw of a resumed run whose weights were not kept."""
        return dict(self._fitted(start, plan, 0).state_dict())

    def _rows(
        self, variant: str, plan: Plan, results: Lines, scratch: tuple[Rows, Lines] | None
    ) -> Rows:
        """Return one row per draw and their summary, paired with scratch where there is one."""
        recipe, test = self.context.recipe, self.context.splits.test
        name = f"finetune/{variant}/{recipe.labels.per_class or 'all'}"
        rows = []
        for position, line in enumerate(results):
            compared = (scratch[0][position], _right(scratch[1][position])) if scratch else None
            rows.append(
                accuracy_row(
                    _right(line), compared=compared,
                    id=f"{name}/draw{line['draw']}", stage="finetune", variant=variant,
                    width=self.width, target="pytorch", split="test",
                    data_sha256=test.data_sha256, labels_per_class=recipe.labels.per_class,
                    seed=recipe.seed, draw=line["draw"], metric="top1", seconds=line["seconds"],
                    note=f"{plan.epochs} epochs, learning rate {plan.learning_rate:g} chosen on "
                    "validation",
                )
            )  # fmt: skip
        paired = (scratch[0][-1].id, scratch[0][:-1]) if scratch else None
        note = "delta: paired with scratch on the same label draws" if scratch else None
        return [*rows, summary_row(rows, compared=paired, id=name, note=note)]


def _right(line: dict[str, Any]) -> NDArray[np.bool_]:
    return np.array([c == "1" for c in line["correct"]])


def _refuse_diverged(line: dict[str, Any]) -> None:
    if line["validation"] == DIVERGED:
        raise Diverged(line["problem"], hint="give lower finetune.learning_rates")

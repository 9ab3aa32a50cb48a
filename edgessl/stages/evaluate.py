"""What frozen features are worth: kNN and linear probe, beside raw pixels, over label draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgessl.core.errors import DataInvalid
from edgessl.core.ledger import LedgerRow
from edgessl.evaluation.answers import balanced_accuracy
from edgessl.evaluation.knn import knn_predict
from edgessl.evaluation.linear import fit_probe, pixels
from edgessl.evaluation.outputs import outputs
from edgessl.slimming.sliced import recalibrate_plain
from edgessl.stages.context import Context
from edgessl.stages.networks import (
    Host,
    load_host,
    stock_net,
    told_of,
    variant_of,
    weights_identity,
)  # fmt: skip
from edgessl.stages.pretrain import deployed_batches
from edgessl.stages.rounds import Rounds, budgets
from edgessl.stages.rows import accuracy_row, summary_row, with_note
from edgessl.stages.seen import check_unseen

Matrix = NDArray[np.float32]
IMBALANCED = 1.5  # largest over smallest class of the measured images: from here on it matters


@dataclass(frozen=True)
class Source:
    """Where features come from: pixels, or a frozen net of one width."""

    variant: str
    width: str | None
    features: Callable[[NDArray[np.uint8]], Matrix]
    seal: str | None = None
    told: str = ""  # what a reader of its figures must know

    @property
    def name(self) -> str:
        """Beginning of the row ids."""
        return "/".join(filter(None, ("evaluate", self.width, self.variant)))


def evaluate(context: Context, checkpoints: Sequence[Path]) -> tuple[LedgerRow, ...]:
    """Evaluate the slim nets of checkpoints, raw pixels and, where given, ImageNet weights.

    Every choice (penalty of the probe) is made on validation images; the rows are on test.

    Args:
        context: The run.
        checkpoints: Folders of pretraining checkpoints or fine-tuned hosts of one encoder.
    """
    hosts = [load_host(folder) for folder in checkpoints]
    recipe = context.recipe
    for folder in checkpoints:
        check_unseen(context, folder)
    made = budgets(context, curve=True)
    identity = {
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        "labels": recipe.labels.model_dump(mode="json"),
        "seed": recipe.seed,
        "checkpoints": [host.artifact.seal for host in hosts],
        "weights": weights_identity(recipe),
        "data": [made[0].train.data_sha256, made[0].test.data_sha256],
    }

    def work() -> tuple[LedgerRow, ...]:
        rows: list[LedgerRow] = []
        for source in _sources(context, hosts):
            rows += [with_note(row, source.told) for row in _rows(context, source, made)]
        context.ledger.replace("evaluate", rows)
        return tuple(rows)

    def load() -> tuple[LedgerRow, ...]:
        rows = context.ledger.find(stage="evaluate")
        if not rows:
            raise DataInvalid("the ledger has no rows of this stage")
        return rows

    rows = context.stage("evaluate", context.folder("evaluate"), identity, work, load)
    for row in rows:
        if row.draw is None:
            context.reporter.say(describe(row))
    return rows


def _sources(context: Context, hosts: Sequence[Host]) -> list[Source]:
    def frozen(
        variant: str, label: str, network: nn.Module, seal: str | None, told: str = ""
    ) -> Source:
        return Source(variant, label, lambda x: outputs(network, x, context.spec), seal, told)

    found = [Source("pixels", None, pixels)]
    tuned = hosts[0].artifact.facts.get("tuned")
    for label in hosts[0].spec.labels if tuned is None else (tuned,):
        if (stock := stock_start(context, label)) is not None:
            found.append(frozen("imagenet", label, stock, None))
        for host in hosts:
            network = host.plain(label, head=False)
            variant = variant_of(host) + (", fine-tuned" if tuned else "")
            found.append(frozen(variant, label, network, host.artifact.seal, told_of(host)))
    return found


def stock_start(context: Context, label: str) -> nn.Module | None:
    """Return the net of a width with the recipe's stock weights, at home on this run's images.

    Like that of a pretrained net its BatchNorm statistics are re-estimated on the pretraining
    images, so that it is no weaker a rival than it can be. None without stock weights.

    Raises:
        FileInvalid: The weights cannot be had or do not fit.
    """
    network = stock_net(context.recipe, label)
    if network is not None:
        recalibrate_plain(network, deployed_batches(context, torch.device("cpu")))
    return network


def _rows(context: Context, source: Source, made: list[Rounds]) -> list[LedgerRow]:
    protocols = context.recipe.evaluate.protocols
    first = made[0]
    # in folds the three splits are one
    cache: dict[int, Matrix] = {}
    splits = (first.train, first.validation, first.test)
    for split in splits:
        if id(split) not in cache:
            cache[id(split)] = source.features(split.images)
    train, validation, test = (cache[id(split)] for split in splits)
    rows = _knn_rows(context, source, first, train, test) if "knn" in protocols else []
    if "linear" in protocols:
        for rounds in made:
            rows += _linear_rows(context, source, rounds, (train, validation, test))
    return rows


def _common(context: Context, source: Source, rounds: Rounds) -> dict[str, Any]:
    return {
        "stage": "evaluate", "variant": source.variant, "split": rounds.split,
        "data_sha256": rounds.test.data_sha256, "seed": context.recipe.seed,
        "artifact_sha256": source.seal, "width": source.width, "target": "pytorch",
    }  # fmt: skip


def _knn_rows(
    context: Context, source: Source, rounds: Rounds, train: Matrix, test: Matrix
) -> list[LedgerRow]:
    """Return one row with all training labels as bank; in folds one per fold and their mean."""
    classes = int(rounds.train.labels.max()) + 1
    banks = rounds.rounds if rounds.folds else rounds.rounds[:1]
    name, rows = f"{source.name}/knn", []
    for part in banks:
        bank = part.train if rounds.folds else np.arange(len(train))
        k = min(context.recipe.evaluate.neighbours, len(bank))
        predicted = knn_predict(
            train[bank], rounds.train.labels[bank], test[part.test], classes=classes, k=k
        )
        rows.append(
            accuracy_row(
                predicted == rounds.test.labels[part.test],
                id=f"{name}/draw{part.draw}" if rounds.folds else name,
                metric="knn_top1",
                draw=part.draw if rounds.folds else None,
                note=f"k = {k}, T = 0.07, bank of {len(bank)} labelled images",
                **_common(context, source, rounds),
            )
        )
    if rounds.folds:
        rows.append(_summary(rows, rounds, id=name))
    return rows


def _linear_rows(
    context: Context, source: Source, rounds: Rounds, matrices: tuple[Matrix, Matrix, Matrix]
) -> list[LedgerRow]:
    train, validation, test = matrices
    name, rows, balanced = f"{source.name}/linear/{rounds.budget}", [], []
    for part in rounds.rounds:
        start = time.monotonic()
        labels = rounds.test.labels[part.test]
        probe = fit_probe(
            (train[part.train], rounds.train.labels[part.train]),
            (validation[part.validation], rounds.validation.labels[part.validation]),
        )
        correct = probe.logits(test[part.test]).argmax(1) == labels
        row = accuracy_row(
            correct,
            id=f"{name}/draw{part.draw}",
            metric="linear_top1",
            labels_per_class=rounds.per_class,
            draw=part.draw,
            note=f"penalty {probe.penalty:g} chosen on {rounds.chosen_on}",
            seconds=time.monotonic() - start,
            **_common(context, source, rounds),
        )
        rows.append(row)
        balanced.append(balanced_row(row, correct, labels))
    summaries = [_summary(rows, rounds, id=name)]
    if is_imbalanced(rounds):
        summaries.append(_summary(balanced, rounds, id=f"{name}/balanced", parents=()))
    return [*rows, *summaries]


def _summary(rows: list[LedgerRow], rounds: Rounds, **fields: Any) -> LedgerRow:
    if rounds.folds:
        fields |= {"n": len(rounds.test.labels)}
    return summary_row(rows, test_to_train=rounds.test_to_train, note=rows[0].note, **fields)


def is_imbalanced(rounds: Rounds) -> bool:
    """Whether plain accuracy can hide a class: some class is measured much more than another."""
    counts = np.unique(rounds.test.labels, return_counts=True)[1]
    return bool(counts.max() > IMBALANCED * counts.min())


def balanced_row(
    row: LedgerRow, correct_N: NDArray[np.bool_], labels_N: NDArray[np.int64]
) -> LedgerRow:
    """Return the row with the mean recall of the classes in place of the plain accuracy."""
    metric = "balanced_top1" if row.metric == "top1" else row.metric.replace("top1", "balanced")
    return row.model_copy(
        update={
            "metric": metric, "value": balanced_accuracy(correct_N, labels_N), "ci_low": None,
            "ci_high": None, "interval": None, "compared_with": None, "delta": None,
            "delta_low": None, "delta_high": None, "parents": (),
        }
    )  # fmt: skip


def describe(row: LedgerRow) -> str:
    """Say a summary row in one line, in percent: who, what, how well, how sure."""
    budget = "" if row.metric.startswith("knn") else "  with all labels"
    if row.labels_per_class:
        budget = f"  with {row.labels_per_class} label(s) per class"
    text = f"  {row.variant:<18} {row.width or '':<6} {row.metric:<15} {100 * row.value:.1f} %"
    if row.ci_low is not None and row.ci_high is not None:
        text += f"  [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}] ({row.interval})"
    if row.delta is not None and row.delta_low is not None and row.delta_high is not None:
        text += (
            f"  delta {100 * row.delta:+.1f} [{100 * row.delta_low:+.1f}, "
            f"{100 * row.delta_high:+.1f}]"
        )
    return text + budget

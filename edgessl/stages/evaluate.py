"""What frozen features are worth: kNN and linear probe, beside raw pixels, over label draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import DataInvalid
from edgessl.core.ledger import LedgerRow
from edgessl.core.recipe import Recipe
from edgessl.data.splits import draw_labels
from edgessl.evaluation.knn import knn_predict
from edgessl.evaluation.linear import fit_probe, pixels
from edgessl.evaluation.outputs import outputs
from edgessl.stages.context import Context
from edgessl.stages.networks import Host, load_host
from edgessl.stages.pretrain import check_unseen
from edgessl.stages.rows import accuracy_row, summary_row

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def evaluate(context: Context, checkpoint: Path) -> tuple[LedgerRow, ...]:
    """Evaluate the slim net of a checkpoint and raw pixels; return the rows of this stage.

    Every choice (penalty of the probe) is made on validation images; the rows are on test.
    """
    host = load_host(checkpoint)
    recipe, seal = context.recipe, host.artifact.seal
    check_unseen(context, checkpoint)
    identity = {
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        "labels": recipe.labels.model_dump(mode="json"),
        "seed": recipe.seed,
        "checkpoint": seal,
        "data": [context.splits.train.data_sha256, context.splits.test.data_sha256],
    }

    def work() -> tuple[LedgerRow, ...]:
        network = host.plain() if not host.head else _headless(host)
        variant = str(host.artifact.facts.get("method", "checkpoint"))
        sources: list[tuple[str, Features, str | None]] = [
            ("pixels", pixels, None),
            (variant, lambda images: outputs(network, images, context.spec), seal),
        ]
        rows: list[LedgerRow] = []
        for name, features, sha in sources:
            rows += _rows(context, name, features, sha, host.spec.label)
        context.ledger.replace("evaluate", rows)
        return tuple(rows)

    def load() -> tuple[LedgerRow, ...]:
        rows = context.ledger.find(stage="evaluate")
        if not rows:
            raise DataInvalid("the ledger has no rows of this stage")
        return rows

    folder = context.folder("evaluate")
    rows = context.stage("evaluate", folder, identity, work, load)
    for row in rows:
        if row.draw is None:
            context.reporter.say(f"  {row.variant:<10} {row.metric:<12} {describe(row)}")
    return rows


def _headless(host: Host) -> Any:
    host.head.clear()
    return host.plain()


def _rows(
    context: Context, variant: str, features: Features, seal: str | None, width: str
) -> list[LedgerRow]:
    splits, recipe = context.splits, context.recipe
    train, validation, test = (
        (features(s.images), s.labels) for s in (splits.train, splits.validation, splits.test)
    )
    common: dict[str, Any] = {
        "stage": "evaluate", "variant": variant, "split": "test",
        "data_sha256": splits.test.data_sha256, "seed": recipe.seed, "artifact_sha256": seal,
        "width": width if seal else None, "target": "pytorch",
    }  # fmt: skip
    rows = []
    if "knn" in recipe.evaluate.protocols:
        k = min(recipe.evaluate.neighbours, len(train[1]))
        predicted = knn_predict(train[0], train[1], test[0], classes=len(splits.class_names), k=k)
        rows.append(
            accuracy_row(
                predicted == test[1],
                id=f"evaluate/{variant}/knn",
                metric="knn_top1",
                note=f"k = {k}, T = 0.07, bank of all {len(train[1])} training labels",
                **common,
            )
        )
    if "linear" in recipe.evaluate.protocols:
        drawn = []
        for draw, chosen in label_draws(context):
            start = time.monotonic()
            probe = fit_probe((train[0][chosen], train[1][chosen]), validation)
            drawn.append(
                accuracy_row(
                    probe.logits(test[0]).argmax(1) == test[1],
                    id=f"evaluate/{variant}/linear/{_budget(recipe)}/draw{draw}",
                    metric="linear_top1",
                    labels_per_class=recipe.labels.per_class,
                    draw=draw,
                    note=f"penalty {probe.penalty:g} chosen on validation",
                    seconds=time.monotonic() - start,
                    **common,
                )
            )
        rows += drawn
        rows.append(
            summary_row(drawn, id=f"evaluate/{variant}/linear/{_budget(recipe)}", note=None)
        )
    return rows


def label_draws(context: Context) -> list[tuple[int, NDArray[np.int64]]]:
    """Return (draw, chosen training images) for every draw of the recipe; all labels: one draw.

    Raises:
        DataInvalid: A class has fewer training images than labels per class.
    """
    wanted, train = context.recipe.labels, context.splits.train
    if wanted.per_class is None:
        return [(0, np.arange(len(train.labels)))]
    return [
        (
            draw,
            draw_labels(
                train.labels, wanted.per_class, seed=context.recipe.seed, draw=draw,
                class_names=context.splits.class_names,
            ),
        )
        for draw in range(wanted.draws)
    ]  # fmt: skip


def _budget(recipe: Recipe) -> str:
    return str(recipe.labels.per_class or "all")


def describe(row: LedgerRow) -> str:
    """Say a row's figure with its interval in percent."""
    text = f"{100 * row.value:.1f} %"
    if row.ci_low is not None and row.ci_high is not None:
        text += f"  [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}] ({row.interval})"
    if row.delta is not None and row.delta_low is not None and row.delta_high is not None:
        text += (
            f"  delta {100 * row.delta:+.1f} [{100 * row.delta_low:+.1f}, "
            f"{100 * row.delta_high:+.1f}]"
        )
    return text

"""Monitors of a pretraining run: which images are looked at, and one line of ``monitor.jsonl``.

The passes use batch statistics, as in training: running ones lag behind early on. They are
frozen passes, so weights, buffers and random generators stay as they were, and a watched run
takes the same steps as one that is not.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import Diverged
from edgessl.core.images import to_model_input
from edgessl.evaluation.monitors import Figures, agreement, collapse_alarm, figures_of
from edgessl.methods.base import Method
from edgessl.slimming.sliced import HOST, Sliced
from edgessl.stages.context import Context
from edgessl.stages.roles import Pool
from edgessl.training.loop import Watch

# of a small data set: looking at all of it every epoch would cost as much as training
SHARE, FEWEST = 4, 256
TOLD_EVERY_S = 60.0


def make_watch(context: Context, method: Method, pool: Pool) -> Watch:
    """Return the monitors of the recipe for one pretraining.

    Args:
        context: Its recipe says how often and what an alarm does; labels, where there are any,
            are those of the training split (in folds every label is tested on: none).
        method: What trains.
        pool: What it trains on.
    """
    section, seed = context.recipe.pretrain.monitor, context.recipe.seed
    n = min(section.images, max(FEWEST, len(pool.images) // SHARE), len(pool.images))
    rows = np.random.Generator(np.random.PCG64([seed, 2])).permutation(len(pool.images))[:n]
    images = as_deployed(pool.images[rows], context.spec)
    labels = np.full(n, -1, np.int64)
    if context.images.has_labels and context.images.folds is None:
        train = context.splits.train
        known = dict(zip(train.source_sha256, train.labels.tolist(), strict=True))
        labels = np.array([known.get(pool.source_sha256[i], -1) for i in rows], np.int64)
    looker = Looker(
        method, images, labels, context.spec, context.recipe.pretrain.batch, context.reporter
    )
    return Watch(looker, section.every_epochs, section.collapse)


def as_deployed(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Cut stored squares (N, resize, resize, 3) to the centre that a deployed model sees."""
    top, left = (spec.resize - spec.height) // 2, (spec.resize - spec.width) // 2
    return images[:, top : top + spec.height, left : left + spec.width]


class Looker:
    """Measures a method on fixed images.

    Args:
        method: Its encoder, and its projector if it has one, are looked at.
        images: uint8 (N, H, W, 3), as deployed.
        labels: int64 (N,); -1 where there is none.
        spec: Input contract.
        batch: Images per pass: what training fits into memory, and its batch statistics.
        reporter: Told one short line now and then.
    """

    def __init__(
        self,
        method: Method,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spec: InputSpec,
        batch: int,
        reporter: Reporter,
    ) -> None:
        self.method, self.images, self.labels = method, images, labels
        self.spec, self.batch, self.reporter = spec, batch, reporter
        self._told = time.monotonic()

    def __call__(self, *, warm: bool) -> dict[str, Any]:
        """Return the figures of every width, and an alarm or None.

        Raises:
            Diverged: Features are not finite.
        """
        encoder = self.method.encoder
        # a dense net has one width, under the name that it is deployed by
        widths = encoder.labels if encoder.is_dense else (HOST, *encoder.labels)
        seen = {width: self._outputs(width) for width in widths}
        figures = {w: figures_of(*outputs, self.labels) for w, outputs in seen.items()}
        row: dict[str, Any] = {"images": len(self.images)}
        row |= {
            name: {w: _rounded(asdict(f)[name]) for w, f in figures.items()}
            for name in ("rankme", "rankme_features", "std", "knn")
        }
        if None in row["knn"].values():
            row["knn"] = None
        row["agreement"] = {
            w: _rounded(agreement(seen[HOST][0], seen[w][0])) for w in widths if HOST in seen
            and w != HOST
        }  # fmt: skip
        row["alarm"] = collapse_alarm(figures) if warm else None
        self._tell(_line(row, figures))
        return row

    def _tell(self, line: str) -> None:
        """Print a line now and then; all of them are in the log and, with ``-v``, on screen."""
        if time.monotonic() - self._told < TOLD_EVERY_S:
            self.reporter.detail(line)
            return
        self._told = time.monotonic()
        self.reporter.say(line)

    @torch.no_grad()
    def _outputs(self, width: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features (N, F) and embeddings (N, D)."""
        device = next(self.method.encoder.parameters()).device
        parts = np.array_split(np.arange(len(self.images)), -(-len(self.images) // self.batch))
        features, embeddings = [], []
        with torch.random.fork_rng():  # a method may draw numbers in a pass
            for rows in parts:
                x = torch.from_numpy(to_model_input(self.images[rows], self.spec)).to(device)
                features.append(self.method.encoder(x, width=width, frozen=True))
                embeddings.append(_projected(self.method, features[-1], width))
        outputs = tuple(torch.cat(p).float().cpu().numpy() for p in (features, embeddings))
        if not all(np.isfinite(o).all() for o in outputs):
            raise Diverged(
                f"pretrain: the {width} net gives outputs that are not finite",
                hint="start a new run with a lower learning rate",
            )
        return outputs[0], outputs[1]


def _projected(method: Method, features: Tensor, width: str) -> Tensor:
    projector = getattr(method, "projector", None)
    if isinstance(projector, Sliced):
        return projector(features, width=width, frozen=True)
    if isinstance(projector, nn.Module):
        scratch = {name: buffer.clone() for name, buffer in projector.named_buffers()}
        return functional_call(projector, scratch, (features,))
    return features


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _line(row: dict[str, Any], figures: dict[str, Figures]) -> str:
    parts = []
    for width, f in figures.items():
        knn = "" if f.knn is None else f", kNN {f.knn:.3f}"
        near = f", agreement {row['agreement'][width]:.2f}" if width in row["agreement"] else ""
        parts.append(f"{width}: rank {f.rankme:.0f}, std {f.std:.2f}{knn}{near}")
    return f"monitor ({row['images']} images): " + "; ".join(parts)

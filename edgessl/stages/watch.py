"""Monitors of a pretraining run: which images are looked at, and one line of ``monitor.jsonl``.

The passes use batch statistics, as in training: running ones lag behind early on. They are
frozen passes, gradients are those of a copy, and views have keys of their own. So weights,
buffers and random generators stay as they were, and a watched run takes the same steps as one
that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from edgessl.data.views import Views
from edgessl.evaluation.gradients import gradients_against
from edgessl.evaluation.monitors import Figures, agreement, collapse_alarm, figures_of
from edgessl.evaluation.two_views import between_views
from edgessl.methods.base import Method
from edgessl.slimming.sliced import HOST, Sliced
from edgessl.stages.context import Context
from edgessl.stages.roles import Pool
from edgessl.training.loop import Watch
from edgessl.training.update import LossFunction

# of a small data set: looking at all of it every epoch would cost as much as training
SHARE, FEWEST = 4, 256
# at most half of them and this many are looked at in two views, and with gradients
VIEWED = 256
# no epoch of training has these keys, so no view that is looked at is trained on
EPOCH, OTHER_EPOCH = -1, -2
TOLD_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Taught:
    """What training makes of images.

    Attributes:
        rows: int64 (n,), positions in the pool of the images to look at like this; as many of
            them as a batch takes are looked at with gradients.
        views: The random views (n, 3, H, W) of pool positions in an epoch.
        loss: The terms of a step on pool positions in an epoch.
    """

    rows: NDArray[np.int64]
    views: Callable[[NDArray[np.int64], int], list[Tensor]]
    loss: LossFunction


def make_watch(
    context: Context, method: Method, pool: Pool, views: Views, loss: LossFunction
) -> Watch:
    """Return the monitors of the recipe for one pretraining.

    Args:
        context: Its recipe says how often and what an alarm does; labels, where there are any,
            are those of the training split (in folds every label is tested on: none).
        method: What trains.
        pool: What it trains on.
        views: Makes the random views of the recipe.
        loss: What it trains with.
    """
    section, seed = context.recipe.pretrain.monitor, context.recipe.seed
    n = watched_images(section.images, len(pool.images))
    rows = np.random.Generator(np.random.PCG64([seed, 2])).permutation(len(pool.images))[:n]
    images = as_deployed(pool.images[rows], context.spec)
    labels = np.full(n, -1, np.int64)
    if context.images.has_labels and context.images.folds is None:
        train = context.splits.train
        known = dict(zip(train.source_sha256, train.labels.tolist(), strict=True))
        labels = np.array([known.get(pool.source_sha256[i], -1) for i in rows], np.int64)
    looker = Looker(
        method, images, labels, context.spec, context.recipe.pretrain.batch, context.reporter,
        make_taught(method, rows, pool.images, views, loss),
    )  # fmt: skip
    return Watch(looker, section.every_epochs, section.collapse)


def watched_images(wanted: int, pool: int) -> int:
    """Return how many images of a pool are looked at: fewer of a small one."""
    return min(wanted, max(FEWEST, pool // SHARE), pool)


def make_taught(
    method: Method,
    rows: NDArray[np.int64],
    images: NDArray[np.uint8],
    views: Views,
    loss: LossFunction,
) -> Taught:
    """Return what training makes of some of the watched images.

    Args:
        method: Views are made on its device.
        rows: int64 (N,), positions of the watched images in the pool.
        images: uint8 (pool, S, S, 3), as stored.
        views: Makes the random views of the recipe.
        loss: What the method trains with, on positions in the pool.
    """
    stored, device = torch.from_numpy(images), next(method.parameters()).device

    def make(at: NDArray[np.int64], epoch: int) -> list[Tensor]:
        return views(stored[torch.from_numpy(at)].to(device), at, epoch)

    return Taught(rows[: min(VIEWED, max(2, len(rows) // 2))], make, loss)


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
        taught: For what needs views or gradients; None leaves that out.
    """

    def __init__(
        self,
        method: Method,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        spec: InputSpec,
        batch: int,
        reporter: Reporter,
        taught: Taught | None = None,
    ) -> None:
        self.method, self.images, self.labels = method, images, labels
        self.spec, self.batch, self.reporter, self.taught = spec, batch, reporter, taught
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
            name: _all_rounded({w: asdict(f)[name] for w, f in figures.items()})
            for name in ("rankme", "rankme_features", "alpha_req", "std", "knn")
        }
        if None in row["knn"].values():
            row["knn"] = None
        slims = () if encoder.is_dense else encoder.labels
        row["agreement"] = _all_rounded({w: agreement(seen[HOST][0], seen[w][0]) for w in slims})
        if self.taught is not None:
            row |= self._between_views(self.taught, widths) | self._gradients(self.taught)
        row["alarm"] = collapse_alarm(figures, self.method.least_std) if warm else None
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
        features, embeddings = [], []
        with torch.random.fork_rng():  # a method may draw numbers in a pass
            for rows in self._parts(len(self.images)):
                x = torch.from_numpy(to_model_input(self.images[rows], self.spec)).to(device)
                features.append(self.method.encoder(x, width=width, frozen=True))
                embeddings.append(_projected(self.method, features[-1], width))
        return _finite(features, width), _finite(embeddings, width)

    @torch.no_grad()
    def _between_views(self, taught: Taught, widths: tuple[str, ...]) -> dict[str, Any]:
        """Compare the embeddings of two views, in all nets."""
        outputs: dict[str, tuple[list[Tensor], list[Tensor]]] = {w: ([], []) for w in widths}
        with torch.random.fork_rng():
            for part in self._parts(len(taught.rows)):
                views = taught.views(taught.rows[part], EPOCH)[:2]
                if len(views) == 1:  # of a method that takes one view, another draw of it
                    views = [*views, *taught.views(taught.rows[part], OTHER_EPOCH)]
                for width, kept in outputs.items():
                    for x, codes in zip(views, kept, strict=True):
                        features = self.method.encoder(x, width=width, frozen=True)
                        codes.append(_projected(self.method, features, width))
        found = between_views(
            {w: (_finite(a, w), _finite(b, w)) for w, (a, b) in outputs.items()}, HOST
        )
        diagonal = {pair: c.diagonal for pair, c in found.crossed.items()}
        off_diagonal = {pair: c.off_diagonal for pair, c in found.crossed.items()}
        return {
            "viewed": len(taught.rows),
            "view_retrieval": _all_rounded(found.retrieval),
            "view_retrieval_chance": _rounded(1 / len(taught.rows)),
            "correlation_diagonal": _all_rounded(diagonal),
            "correlation_off_diagonal": _all_rounded(off_diagonal),
            "same_view_diagonal": _all_rounded(found.same_view),
        }

    def _gradients(self, taught: Taught) -> dict[str, Any]:
        """Compare what passes and terms want, on one batch."""
        rows = taught.rows[: self.batch]
        found = gradients_against(self.method, lambda copied: taught.loss(copied, rows, EPOCH))
        return {
            "gradient_cosine": _all_rounded({pair: g.cosine for pair, g in found.items()}),
            "gradient_norm_ratio": _all_rounded({pair: g.ratio for pair, g in found.items()}),
        }

    def _parts(self, n: int) -> list[NDArray[np.int64]]:
        return np.array_split(np.arange(n), -(-n // self.batch))


def _finite(parts: list[Tensor], width: str) -> NDArray[np.float32]:
    whole = torch.cat(parts).float().cpu().numpy()
    if not np.isfinite(whole).all():
        raise Diverged(
            f"pretrain: the {width} net gives outputs that are not finite",
            hint="start a new run with a lower learning rate",
        )
    return whole


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


def _all_rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in values.items()}


def _line(row: dict[str, Any], figures: dict[str, Figures]) -> str:
    parts = []
    for width, f in figures.items():
        knn = "" if f.knn is None else f", kNN {f.knn:.3f}"
        near = f", agreement {row['agreement'][width]:.2f}" if width in row["agreement"] else ""
        parts.append(f"{width}: rank {f.rankme:.0f}, std {f.std:.2f}{knn}{near}")
    return f"monitor ({row['images']} images): " + "; ".join(parts)

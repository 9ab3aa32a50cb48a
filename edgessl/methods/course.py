"""What SACL and SACL+XD decide from step to step: views, widths, channels, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from edgessl.core.errors import RecipeInvalid
from edgessl.cost.training import Passes
from edgessl.methods import base
from edgessl.methods.selection import Selection
from edgessl.slimming.choice import begin_as_host
from edgessl.slimming.sliced import HOST, Sliced

Weight = Annotated[float, Field(ge=0)]
Route = Literal["fixed", "alternate", "random"]


class SlimOptions(base.BarlowOptions):
    """Options of the methods that train slim nets inside a host."""

    selector: Literal["prefix", "l1_group"] = Field(
        default="prefix",
        description="channels that a slim net keeps: the first ones, or those with the largest "
        "filters, ranked anew while training; the paper's choice is not known, the authors' "
        "prototype ranks by L1",
    )
    interval: int | None = Field(
        default=None, gt=0,
        description="l1_group: steps between rankings, from the second epoch on; null: an epoch; "
        "the prototype: 196 to 4000",
    )  # fmt: skip
    freeze_at: float = Field(
        default=0.5, ge=0, le=1,
        description="l1_group: share of the training after which channels stay; the prototype "
        "never stops",
    )  # fmt: skip
    route: Route = Field(
        default="fixed",
        description="view that the host encodes: always the first, as in the paper; the first and "
        "the second in turn; or one drawn for each step. Slim nets encode the other",
    )
    slim_start_epoch: int = Field(
        default=0, ge=0,
        description="epochs in which the host trains alone, on both views (6 passes of the host); "
        "the paper's number is not known, the prototype has 0 and, late, 10",
    )  # fmt: skip
    width_weights: Annotated[tuple[Weight, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="weight of each slim net in the loss, widest first, divided by their sum; "
        "null: equal; the paper has one slim net",
    )
    local_weight: float = Field(
        default=1.0, gt=0,
        description="of the term that local crops add, where pretrain.views.local asks for some; "
        "the paper has none",
    )  # fmt: skip

    def early(self, usual: Passes) -> tuple[int, Passes]:
        """Count the host alone, as if it were the only net."""
        alone = self.passes(usual).dense
        return self.slim_start_epoch, Passes(alone, 0, alone)


class Course(nn.Module):
    """Follows the steps of a training; what it chose is part of a checkpoint.

    Args:
        parts: Gives the slim nets and the seed.
        options: Of the method.
        nets: Encoder and projector, and copies of both that go the same way.

    Raises:
        RecipeInvalid: Not one weight for every slim net.
    """

    def __init__(
        self, parts: base.Parts, options: SlimOptions, nets: Sequence[tuple[Sliced, Sliced]]
    ) -> None:
        super().__init__()
        labels, weights = parts.encoder.labels, options.width_weights
        if weights is not None and (len(weights) != len(labels) or not sum(weights)):
            raise RecipeInvalid(
                f"pretrain.options.width_weights has {len(weights)} weights, in sum "
                f"{sum(weights):g}, for the slim nets {', '.join(labels)}",
                hint="give one weight for each slim net, widest first, one of them above 0",
            )
        self.labels, self.epochs_alone = labels, options.slim_start_epoch
        self.weights = dict(zip(labels, weights, strict=True)) if weights else None
        self.swaps, self.seed = SWAPS[options.route], parts.seed
        self._nets = tuple(nets)  # in a tuple: they are modules of the method, not of this one
        self.selection = None
        if options.selector == "l1_group":
            self.selection = Selection(
                nets, parts.feature_group, interval=options.interval, freeze_at=options.freeze_at
            )
        self.step = self.start = 0

    def begin(self, schedule: base.Schedule) -> None:
        """Hear the plan.

        Raises:
            RecipeInvalid: The slim nets would never train.
        """
        self.step, self.start = schedule.done, self.epochs_alone * schedule.steps_per_epoch
        if self.start >= schedule.steps:
            raise RecipeInvalid(
                f"pretrain.options.slim_start_epoch is {self.epochs_alone}, but the training has "
                f"{schedule.steps // schedule.steps_per_epoch} epochs: no slim net would train",
                hint="start them earlier, or train for more epochs (pretrain.epochs, max_seconds)",
            )
        if self.selection is not None:
            self.selection.begin(schedule)

    @property
    def slims(self) -> tuple[str, ...]:
        """What encodes the other view: the slim nets, or the host while it trains alone."""
        return (HOST,) if self.step < self.start else self.labels

    def routed(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the host's view, that of the slim nets, and their local crops."""
        xa, xb, *crops = views
        if self.swaps(self.step, self.seed):
            xa, xb = xb, xa
        return xa, xb, [] if self.step < self.start else crops

    def mean(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted mean of a term over :attr:`slims`."""
        stacked = torch.stack(list(terms.values()))
        if self.weights is None or HOST in terms:  # the host trains alone
            return stacked.mean()
        weights = stacked.new_tensor([self.weights[label] for label in terms])
        return (stacked * weights).sum() / weights.sum()

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Start the slim nets or let them choose channels, if it is time to."""
        self.step = step
        if step == self.start:
            for net in (net for pair in self._nets for net in pair):
                for label in self.labels:
                    begin_as_host(net, label)
        overlaps = None if self.selection is None else self.selection.after_step(step)
        return None if overlaps is None else {"overlap": overlaps}


def _drawn(step: int, seed: int) -> bool:
    return bool(np.random.default_rng([seed, step]).integers(2))


# whether the host takes the second view at a step
SWAPS: dict[Route, Callable[[int, int], bool]] = {
    "fixed": lambda _step, _seed: False,
    "alternate": lambda step, _seed: step % 2 == 1,
    "random": _drawn,
}

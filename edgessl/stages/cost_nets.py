"""Forward passes counted on networks that have shapes and no memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from edgessl.core.errors import InvalidInput
from edgessl.cost.macs import count_operations
from edgessl.cost.training import COUNTINGS, Passes
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Stem
from edgessl.methods.base import Options

Operations = Mapping[str, float]  # by counting; see COUNTINGS


def meta_network(
    name: str, width: float, *, classes: int | None, stem: Stem = "stock"
) -> nn.Module:
    """Build a network of the table of encoders whose tensors have shapes only.

    Args:
        name: An encoder.
        width: Width multiplier.
        classes: Outputs of the head; None leaves the head out.
        stem: As in :meth:`edgessl.encoders.base.Architecture.network`.

    Raises:
        UsageProblem: No such encoder.
    """
    with torch.device("meta"):
        return ENCODERS.load(name).network(width, classes=classes, stem=stem)


def phases(options: Options, usual: Passes, epochs: int) -> list[tuple[int, Passes]]:
    """Return the parts of a training that cost differently: their epochs, and a step's units.

    Args:
        options: Of the method.
        usual: What the table of methods says of it.
        epochs: Of the training. A first part that is longer than it is cut; pretraining refuses it.
    """
    first, early = options.early(usual)
    first = min(first, epochs)
    return [(n, p) for n, p in ((first, early), (epochs - first, options.passes(usual))) if n]


def operations_of(network: nn.Module, side: int) -> dict[str, int]:
    """Return the operations of one image of ``side`` pixels in every counting."""
    try:
        macs, normed = count_operations(network, side, side)
    except Exception as error:  # any, from code of others
        raise InvalidInput(
            f"the net cannot take images of {side} px: {error}",
            hint="another image size (--imgsz); some nets take that of their pretraining only",
        ) from error
    return {counting: macs + per_output * normed for counting, per_output in COUNTINGS.items()}


@dataclass(slots=True)
class Nets:
    """The widths of an encoder, each counted once per image size; without a classifier.

    Attributes:
        name: The encoder.
        stem: Its stem.
        side: Of the images, in pixels.
    """

    name: str
    stem: Stem
    side: int
    _counted: dict[tuple[float, int], dict[str, int]] = field(default_factory=dict)

    def one_pass(self, width: float, side: int | None = None) -> dict[str, int]:
        """Return the operations of one forward pass on one image."""
        key = (width, side or self.side)
        if key not in self._counted:
            network = meta_network(self.name, width, classes=None, stem=self.stem)
            self._counted[key] = operations_of(network, key[1])
        return self._counted[key]

    def step(
        self,
        passes: Passes,
        widths: tuple[float, Sequence[float]],
        *,
        teacher: Operations | None = None,
        local_side: int = 0,
    ) -> dict[str, float]:
        """Return the operations of a step per image.

        Args:
            passes: Of the method.
            widths: The host and its slim nets; none where the host is the only net.
            teacher: One pass of the teacher.
            local_side: Of local crops, in pixels; 0 where there are none.

        Raises:
            RecipeInvalid: The method does not train these widths.
        """
        host, slims = widths
        crops = [self.one_pass(w, local_side) for w in (slims or [host])] if local_side else []
        return {
            counting: passes.operations(
                self.one_pass(host)[counting],
                [self.one_pass(width)[counting] for width in slims],
                teacher=teacher[counting] if teacher else 0.0,
                local=sum(crop[counting] for crop in crops),
            )
            for counting in COUNTINGS
        }

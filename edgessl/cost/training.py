"""What pretraining costs, by arithmetic: encoder passes, operations, bytes. Nothing is measured.

Unit: one forward pass of one encoder on one image; a pass with gradient is 3 units, one without
is 1. A step of a method costs ``host`` units of the host once and ``slim`` units of every slim
net, or ``dense`` units of the only net.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgessl.core.errors import RecipeInvalid

THOP_BATCHNORM_OPS = 4  # per BatchNorm output element, as published cost tables count them


@dataclass(frozen=True, slots=True)
class Passes:
    """Units per image and step; None where the method cannot be used that way."""

    host: int | None
    slim: int | None
    dense: int | None

    @classmethod
    def of(cls, facts: Mapping[str, str | float | bool]) -> Passes:
        """Read the units of a method from its entry's facts."""
        host, slim, dense = (facts.get(f"{name}_units") for name in ("host", "slim", "dense"))
        return cls(*(None if n is None else int(n) for n in (host, slim, dense)))

    def operations(self, host: float, slims: Sequence[float]) -> float:
        """Return what a method does per image and step, in the unit of its arguments.

        Args:
            host: Cost of one forward pass of the host.
            slims: The same of every slim net; empty when the host is the only net.

        Raises:
            RecipeInvalid: The method does not train that many nets.
        """
        if not slims:
            if self.dense is None:
                raise RecipeInvalid(
                    "the method needs a slim net inside a wider host",
                    hint="name both widths: --width 1.5x-1x",
                )
            return self.dense * host
        if self.host is None or self.slim is None:
            raise RecipeInvalid("the method trains one width only", hint="name one: --width 1x")
        return self.host * host + self.slim * sum(slims)

    def text(self, slims: int) -> str:
        """Return the formula for a number of slim nets, for example ``4 H + 4 S``."""
        if not slims:
            return f"{self.dense} S"
        return f"{self.host} H + {self.slim} S" + (f" of each of {slims}" if slims > 1 else "")


def training_flops(macs_per_image: float, images: int, epochs: float) -> float:
    """Return floating-point operations of a training: two per multiply-accumulate.

    Args:
        macs_per_image: Of all passes of one image in one step.
        images: Images seen per epoch.
        epochs: Passes over them.
    """
    return 2.0 * macs_per_image * images * epochs


def stored_bytes(images: int, side: int) -> int:
    """Return the size of decoded images as they are kept for training: uint8 RGB squares."""
    return math.prod((images, side, side, 3))

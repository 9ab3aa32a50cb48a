"""What pretraining costs, by arithmetic: encoder passes, operations, bytes. Nothing is measured.

Unit: one forward pass of one encoder on one image; a pass with gradient is 3 units, one without
is 1. A step of a method costs ``host`` units of the host once and ``slim`` units of every slim
net, or ``dense`` units of the only net; ``teacher`` units of the teacher and ``local`` units of
slim passes on low-resolution crops come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgessl.core.errors import RecipeInvalid

# how operations are counted: operations per BatchNorm output element, beside the MACs of
# convolutions and Linear layers; published cost tables count them as the tool thop does
COUNTINGS = {"macs": 0, "seed_compat": 4}


@dataclass(frozen=True, slots=True)
class Passes:
    """Units per image and step; None where the method cannot be used that way.

    Attributes:
        host: Of the host, paid once where there are slim nets.
        slim: Of every slim net.
        dense: Of the only net, where there are no slim nets.
        teacher: Of the teacher while it teaches; its own pretraining is another training.
        local: Of the slim nets (or the only net) on local crops, which have MACs of their own.
    """

    host: int | None
    slim: int | None
    dense: int | None
    teacher: int = 0
    local: int = 0

    @classmethod
    def of(cls, facts: Mapping[str, str | float | bool]) -> Passes:
        """Read the units of a method from its entry's facts."""

        def units(name: str) -> int | None:
            found = facts.get(f"{name}_units")
            return None if found is None else int(found)

        beside = (units("teacher") or 0, units("local") or 0)
        return cls(units("host"), units("slim"), units("dense"), *beside)

    def operations(
        self, host: float, slims: Sequence[float], *, teacher: float = 0.0, local: float = 0.0
    ) -> float:
        """Return what a method does per image and step, in the unit of its arguments.

        Args:
            host: Cost of one forward pass of the host.
            slims: The same of every slim net; empty when the host is the only net.
            teacher: The same of the teacher; 0 leaves it out.
            local: The same of one local crop through every slim net, or through the only net.

        Raises:
            RecipeInvalid: The method does not train that many nets.
        """
        beside = self.teacher * teacher + self.local * local
        if not slims:
            if self.dense is None:
                raise RecipeInvalid(
                    "the method needs a slim net inside a wider host",
                    hint="name both widths: --width 1.5x-1x",
                )
            return self.dense * host + beside
        if self.host is None or self.slim is None:
            raise RecipeInvalid("the method trains one width only", hint="name one: --width 1x")
        return self.host * host + self.slim * sum(slims) + beside

    def text(self, slims: int) -> str:
        """Return the formula for a number of slim nets, for example ``4 H + 4 S``.

        Letters: H host, S slim or only net, L slim or only net on a local crop, T teacher.
        """
        each = f" of each of {slims}" if slims > 1 else ""
        terms = [f"{self.host} H"] if slims else [f"{self.dense} S"]
        terms += [f"{self.slim} S{each}"] if slims and self.slim else []
        terms += [f"{self.local} L{each}"] if self.local else []
        terms += [f"{self.teacher} T"] if self.teacher else []
        return " + ".join(terms)


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

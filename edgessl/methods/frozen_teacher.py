"""A trained net that is asked and never changed."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.core.errors import RecipeInvalid
from edgessl.losses.contrastive import unit
from edgessl.methods.base import Parts
from edgessl.slimming.sliced import NORMS

Statistics = Literal["running", "batch"]


class FrozenTeacher:
    """Codes of a teacher, without gradient: what its projector, if it has one, makes of features.

    It is no submodule of the method that asks it, as its weights belong into no checkpoint and no
    optimiser. It follows the images to their device.

    Args:
        parts: With the teacher.
        method: Who asks, for messages.
        bn: Statistics of its BatchNorms: those that it was left with, or those of each batch, as
            if it still trained; its own do not move.

    Raises:
        RecipeInvalid: There is no teacher.
    """

    def __init__(self, parts: Parts, method: str, *, bn: Statistics = "running") -> None:
        if parts.teacher is None:
            raise RecipeInvalid(
                f"method '{method}' learns from a trained teacher, and there is none",
                hint="name one: --teacher FOLDER",
            )
        teacher = parts.teacher
        layers = [teacher.network] if teacher.projector is None else [
            teacher.network, teacher.projector,
        ]  # fmt: skip
        self.dimensions, self.bn = teacher.dimensions, bn
        self._network = nn.Sequential(*layers).eval().requires_grad_(False)
        for layer in self._network.modules():
            if bn == "batch" and isinstance(layer, NORMS):
                layer.train()

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Return codes of unit norm: (B, D).

        Args:
            x_BCHW: Images, normalised.
        """
        network = self._network.to(x_BCHW.device, x_BCHW.dtype)
        if self.bn == "running":
            return unit(network(x_BCHW))
        scratch = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return unit(functional_call(network, scratch, (x_BCHW,)))

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTeacher:
        """Return itself: a copy of the method asks the same teacher."""
        return self

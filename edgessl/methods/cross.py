"""Cross distillation: the frozen codes z_hat, and how their loss is made and mixed in.

"Frozen" means: current weights, no gradient, BatchNorm on batch statistics, running statistics
untouched. Where the other encoder is the same one (1x), z_hat is the live code and nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgessl.cost.training import Passes
from edgessl.losses.barlow import Codes, code_cross_entropy
from edgessl.methods import base
from edgessl.methods.momentum import follow, momentum_copy
from edgessl.slimming.sliced import HOST, Sliced


class CrossOptions(base.BarlowOptions):
    """Options of the methods with cross distillation."""

    alpha: float = Field(
        default=0.95, ge=0, le=1,
        description="convex: weight of the contrast against cross distillation; the paper's value "
        "is not known, the authors' prototype has 0.95 and tries 0.9 and 0.99",
    )  # fmt: skip
    xd_combine: Literal["convex", "additive"] = Field(
        default="convex",
        description="alpha L_SACL + (1 - alpha) L_CD as in the paper, or L_SACL + xd_weight L_CD "
        "as in a late prototype",
    )
    xd_weight: float = Field(
        default=1e-4, ge=0, description="additive: weight of cross distillation; the prototype's"
    )
    xd_loss: Literal["decorr", "nll"] = Field(
        default="decorr",
        description="the Barlow loss between live and frozen code as in the paper, or the "
        "cross-entropy of its supplement (there with xd_combine additive)",
    )
    frozen_source: Literal["live", "ema"] = Field(
        default="live",
        description="weights of the frozen passes: the current ones, as in the paper, or a "
        "momentum copy",
    )
    frozen_momentum: float = Field(
        default=0.99, ge=0, le=1,
        description="ema: of the copy; 0 is the current weights; not in the paper",
    )  # fmt: skip
    frozen_bn: Literal["batch", "running"] = Field(
        default="batch",
        description="BatchNorm of the frozen passes: batch statistics, which fits the paper's "
        "equations and costs, or running ones",
    )

    @property
    def frozen_is_live(self) -> bool:
        """Whether a frozen pass is the live pass of the same width without its gradient."""
        return self.frozen_source == "live" and self.frozen_bn == "batch"

    def passes(self, usual: Passes) -> Passes:
        """Two frozen passes more at 1x, unless z_hat is z."""
        return usual if self.frozen_is_live else replace(usual, dense=8)

    def distil(self, live: Codes, frozen: Codes) -> Tensor:
        """Half of L_CD: the distance of the codes of one view."""
        if self.xd_loss == "nll":
            return code_cross_entropy(live, frozen)
        return self.distance(live, frozen)

    def mixed(self, sacl: Tensor, xd: Tensor) -> Tensor:
        """L, from L_SACL and L_CD."""
        if self.xd_combine == "additive":
            return sacl + self.xd_weight * xd
        return self.alpha * sacl + (1 - self.alpha) * xd


class Frozen(nn.Module):
    """Makes the frozen codes; a momentum copy, where there is one, is part of a checkpoint.

    Args:
        encoder: What trains.
        projector: What follows it.
        options: Of the method.
    """

    def __init__(self, encoder: Sliced, projector: Sliced, options: CrossOptions) -> None:
        super().__init__()
        self.options = options
        self.copied = options.frozen_source == "ema"
        if self.copied:
            self.encoder, self.projector = momentum_copy(encoder), momentum_copy(projector)

    @property
    def copies(self) -> list[tuple[Sliced, Sliced]]:
        """Encoder and projector of the momentum copy, if there is one."""
        return [(self.encoder, self.projector)] if self.copied else []

    @torch.no_grad()
    def crossed(
        self, method: base.Standardises, xa: Tensor, xb: Tensor,
        za: Codes, zb: Mapping[str, Codes],
    ) -> tuple[dict[str, Codes], Codes]:  # fmt: skip
        """Encode each view with the other encoder.

        Args:
            method: Live encoder and projector.
            xa: The host's view.
            xb: That of the slim nets.
            za: Live codes of the host.
            zb: Live codes of every slim net.

        Returns:
            z_hat^A by every slim net, and z_hat^B by the host.
        """
        dense = all(method.encoder.is_host(width) for width in zb)
        if dense and self.options.frozen_is_live:
            return {width: za.detach() for width in zb}, next(iter(zb.values())).detach()
        za_hat = {width: self._codes(method, xa, width) for width in zb}
        return za_hat, self._codes(method, xb, HOST)

    def _codes(self, method: base.Standardises, x: Tensor, width: str) -> Codes:
        net: base.Standardises = self if self.copied else method
        if self.options.frozen_bn == "batch":
            return base.codes(net, x, width, frozen=True)
        if self.copied:
            _copy_buffers(self.encoder, method.encoder)
            _copy_buffers(self.projector, method.projector)
        with running_statistics(net.encoder), running_statistics(net.projector):
            return base.codes(net, x, width, frozen=True)

    def follow(self, method: base.Encodes) -> None:
        """Move the copy, if there is one, towards what trains."""
        for encoder, projector in self.copies:
            follow(encoder, method.encoder, self.options.frozen_momentum)
            follow(projector, method.projector, self.options.frozen_momentum)


@contextmanager
def running_statistics(net: Sliced) -> Iterator[None]:
    """Let the BatchNorms of a net use their running statistics."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def _copy_buffers(target: nn.Module, source: nn.Module) -> None:
    for theirs, ours in zip(target.buffers(), source.buffers(), strict=True):
        theirs.copy_(ours)

"""The slim net as a plain stock module, and the proof that it is the slim pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.encoders.base import Architecture, Stem
from edgessl.slimming.plan import plan_for
from edgessl.slimming.sliced import Norms, Sliced

# Both nets run the same kernels on the same numbers, so they agree to rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class NetSpec:
    """What it takes to build a network again.

    Attributes:
        architecture: Name in the table of encoders.
        host_width: Width multiplier of the host.
        slim_widths: Width multipliers of the slim nets, widest first.
        stem: ``stock`` or ``small``.
        bn: ``switch`` gives every slim net BatchNorms of its own, ``shared`` statistics only.
    """

    architecture: str
    host_width: float
    slim_widths: tuple[float, ...]
    stem: Stem = "stock"
    bn: Norms = "switch"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the slim widths as in folder names, for example ``1x``, widest first."""
        return tuple(f"{width:g}x" for width in self.slim_widths)

    def width(self, label: str) -> float:
        """Return the multiplier of a slim net by its name."""
        return self.slim_widths[self.labels.index(label)]


def build_sliced(architecture: Architecture, spec: NetSpec, *, seed: int = 0) -> Sliced:
    """Build a randomly initialised host with its slim nets, without a head.

    Raises:
        InvalidInput: A slim width is not a slice of the host.
    """
    host = architecture.network(spec.host_width, classes=None, stem=spec.stem, seed=seed)
    slims = {}
    for label, width in zip(spec.labels, spec.slim_widths, strict=True):
        slim = architecture.network(width, classes=None, stem=spec.stem, seed=seed)
        plan = plan_for(architecture, host, slim, widths=(spec.host_width, width))
        slims[label] = (slim, plan)
    return Sliced(host, slims, bn=spec.bn)


@torch.no_grad()
def extract(architecture: Architecture, spec: NetSpec, sliced: Sliced, label: str) -> nn.Module:
    """Copy a slim net out of the host into the plain stock module at its width.

    Args:
        architecture: Of the network.
        spec: Its widths.
        sliced: Host and slim nets.
        label: Which slim net.

    Returns:
        A module in eval mode that shares no memory with the host; features come out.
    """
    plain = architecture.network(spec.width(label), classes=None, stem=spec.stem)
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in sliced.tensors(label).items()
    }
    plain.load_state_dict(tensors, strict=True)
    return plain.eval()


@torch.no_grad()
def largest_difference(plain: nn.Module, sliced: Sliced, label: str, images_BCHW: Tensor) -> float:
    """Largest |plain - slim pass| over a batch of prepared images, both in eval mode."""
    was_training = sliced.training
    sliced.eval()
    plain.eval()
    gap = (plain(images_BCHW) - sliced(images_BCHW, width=label)).abs().max()
    sliced.train(was_training)
    return float(gap)

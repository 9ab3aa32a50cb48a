"""The slim net as a plain stock module, and the proof that it is the slim pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.encoders.base import Architecture, Stem
from edgessl.slimming.plan import plan_for
from edgessl.slimming.sliced import Sliced

# Both nets run the same kernels on the same numbers, so they agree to rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class NetSpec:
    """What it takes to build a network again.

    Attributes:
        architecture: Name in the table of encoders.
        host_width: Width multiplier of the host.
        slim_width: Width multiplier of the slim net.
        stem: ``stock`` or ``small``.
    """

    architecture: str
    host_width: float
    slim_width: float
    stem: Stem = "stock"

    @property
    def label(self) -> str:
        """Name of the slim width as in folder names, for example ``1x``."""
        return f"{self.slim_width:g}x"


def build_sliced(architecture: Architecture, spec: NetSpec, *, seed: int = 0) -> Sliced:
    """Build a randomly initialised host with its slim net, without a head.

    Raises:
        InvalidInput: The slim width is not a slice of the host.
    """
    host = architecture.network(spec.host_width, classes=None, stem=spec.stem, seed=seed)
    slim = architecture.network(spec.slim_width, classes=None, stem=spec.stem, seed=seed)
    plan = plan_for(architecture, host, slim, widths=(spec.host_width, spec.slim_width))
    return Sliced(host, slim, plan)


@torch.no_grad()
def extract(architecture: Architecture, spec: NetSpec, sliced: Sliced) -> nn.Module:
    """Copy the slim net out of the host into the plain stock module at slim width.

    Returns:
        A module in eval mode that shares no memory with the host; features come out.
    """
    plain = architecture.network(spec.slim_width, classes=None, stem=spec.stem)
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in sliced.slim_tensors().items()
    }
    plain.load_state_dict(tensors, strict=True)
    return plain.eval()


@torch.no_grad()
def largest_difference(plain: nn.Module, sliced: Sliced, images_BCHW: Tensor) -> float:
    """Largest |plain - slim pass| over a batch of prepared images, both in eval mode."""
    was_training = sliced.training
    sliced.eval()
    plain.eval()
    gap = (plain(images_BCHW) - sliced(images_BCHW, width="slim")).abs().max()
    sliced.train(was_training)
    return float(gap)

"""A host that starts from pretrained weights of the stock 1x net."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgessl.encoders.weights import copy_overlap, fill
from edgessl.slimming.sliced import Sliced


@torch.no_grad()
def fill_sliced(sliced: Sliced, tensors: Mapping[str, Tensor]) -> None:
    """Copy pretrained tensors into the first channels of the host and of every slim net's norms.

    The rest of the host keeps its initialisation. A slim net of 1x then is the pretrained net
    exactly: its slices are the pretrained tensors, its BatchNorms theirs.

    Args:
        sliced: Its plans must keep first channels, as they do when it is built.
        tensors: Of the stock net at 1x, as ``encoders.weights.stock_weights`` returns them.
    """
    fill(sliced.host, tensors)
    for slim in sliced.slims.values():
        for key, norm in slim.norms.items():
            for part, target in norm.state_dict().items():
                copy_overlap(target, tensors[f"{key.replace('/', '.')}.{part}"])

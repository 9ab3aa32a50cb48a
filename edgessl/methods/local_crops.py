"""Low-resolution local crops through the slim nets only: beyond the paper.

Source of the idea: multi-crop training (SwAV, arXiv:2006.09882), for light nets SSLight
(arXiv:2210.02808). Ours is asymmetrical: small crops go where they are cheap. The host's codes of
the whole views are targets without gradient, as a host pulled towards what can be seen in a small
crop would be a worse one, and so the removed channels get nothing of this term.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgessl.losses.barlow import Codes
from edgessl.methods import base


def local_term(
    method: base.Standardises, crops: Sequence[Tensor], width: str, targets: Sequence[Codes]
) -> Tensor:
    """Mean over crops and targets of BT(P(f_s(crop)), sg target).

    All crops of a step are one batch of one pass. It leaves running statistics alone: those are
    of whole images, which is what a deployed net sees.

    Args:
        method: Gives encoder, projector and the loss.
        crops: Each (B, 3, h, w).
        width: Of the slim net.
        targets: The host's codes of whole views.
    """
    z = base.embed(method, torch.cat(list(crops)), width, frozen=True)
    local = [method.options.codes(part) for part in z.chunk(len(crops))]
    distances = [method.options.distance(c, t.detach()) for c in local for t in targets]
    return torch.stack(distances).mean()

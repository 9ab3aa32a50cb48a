"""Losses are as precise as their inputs, also where a network runs under autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """Return a context in which products on the device of ``like`` are not rounded to 16 bits."""
    return torch.autocast(like.device.type, enabled=False)

"""What a stem for small images changes in a stock architecture.

Most of it is not in a state dict: a net with edits loads strictly into the stock class and
computes something else unless they are applied there too. ``model.json`` records them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a stock module; what is not given stays.

    Attributes:
        module: Name of a convolution, or of any module to be removed.
        stride: New stride.
        kernel: New odd kernel size, with the padding that keeps the size at stride 1.
        remove: Put an identity in its place.
    """

    module: str
    stride: Pair | None = None
    kernel: Pair | None = None
    remove: bool = False


def edits_from(items: Iterable[Mapping[str, Any]]) -> tuple[Edit, ...]:
    """Read the ``edits`` of a model artifact, as ``dataclasses.asdict`` wrote them.

    Raises:
        KeyError, TypeError, ValueError: Malformed.
    """
    return tuple(
        Edit(str(e["module"]), _pair(e["stride"]), _pair(e["kernel"]), bool(e["remove"]))
        for e in items
    )


def apply_edits(module: nn.Module, edits: tuple[Edit, ...]) -> None:
    """Apply ``edits`` in place.

    A new kernel is the centre of the old one, scaled so that a random initialisation keeps the
    variance of its outputs.
    """
    for edit in edits:
        if edit.remove:
            parent, _, leaf = edit.module.rpartition(".")
            setattr(module.get_submodule(parent), leaf, nn.Identity())
            continue
        conv = module.get_submodule(edit.module)
        assert isinstance(conv, nn.Conv2d)
        if edit.stride is not None:
            conv.stride = edit.stride
        if edit.kernel is not None:
            old, new = conv.weight.shape[2:].numel(), edit.kernel[0] * edit.kernel[1]
            weight = centre(conv.weight.detach(), edit.kernel) * (old / new) ** 0.5
            conv.weight = nn.Parameter(weight)
            conv.kernel_size, conv.padding = edit.kernel, _padding(edit.kernel)


def edits_as_code(edits: tuple[Edit, ...]) -> str:
    """Return Python lines that apply ``edits`` to a stock module ``net``, given ``torch``.

    They change shapes and strides only: weights are loaded afterwards.
    """
    lines = []
    for edit in edits:
        if edit.remove:
            parent, _, leaf = edit.module.rpartition(".")
            place = f"net.get_submodule({parent!r})" if parent else "net"
            lines.append(f"setattr({place}, {leaf!r}, torch.nn.Identity())")
            continue
        lines.append(f"conv = net.get_submodule({edit.module!r})")
        if edit.stride is not None:
            lines.append(f"conv.stride = {edit.stride}")
        if edit.kernel is not None:
            height, width = edit.kernel
            lines.append(f"conv.kernel_size, conv.padding = {edit.kernel}, {_padding(edit.kernel)}")
            lines.append(
                f"conv.weight = torch.nn.Parameter(conv.weight[:, :, :{height}, :{width}].clone())"
            )
    return "".join(f"{line}\n" for line in lines)


def centre(weight_OIHW: Tensor, kernel: Pair) -> Tensor:
    """Return the middle of a convolution's kernel, as a copy."""
    top, left = (
        (have - want) // 2 for have, want in zip(weight_OIHW.shape[2:], kernel, strict=True)
    )
    return torch.clone(weight_OIHW[:, :, top : top + kernel[0], left : left + kernel[1]])


def _padding(kernel: Pair) -> Pair:
    return kernel[0] // 2, kernel[1] // 2


def _pair(value: Any) -> Pair | None:
    return None if value is None else (int(value[0]), int(value[1]))

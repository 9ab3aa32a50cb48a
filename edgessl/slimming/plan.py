"""Which channels of a host make the slim net: data that can be printed before it is applied.

A *group* is a set of tensor axes that must keep the same channels: a convolution's outputs,
its BatchNorm, the depthwise convolution behind it, the next inputs, everything joined by a
residual addition. A plan holds the kept indices of every group and which group each tensor
axis belongs to. It is the single source for slicing, masking (in the tests) and extraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.core.errors import FileInvalid, InvalidInput
from edgessl.encoders.base import Architecture, Axes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels of one group: ``keep`` are the host indices, in the slim net's order."""

    host: int
    keep: tuple[int, ...]

    @cached_property
    def is_prefix(self) -> bool:
        """Whether the first channels are kept, so that slices are views."""
        return self.keep == tuple(range(len(self.keep)))


@dataclass(frozen=True)
class ChannelPlan:
    """Kept channels per group, and the groups on the axes of every tensor.

    Attributes:
        groups: Group name to kept channels.
        axes: Tensor name (of the stock state dict) to the group on each axis, None where the
            axis is never sliced.
    """

    groups: Mapping[str, Group]
    axes: Axes
    _index: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def prefix(
        cls, host: Mapping[str, Shape], slim: Mapping[str, Shape], axes: Axes
    ) -> ChannelPlan:
        """Keep the first channels of every group, counts taken from the slim architecture.

        Counts come from the reference net layer by layer: rounding makes floor(r * C) differ.

        Args:
            host: Tensor name to shape at host width.
            slim: Tensor name to shape at slim width.
            axes: Groups on the axes of these tensors.

        Raises:
            ValueError: A group has two sizes, a slim tensor does not fit inside its host
                tensor, or an axis without a group differs.
        """
        sizes: dict[str, tuple[int, int]] = {}
        for name, slim_shape in slim.items():
            for axis, group in enumerate(axes[name]):
                pair = (host[name][axis], slim_shape[axis])
                if group is None and pair[0] != pair[1]:
                    raise ValueError(f"{name} axis {axis} has no group but sizes {pair}")
                if group is None:
                    continue
                if pair[1] > pair[0]:
                    raise ValueError(f"{name} axis {axis}: slim {pair[1]} > host {pair[0]}")
                if sizes.setdefault(group, pair) != pair:
                    raise ValueError(f"group {group} has sizes {sizes[group]} and {pair}")
        groups = {name: Group(h, tuple(range(s))) for name, (h, s) in sizes.items()}
        return cls(groups, {name: axes[name] for name in slim})

    @cached_property
    def is_dense(self) -> bool:
        """Whether nothing is sliced: the slim net is the host."""
        return all(
            group.is_prefix and group.host == len(group.keep) for group in self.groups.values()
        )

    def take(self, name: str, host_tensor: Tensor) -> Tensor:
        """Return the slim slice of a host tensor: a view for prefixes, else a copy.

        Gradients flow back into the kept entries of the host tensor in both cases.
        """
        taken = host_tensor
        for axis, group_name in enumerate(self.axes[name]):
            if group_name is None:
                continue
            group = self.groups[group_name]
            if group.is_prefix:
                taken = taken.narrow(axis, 0, len(group.keep))
            else:
                taken = taken.index_select(axis, self._indices(group_name, taken.device))
        return taken

    @torch.no_grad()
    def put(self, name: str, host_tensor: Tensor, slim_tensor: Tensor) -> None:
        """Write a slim tensor into its place in the host tensor; the rest stays untouched."""
        axes = self.axes[name]
        if not axes:
            host_tensor.copy_(slim_tensor)
            return
        where = [
            torch.arange(size, device=host_tensor.device)
            if group is None
            else self._indices(group, host_tensor.device)
            for size, group in zip(host_tensor.shape, axes, strict=True)
        ]
        host_tensor[torch.meshgrid(*where, indexing="ij")] = slim_tensor.to(host_tensor.dtype)

    def _indices(self, group: str, device: torch.device) -> Tensor:
        key = f"{group}@{device}"
        if key not in self._index:
            self._index[key] = torch.tensor(self.groups[group].keep, device=device)
        return self._index[key]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; a prefix is written as its length."""
        return {
            "groups": {
                name: {
                    "host": group.host,
                    "keep": len(group.keep) if group.is_prefix else list(group.keep),
                }
                for name, group in self.groups.items()
            },
            "axes": {name: list(axes) for name, axes in self.axes.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ChannelPlan:
        """Read what :meth:`as_dict` wrote.

        Raises:
            FileInvalid: Malformed, or an index outside its host group or kept twice.
        """
        try:
            groups = {}
            for name, item in values["groups"].items():
                keep = item["keep"]
                kept = tuple(range(keep)) if isinstance(keep, int) else tuple(map(int, keep))
                if len(set(kept)) != len(kept) or not all(0 <= k < item["host"] for k in kept):
                    raise ValueError(f"group {name} keeps channels twice or outside the host")
                groups[name] = Group(int(item["host"]), kept)
            return cls(groups, {name: tuple(a) for name, a in values["axes"].items()})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FileInvalid(f"malformed channel plan: {error}") from error

    def __str__(self) -> str:
        """Return one line per group: name, kept of host, which."""
        lines = []
        for name, group in self.groups.items():
            which = (
                f"0..{len(group.keep) - 1}" if group.is_prefix else ",".join(map(str, group.keep))
            )
            lines.append(f"{name:<14}{len(group.keep):>6} of {group.host:<6} {which}")
        return "\n".join(lines)


def shapes(module: nn.Module) -> dict[str, Shape]:
    """Return the shape of every parameter and buffer by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def plan_for(
    architecture: Architecture, host: nn.Module, slim: nn.Module, *, widths: tuple[float, float]
) -> ChannelPlan:
    """Make the prefix plan of an architecture, after comparing connection signatures.

    Residual connections can depend on the width (MobileNetV3-small at 0.5x gains one): such a
    pair shares parameter names and shapes but is another function.

    Raises:
        InvalidInput: The two widths differ in their residual connections, or the slim width
            does not fit into the host.
    """
    for block, pair in enumerate(
        zip(architecture.connections(host), architecture.connections(slim), strict=True)
    ):
        if pair[0] != pair[1]:
            where = "host" if pair[0] else "slim"
            raise InvalidInput(
                f"{architecture.name} at {widths[0]:g}x and {widths[1]:g}x differ: block {block} "
                f"has a residual connection in the {where} net only",
                hint="choose another slim width: the host and the slim net must be one function",
            )
    try:
        return ChannelPlan.prefix(shapes(host), shapes(slim), architecture.channel_axes(host))
    except ValueError as error:
        raise InvalidInput(
            f"{architecture.name} at {widths[1]:g}x is not a slice of {widths[0]:g}x: {error}",
            hint="the host must be at least as wide as the slim net",
        ) from error

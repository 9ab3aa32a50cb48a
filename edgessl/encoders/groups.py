"""The channel groups of any convolutional net, found by watching it run on shapes alone.

Every axis of every tensor carries a label: none, or a set of channels. Each operation says which
labels must be the same channels (a BatchNorm's input and its weight, both sides of a residual
sum), and sets that meet are merged. What is left are the groups of
:mod:`edgessl.slimming.plan`. An operation that mixes channels in a way that no slice keeps is
refused by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgessl.encoders.base import Axes

Label = int | None  # of an axis: a set of channels, or None
Labels = tuple[Label, ...]


class NotSliced(Exception):
    """A module mixes channels in a way that no slice keeps; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A layer that lowers the resolution.

    Attributes:
        module: Name of the convolution or pooling layer.
        factor: Side of its input over side of its output.
        depth: Side of the image over side of its input.
    """

    module: str
    factor: int
    depth: int


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """What watching a net tells.

    Attributes:
        axes: The channel groups of its tensors. A group is called after the first layer that
            makes its channels.
        reductions: Layers that lower the resolution, in the order of execution.
    """

    axes: Axes
    reductions: tuple[Reduction, ...]


def channel_groups(net: nn.Module, height: int, width: int) -> ChannelGroups:
    """Watch ``net`` run once, in training mode, on the shape of two images.

    Args:
        net: Images (B, 3, H, W) to logits (B, classes); it is left as it was.
        height: H in pixels.
        width: W in pixels.

    Raises:
        NotSliced: Something in it cannot be sliced exactly; names the module and why.
    """
    trial = copy.deepcopy(net).to("meta").train()
    watcher = Watcher(trial)
    images = torch.empty(2, 3, height, width, device="meta")
    watcher.mark(images, (None, watcher.sets.new(fixed=True), None, None))
    with torch.no_grad(), watcher, watcher.places(trial):
        logits = trial(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise NotSliced("the net does not give one row of logits per image")
    watcher.fix(watcher.of(logits)[1])
    return ChannelGroups(watcher.axes(), tuple(watcher.reductions))


@dataclass(slots=True)
class Sets:
    """Disjoint sets of channels; a fixed one (colours, classes) is never sliced."""

    parent: list[int] = field(default_factory=list)
    fixed: list[bool] = field(default_factory=list)

    def new(self, *, fixed: bool = False) -> int:
        """Return a new set."""
        self.parent.append(len(self.parent))
        self.fixed.append(fixed)
        return len(self.parent) - 1

    def root(self, label: int) -> int:
        """Return the name of the merged set that ``label`` belongs to."""
        while self.parent[label] != label:
            self.parent[label] = label = self.parent[self.parent[label]]
        return label

    def merge(self, one: int, other: int) -> int:
        """Make two sets one."""
        one, other = self.root(one), self.root(other)
        self.parent[other] = one
        self.fixed[one] = self.fixed[one] or self.fixed[other]
        return one


class Watcher(TorchDispatchMode):
    """Labels the axes of every tensor that a net computes.

    Attributes:
        sets: The sets of channels.
        reductions: Layers that lower the resolution, so far.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.sets = Sets()
        self.reductions: list[Reduction] = []
        self.state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        self._weights = {id(tensor) for tensor in self.state.values()}
        self._known: dict[int, tuple[Tensor, Labels]] = {}  # tensors are kept: ids stay theirs
        self._here = [""]
        self._side = 0

    # ----------------------------------------------------------------------------- labels

    def of(self, tensor: Tensor) -> Labels:
        """Return the labels of a tensor's axes."""
        known = self._known.get(id(tensor))
        return known[1] if known else (None,) * tensor.ndim

    def mark(self, tensor: Tensor, labels: Sequence[Label]) -> None:
        """Label a tensor's axes."""
        self._known[id(tensor)] = (tensor, tuple(labels))

    def same(self, labels: Sequence[Label]) -> Label:
        """Return the merged set of labels that must be the same channels."""
        first, *others = labels
        for other in others:
            if first is None or other is None:
                first = other if first is None else first
            else:
                first = self.sets.merge(first, other)
        return first

    def fix(self, label: Label) -> None:
        """Keep a set of channels from being sliced."""
        if label is not None:
            self.sets.fixed[self.sets.root(label)] = True

    def channels(self, tensor: Tensor, axis: int) -> Label:
        """Return the label of an axis that holds channels; that of a weight may be new."""
        labels = list(self.of(tensor))
        if labels[axis] is None and self.is_weight(tensor):
            labels[axis] = self.sets.new()
            self.mark(tensor, labels)
        return labels[axis]

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether it is a parameter or buffer of the net itself, not computed from one."""
        return id(tensor) in self._weights

    def refuse(self, why: str) -> NotSliced:
        """Build the error that names the module at work."""
        return NotSliced(f"{self._here[-1] or 'the net'}: {why}")

    # -------------------------------------------------------------------------- operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, then label what it returns."""
        from edgessl.encoders.group_rules import apply_rule

        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
        apply_rule(self, func, given, result)  # type: ignore[arg-type]  (an import in a circle)
        return result

    def reduced(self, before: Tensor, after: Tensor) -> None:
        """Note a layer that lowers the resolution."""
        self._side = self._side or before.shape[-1]
        factor = round(before.shape[-1] / after.shape[-1])
        if factor > 1:
            depth = round(self._side / before.shape[-1])
            self.reductions.append(Reduction(self._here[-1], factor, depth))

    def places(self, net: nn.Module) -> _Places:
        """Follow which module is at work."""
        return _Places(net, self._here)

    # ------------------------------------------------------------------------------ result

    def axes(self) -> Axes:
        """Return the groups on the axes of the net's tensors."""
        names: dict[int, str] = {}
        roots = {
            name: tuple(self._sliced(label) for label in self.of(tensor))
            for name, tensor in self.state.items()
        }
        for axis in (0, 1):  # a group is called after what makes it: outputs come first
            for name, labels in roots.items():
                if len(labels) > axis and (root := labels[axis]) is not None and root not in names:
                    maker = name.rpartition(".")[0]
                    names[root] = name if maker in names.values() else maker
        return {
            name: tuple(None if root is None else names[root] for root in labels)
            for name, labels in roots.items()
        }

    def _sliced(self, label: Label) -> Label:
        if label is None or self.sets.fixed[root := self.sets.root(label)]:
            return None
        return root


class _Places:
    """Keeps the stack of modules at work while a net runs."""

    def __init__(self, net: nn.Module, here: list[str]) -> None:
        self._net, self._here = net, here
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for name, module in self._net.named_modules():
            self._hooks.append(module.register_forward_pre_hook(self._enter(name)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave()))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._here.append(name)

    def _leave(self) -> None:
        self._here.pop()

"""A host network and the slim networks that live inside it.

The slim pass is the plain stock module at slim width, called functionally with slices of the
host's parameters and BatchNorms of its own (switchable BatchNorm, arXiv:1812.08928), so that
it costs what the slim net costs and extraction is a copy.

Shapes: B batch, F pooled features of the host, f of the slim net.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.slimming.plan import ChannelPlan

Norms = Literal["switch", "shared"]
HOST = "host"  # name of the host among the widths
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Slim:
    """One slim net: its structure, its channels, its BatchNorms; the weights are the host's.

    Attributes:
        plan: Which channels of the host it keeps. A dense plan keeps all: it is the host.
        template: Its stock module without weights, on the meta device; hooks on it see passes.
        norms: Its BatchNorms by module path, slashes for dots; empty for a dense plan.
        sliced_names: Parameters that are slices of the host's.
    """

    def __init__(self, module: nn.Module, plan: ChannelPlan, bn: Norms) -> None:
        self.plan = plan
        self.template = copy.deepcopy(module).to("meta")
        self.norms = nn.ModuleDict()
        if not plan.is_dense:
            for name, layer in module.named_modules():
                if isinstance(layer, NORMS):
                    self.norms[_as_key(name)] = _own_norm(layer, bn)
        own = {f"{key}.{part}" for key, part in _pairs(self.norms)}
        self.sliced_names = tuple(
            name
            for name, _ in self.template.named_parameters()
            if f"{_as_key(name.rpartition('.')[0])}.{name.rpartition('.')[2]}" not in own
        )


class Sliced(nn.Module):
    """One set of weights, several widths: the host and the slim nets inside it.

    Args:
        host: The stock module at host width; its parameters are the shared weights.
        slims: Name of each slim net, for example ``1x``, to its stock module (only structure
            and BatchNorms are used) and the channels of the host that it keeps, widest first.
        bn: ``switch``: every slim net has BatchNorms of its own. ``shared``: it uses slices of
            the host's affine parameters, with running statistics of its own.

    A slim net with a dense plan (its width is the host's) is the host module itself.

    State dict: ``host.<stock name>`` and, for the BatchNorms of the slim nets,
    ``norms.<slim name>.<stock name>`` with the dots of both names written as slashes.
    """

    def __init__(
        self,
        host: nn.Module,
        slims: Mapping[str, tuple[nn.Module, ChannelPlan]],
        *,
        bn: Norms = "switch",
    ) -> None:
        super().__init__()
        self.host = host
        self.bn: Norms = bn
        # In a dict of plain objects: a meta module as a submodule would break .to() and state_dict.
        self.slims = {label: Slim(module, plan, bn) for label, (module, plan) in slims.items()}
        self.norms = nn.ModuleDict({_as_key(n): slim.norms for n, slim in self.slims.items()})

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the slim nets, widest first."""
        return tuple(self.slims)

    @property
    def is_dense(self) -> bool:
        """Whether nothing is sliced: the only slim net is the host."""
        return all(slim.plan.is_dense for slim in self.slims.values())

    def is_host(self, width: str) -> bool:
        """Whether a width is the host itself: ``host``, or a slim net that keeps everything."""
        return width == HOST or self.slims[width].plan.is_dense

    def train(self, mode: bool = True) -> Sliced:
        """Set training mode on the host, the BatchNorms of the slim nets and the templates."""
        super().train(mode)
        for slim in self.slims.values():
            slim.template.train(mode)
        return self

    def forward(self, x: Tensor, *, width: str, frozen: bool = False) -> Tensor:
        """Run one width.

        Args:
            x: Input of the stock module.
            width: ``host`` or the name of a slim net.
            frozen: Leave the running statistics alone: the pass gets scratch buffers. In
                training mode BatchNorm then still uses batch statistics. Gradients are the
                caller's business (``torch.no_grad``).

        Returns:
            Output of the stock module, F (host) or f (slim) wide.
        """
        if self.is_host(width):
            if not frozen:
                return self.host(x)
            return functional_call(self.host, _scratch(dict(self.host.named_buffers())), (x,))
        template, tensors = self.slims[width].template, self.tensors(width)
        if frozen:
            tensors |= _scratch({n: tensors[n] for n, _ in template.named_buffers()})
        return functional_call(template, tensors, (x,))

    def tensors(self, label: str) -> dict[str, Tensor]:
        """Return every tensor of a slim net by stock name: slices of the host, own norms.

        BatchNorm buffers are the live ones, so that a functional call updates them in place.
        """
        slim = self.slims[label]
        if slim.plan.is_dense:
            return {**dict(self.host.named_parameters()), **dict(self.host.named_buffers())}
        tensors = {n: slim.plan.take(n, self.host.get_parameter(n)) for n in slim.sliced_names}
        for key, norm in slim.norms.items():
            name = key.replace("/", ".")
            tensors |= {f"{name}.{part}": t for part, t in norm.named_parameters()}
            tensors |= {f"{name}.{part}": t for part, t in norm.named_buffers()}
        return tensors

    @torch.no_grad()
    def write_back(self, label: str, slim_state: Mapping[str, Tensor]) -> None:
        """Put the tensors of a plain slim net back into their place in the host.

        What lies outside the slice stays untouched. Names that the host lacks (a head) are
        left out.
        """
        slim = self.slims[label]
        targets = self.host.state_dict() if slim.plan.is_dense else {}
        for name, tensor in slim_state.items():
            module, _, part = name.rpartition(".")
            key = _as_key(module)
            if slim.plan.is_dense and name in targets:
                targets[name].copy_(tensor)
            elif name in slim.sliced_names:
                slim.plan.put(name, self.host.get_parameter(name), tensor)
            elif key in slim.norms:
                getattr(slim.norms[key], part).copy_(tensor)


def _as_key(name: str) -> str:
    return name.replace(".", "/")  # a ModuleDict takes no dots


def _own_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, bn: Norms) -> nn.Module:
    if bn == "switch":
        return copy.deepcopy(layer)
    return type(layer)(layer.num_features, layer.eps, layer.momentum, affine=False)


def _pairs(norms: nn.ModuleDict) -> Iterator[tuple[str, str]]:
    for key, norm in norms.items():
        for part in norm.state_dict():
            yield key, part


def _scratch(buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in buffers.items()}


@torch.no_grad()
def recalibrate_plain(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Re-estimate the running statistics of a plain net as averages over ``batches``, in place.

    Args:
        network: Its statistics are reset and re-estimated; weights and mode stay.
        batches: Prepared inputs, each (B, C, H, W).
    """
    norms = [layer for layer in network.modules() if isinstance(layer, NORMS)]
    momenta, was_training = [layer.momentum for layer in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    network.train()
    for batch in batches:
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)


@torch.no_grad()
def recalibrate(net: Sliced, width: str, batches: Iterable[Tensor]) -> None:
    """Re-estimate the running statistics of one width as plain averages over ``batches``.

    Args:
        net: Its statistics are reset and re-estimated; weights stay.
        width: ``host`` or the name of a slim net: which set of BatchNorms.
        batches: Prepared inputs, each (B, C, H, W).
    """
    if net.is_host(width):
        norms = [layer for layer in net.host.modules() if isinstance(layer, NORMS)]
        template_norms: list[nn.Module] = []
    else:
        slim = net.slims[width]
        norms = [layer for layer in slim.norms.values() if isinstance(layer, NORMS)]
        template_norms = [m for m in slim.template.modules() if isinstance(m, NORMS)]
    touched = [*norms, *template_norms]
    momenta = [layer.momentum for layer in touched]
    was_training = net.training
    for norm in norms:
        norm.reset_running_stats()
    for layer in touched:
        layer.momentum = None  # cumulative average
    net.train()
    for batch in batches:
        net(batch, width=width)
    for layer, momentum in zip(touched, momenta, strict=True):
        layer.momentum = momentum
    net.train(was_training)

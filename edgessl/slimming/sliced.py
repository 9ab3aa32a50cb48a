"""A host network and the slim network that lives inside it.

The slim pass is the plain stock module at slim width, called functionally with slices of the
host's parameters and BatchNorms of its own (switchable BatchNorm, arXiv:1812.08928), so that
it costs what the slim net costs and extraction is a copy.

Shapes: B batch, F pooled features of the host, f of the slim net.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.slimming.plan import ChannelPlan

Width = Literal["host", "slim"]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Sliced(nn.Module):
    """One set of weights, two widths.

    Args:
        host: The stock module at host width; its parameters are the shared weights.
        slim: The stock module at slim width; only its structure and its BatchNorms are used.
        plan: Which channels of the host the slim net keeps.

    With a dense plan (host and slim width equal) both widths are the host module itself.

    State dict: ``host.<stock name>`` and, for the slim BatchNorms, ``norms.<stock name>`` with
    the dots of the module path written as slashes.
    """

    def __init__(self, host: nn.Module, slim: nn.Module, plan: ChannelPlan) -> None:
        super().__init__()
        self.host = host
        self.plan = plan
        template = copy.deepcopy(slim).to("meta")
        # In a tuple so that it is no submodule: a meta module would break .to() and state_dict.
        self._template = (template,)
        self.norms = nn.ModuleDict()
        if not plan.is_dense:
            for name, layer in slim.named_modules():
                if isinstance(layer, NORMS):
                    self.norms[name.replace(".", "/")] = copy.deepcopy(layer)
        self._sliced_names = tuple(
            name
            for name, _ in template.named_parameters()
            if name.rpartition(".")[0].replace(".", "/") not in self.norms
        )

    @property
    def template(self) -> nn.Module:
        """The slim module without weights (on the meta device); hooks on it see slim passes."""
        return self._template[0]

    def train(self, mode: bool = True) -> Sliced:
        """Set training mode on the host, the slim BatchNorms and the template."""
        super().train(mode)
        self.template.train(mode)
        return self

    def forward(self, x: Tensor, *, width: Width, frozen: bool = False) -> Tensor:
        """Run one width.

        Args:
            x: Input of the stock module.
            width: Which net to run.
            frozen: Leave the running statistics alone: the pass gets scratch buffers. In
                training mode BatchNorm then still uses batch statistics. Gradients are the
                caller's business (``torch.no_grad``).

        Returns:
            Output of the stock module, F or f wide.
        """
        if width == "host" or self.plan.is_dense:
            if not frozen:
                return self.host(x)
            return functional_call(self.host, _scratch(dict(self.host.named_buffers())), (x,))
        tensors = self.slim_tensors()
        if frozen:
            tensors |= _scratch({n: tensors[n] for n, _ in self.template.named_buffers()})
        return functional_call(self.template, tensors, (x,))

    def slim_tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the slim net by stock name: slices of the host, own norms.

        BatchNorm buffers are the live ones, so that a functional call updates them in place.
        """
        if self.plan.is_dense:
            return {**dict(self.host.named_parameters()), **dict(self.host.named_buffers())}
        tensors = {n: self.plan.take(n, self.host.get_parameter(n)) for n in self._sliced_names}
        for key, norm in self.norms.items():
            name = key.replace("/", ".")
            tensors |= {f"{name}.{part}": t for part, t in norm.named_parameters()}
            tensors |= {f"{name}.{part}": t for part, t in norm.named_buffers()}
        return tensors

    @torch.no_grad()
    def write_back(self, slim_state: dict[str, Tensor]) -> None:
        """Put the tensors of a plain slim net back into their place in the host.

        What lies outside the slice stays untouched. Names that the host lacks (a head) are
        left out.
        """
        targets = self.host.state_dict() if self.plan.is_dense else {}
        for name, tensor in slim_state.items():
            module, _, part = name.rpartition(".")
            key = module.replace(".", "/")
            if key in self.norms:
                getattr(self.norms[key], part).copy_(tensor)
            elif self.plan.is_dense and name in targets:
                targets[name].copy_(tensor)
            elif name in self._sliced_names:
                self.plan.put(name, self.host.get_parameter(name), tensor)


def _scratch(buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in buffers.items()}


@torch.no_grad()
def recalibrate(net: Sliced, width: Width, batches: Iterable[Tensor]) -> None:
    """Re-estimate the running statistics of one width as plain averages over ``batches``.

    Args:
        net: Its statistics are reset and re-estimated; weights stay.
        width: Which set of BatchNorms.
        batches: Prepared inputs, each (B, C, H, W).
    """
    if width == "host" or net.plan.is_dense:
        norms = [layer for layer in net.host.modules() if isinstance(layer, NORMS)]
        template_norms: list[nn.Module] = []
    else:
        norms = [layer for layer in net.norms.values() if isinstance(layer, NORMS)]
        template_norms = [m for m in net.template.modules() if isinstance(m, NORMS)]
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

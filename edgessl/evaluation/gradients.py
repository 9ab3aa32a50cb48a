"""Whether the parts of a loss pull the shared weights the same way.

Nets that share weights disturb each other while they train without labels: gradients differ in
size, and their directions diverge (SlimCLR, arXiv:2209.15525). Two splits show it, both on the
encoder weights that the widest slim net shares with its host (all of them in a dense net):

- **Passes.** The host's passes and those of a slim net read the same weights. With a copy of the
  weights for either, total(theta_host, theta_slim) has two gradients, whose sum is what the
  optimiser gets on the weights of that slim net.
- **Terms.** A method returns the terms of its loss beside ``total``; each counts with the weight
  that it has in the total, d total / d term.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from edgessl.methods.base import Method
from edgessl.slimming.sliced import HOST, Sliced

Gradient = list[Tensor]  # one entry for each weight


@dataclass(frozen=True, slots=True)
class Against:
    """One gradient against another, on the same weights.

    Attributes:
        cosine: In [-1, 1]: 1 where they pull the same way, below 0 where they undo each other.
        ratio: Norm of the first, divided by that of the second.
    """

    cosine: float
    ratio: float


def gradients_against(
    method: Method, terms_of: Callable[[Method], Mapping[str, Tensor]]
) -> dict[str, Against]:
    """Compare gradients between passes (``host / 1x``) and between terms (``sacl / xd``).

    Everything happens to a copy: weights, ``.grad``, buffers and random generators of ``method``
    stay as they are.

    Args:
        method: What trains.
        terms_of: Makes the named terms of one step with the copy, as training does. Terms that
            ``total`` does not depend on are left out.

    Returns:
        By pair; without those of which a gradient is 0 or not finite. Empty for a dense net with
        a single term.
    """
    copied = copy.deepcopy(method)
    with torch.random.fork_rng(), torch.enable_grad():
        weights = _Weights(copied.encoder)
        terms = terms_of(copied)
        total = terms["total"]
        named = [name for name, term in terms.items() if name != "total" and term.requires_grad]
        counts = _gradients(total, [terms[name] for name in named])
        counted = [(n, count) for n, count in zip(named, counts, strict=True) if count is not None]
        pairs = list(weights.of_passes(total)) if weights.slims else []
        if len(counted) > 1:
            rows = {name: weights.of_term(terms[name], count) for name, count in counted}
            pairs += [(a, b, rows[a], rows[b]) for a, b in combinations(rows, 2)]
    against = {f"{a} / {b}": _against(first, second) for a, b, first, second in pairs}
    return {pair: found for pair, found in against.items() if found is not None}


class _Weights:
    """The weights of a sliced net, of which every slim net reads a copy of its own.

    Args:
        sliced: Changed in place: its slim passes read the copies.
    """

    def __init__(self, sliced: Sliced) -> None:
        self.sliced = sliced
        self.host = {n: p for n, p in sliced.host.named_parameters() if p.requires_grad}
        self.slims = {
            label: {
                name: slim.plan.take(name, self.host[name]).detach().clone().requires_grad_()
                for name in slim.sliced_names
                if name in self.host
            }
            for label, slim in sliced.slims.items()
            if not slim.plan.is_dense
        }
        slices = sliced.tensors

        def tensors(label: str) -> dict[str, Tensor]:
            return slices(label) | self.slims.get(label, {})

        sliced.tensors = tensors

    def of_passes(self, total: Tensor) -> Iterator[tuple[str, str, Gradient, Gradient]]:
        """Yield two names and the gradients of the host's passes and of each slim net's."""
        host, slims = self._split(total, None)
        for label, slim in slims.items():
            plan = self.sliced.slims[label].plan
            yield HOST, label, [plan.take(n, host[n]) for n in slim], list(slim.values())

    def of_term(self, term: Tensor, count: Tensor) -> Gradient:
        """Return the gradient on what the widest slim net reads, over all passes."""
        whole, slims = self._split(term, count)
        for label, slim in slims.items():
            plan = self.sliced.slims[label].plan
            for name, gradient in slim.items():
                placed = torch.zeros_like(whole[name])
                plan.put(name, placed, gradient)
                whole[name] = whole[name] + placed
        widest = self.sliced.slims[self.sliced.labels[0]]
        return [widest.plan.take(n, whole[n]) for n in widest.sliced_names if n in whole]

    def _split(
        self, of: Tensor, count: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Return gradients on the host's own weights and on the copies; 0 where there is none."""
        leaves = [*self.host.values(), *(p for slim in self.slims.values() for p in slim.values())]
        found = iter(
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, _gradients(of, leaves, count), strict=True)
        )
        host = {name: next(found) for name in self.host}
        return host, {s: {name: next(found) for name in own} for s, own in self.slims.items()}


def _gradients(
    of: Tensor, to: Sequence[Tensor], count: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    if not to:
        return ()
    return torch.autograd.grad(of, to, count, retain_graph=True, allow_unused=True)


def _against(first: Gradient, second: Gradient) -> Against | None:
    norms = math.sqrt(_product(first, first)), math.sqrt(_product(second, second))
    if not all(math.isfinite(norm) and norm > 0 for norm in norms):
        return None
    return Against(_product(first, second) / (norms[0] * norms[1]), norms[0] / norms[1])


def _product(first: Gradient, second: Gradient) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(first, second, strict=True))

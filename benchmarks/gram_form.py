"""The Barlow loss from two N x N Gram matrices beside the D x D correlation matrix it avoids.

Both give the same number (see ``edgessl.losses.barlow``). A pair is one forward and backward pass
of the loss on the same embeddings in either form, in turn, so that a busy machine slows both.

    python benchmarks/gram_form.py [--pairs 60] [--save]

Prints one JSON document: for each number of images N and of dimensions D the medians in
milliseconds, the median of the paired ratios D x D / N x N with a 95 % interval, and by how much
losses and gradients differ from each other, and gradients from those in float64; ``--save`` also
writes it to benchmarks/results/gram_form.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from paired import conditions, in_turn, ratio, write
from torch import Tensor

from edgessl.losses.barlow import Codes, barlow_loss, standardise

Form = Callable[[Tensor, Tensor], Tensor]
LAM, SCALE = 0.0051, 0.1
SIZES = ((128, 512), (128, 2048), (256, 2048), (128, 4096))
TARGET = {"N": 128, "D": 2048, "least_ratio": 3.0, "largest_difference": 1e-6}


def small(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """The loss as the package computes it for N < D."""
    return barlow_loss(Codes(a_ND), Codes(b_ND), lam=LAM, scale_loss=SCALE)


def large(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """The loss as the paper writes it: through the D x D matrix."""
    c_DD = standardise(a_ND).T @ standardise(b_ND) / len(a_ND)
    diagonal_D = c_DD.diagonal()
    off_diagonal = c_DD.square().sum() - diagonal_D.square().sum()
    return SCALE * ((1 - diagonal_D).square().sum() + LAM * off_diagonal)


def measure(n: int, d: int, pairs: int) -> dict[str, Any]:
    """Time both forms on one pair of embeddings."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(n, d, generator=generator).requires_grad_()
    b = (a.detach() + torch.randn(n, d, generator=generator)).requires_grad_()

    def step(form: Form) -> Callable[[], None]:
        return lambda: form(a, b).backward(inputs=[a, b])

    found = {form: gradients(form, a, b) for form in (large, small)}
    true = gradients(large, a.detach().double(), b.detach().double())
    times = in_turn({"d_by_d": step(large), "n_by_n": step(small)}, pairs)
    return {
        "N": n,
        "D": d,
        **ratio(times, "d_by_d", "n_by_n"),
        "loss_difference": apart(found[small][:1], found[large][:1]),
        "gradient_difference": apart(found[small][1:], found[large][1:]),
        "gradient_error_d_by_d": apart(found[large][1:], true[1:]),
        "gradient_error_n_by_n": apart(found[small][1:], true[1:]),
    }


def gradients(form: Form, a_ND: Tensor, b_ND: Tensor) -> tuple[Tensor, ...]:
    """Return the loss and its gradients."""
    a_ND, b_ND = (z.detach().requires_grad_() for z in (a_ND, b_ND))
    loss = form(a_ND, b_ND)
    return loss.detach(), *torch.autograd.grad(loss, (a_ND, b_ND))


def apart(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """Return the largest difference, relative to the largest entry of the same tensor."""
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)
    )


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--save", action="store_true", help="write the result file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    body = conditions() | {"pairs": options.pairs, "target": TARGET}
    body["rows"] = [measure(n, d, options.pairs) for n, d in SIZES]
    write("gram_form", body, save=options.save)


if __name__ == "__main__":
    main()

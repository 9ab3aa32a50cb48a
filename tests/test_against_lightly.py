"""Our losses and those of lightly (MIT): same tensors in, same loss and gradients out (float64).

What differs by convention is said where it is evened out.
"""

import pytest
import torch

from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.losses.contrastive import info_nce, nt_xent, unit
from edgessl.losses.distillation import embedding_distance
from edgessl.methods.queue import Queue

lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed (extra: dev)")


def normal(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=generator).requires_grad_()


def assert_same(ours, theirs, *inputs):
    """Compare two losses and their gradients with respect to ``inputs``."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    largest = []
    for mine, other in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)
        largest.append(float(mine.abs().max()))
    assert min(largest) > 1e-6  # not equal for being nothing


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (9, 16), (16, 9)])
def test_nt_xent(n, d, temperature):
    a, b = normal(n, d, 1), normal(n, d, 2)
    theirs = lightly.NTXentLoss(temperature=temperature)(a, b)
    assert_same(nt_xent(a, b, temperature=temperature), theirs, a, b)


@pytest.mark.parametrize("temperature", [0.07, 0.2])
@pytest.mark.parametrize(("n", "d", "size"), [(4, 8, 12), (8, 3, 8)])
def test_info_nce_and_the_queue(n, d, size, temperature):
    """Lightly gives a gradient to keys too; here a key encoder has none, so keys are detached.

    Its bank starts anew at the end and drops what is left of a batch, ours wraps around: sizes
    here are multiples of the batch.
    """
    queue = Queue(size, d, seed=3).double()
    loss = lightly.NTXentLoss(temperature=temperature, memory_bank_size=(size, d))
    loss.memory_bank.bank = queue.keys_KD.clone()
    for step in range(3):
        query, key = normal(n, d, 10 + step), normal(n, d, 20 + step).detach()
        ours = info_nce(unit(query), unit(key), queue.keys_KD.clone(), temperature)
        assert_same(ours, loss(query, key), query)
        queue.push(unit(key))
        assert torch.equal(queue.keys_KD, loss.memory_bank.bank)
        assert int(queue.pointer) == int(loss.memory_bank.bank_ptr) % size


@pytest.mark.parametrize(("n", "d"), [(3, 7), (16, 5), (6, 6)])  # Gram form where n < d
def test_barlow(n, d):
    """Both standardise with the biased variance and eps 1e-5; lightly has no ``scale_loss``."""
    a, b = normal(n, d, 1), normal(n, d, 2)
    ours = barlow_loss(Codes(a), Codes(b), lam=0.0051, scale_loss=0.1)
    assert_same(ours, 0.1 * lightly.BarlowTwinsLoss(lambda_param=0.0051)(a, b), a, b)


def test_byol():
    """Lightly gives -cos for one direction and leaves stopping the gradient to the caller."""
    p, z = normal(7, 12, 1), normal(7, 12, 2)
    theirs = 2 + 2 * lightly.NegativeCosineSimilarity()(p, z.detach())
    assert_same(embedding_distance(p, z, "batchmean"), theirs, p)

"""The Barlow loss against the paper's double sum and hand-computed values (float64)."""

import forked
import pytest
import several_processes
import torch
from scipy.linalg import hadamard
from torch.nn import functional as F

from edgessl.losses.barlow import EPS, Codes, barlow_loss

torch.manual_seed(0)
LAM, SCALE = 0.0051, 0.1


def loss(u, v, lam=LAM, scale=SCALE):
    return barlow_loss(Codes(u), Codes(v), lam=lam, scale_loss=scale)


def by_the_paper(u, v, lam=LAM, scale=SCALE):
    """Equation 1 as the double sum it is."""
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + EPS).sqrt() for z in (u, v))
    total = torch.zeros((), dtype=u.dtype)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            c = (a[:, i] * b[:, j]).mean()
            total = total + ((1 - c) ** 2 if i == j else lam * c**2)
    return scale * total


def normal(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def orthogonal():
    """64 x 32: zero-mean, orthogonal columns of a Hadamard matrix."""
    return torch.tensor(hadamard(64)[:, 1:33].astype(float))


@pytest.mark.parametrize(("n", "d"), [(2, 3), (5, 9), (16, 8), (9, 9)])  # Gram form where n < d
def test_value_and_gradients_match_the_double_sum(n, d):
    u, v = normal(n, d, 1).requires_grad_(), normal(n, d, 2).requires_grad_()
    ours, paper = loss(u, v), by_the_paper(u, v)
    torch.testing.assert_close(ours, paper, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (u, v)), torch.autograd.grad(paper, (u, v)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_the_gram_form_equals_the_correlation_form():
    u, v = normal(128, 2048, 3), normal(128, 2048, 4)
    a, b = Codes(u), Codes(v)
    c = a.standard_ND.T @ b.standard_ND / 128
    dense = SCALE * (
        (1 - c.diagonal()).square().sum() + LAM * (c - c.diagonal().diag()).square().sum()
    )
    torch.testing.assert_close(loss(u, v), dense, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss(u.float(), v.float()), dense.float(), rtol=1e-6, atol=0)


def test_standardising_is_batchnorm_without_affine():
    z = normal(32, 7)
    expected = F.batch_norm(z, None, None, training=True, eps=EPS)
    torch.testing.assert_close(Codes(z).standard_ND, expected, rtol=1e-12, atol=1e-12)


def test_equal_orthogonal_columns_cost_only_eps(orthogonal):
    assert float(loss(orthogonal, orthogonal)) == pytest.approx(
        SCALE * 32 * (EPS / (1 + EPS)) ** 2, rel=1e-6
    )


def test_opposite_columns_cost_four_each(orthogonal):
    assert float(loss(orthogonal, -orthogonal)) == pytest.approx(4 * SCALE * 32, rel=2e-5)


def test_independent_columns_have_the_expected_cost():
    value = float(loss(normal(4096, 64, 5), normal(4096, 64, 6), lam=LAM, scale=1.0))
    assert value == pytest.approx(64 + (64 + LAM * 64 * 63) / 4095, abs=1.0)


def test_equal_columns_pay_for_every_pair():
    column = normal(256, 1)
    z = column.expand(-1, 64)
    assert float(loss(z, z, scale=1.0)) == pytest.approx(LAM * 64 * 63, rel=1e-4)


def test_a_constant_column_adds_one_and_no_nan(orthogonal):
    z = torch.cat([orthogonal, torch.full((64, 1), 3.0, dtype=torch.float64)], 1)
    z.requires_grad_()
    value = loss(z, z)
    assert float(value.detach()) == pytest.approx(
        float(loss(orthogonal, orthogonal)) + SCALE, abs=1e-9
    )
    assert torch.autograd.grad(value, z)[0].isfinite().all()


def test_invariances_and_symmetry():
    u, v = normal(64, 8, 7), normal(64, 8, 8)
    scale, shift = torch.rand(8, dtype=torch.float64) + 0.5, normal(1, 8, 9)
    base = loss(u, v)
    torch.testing.assert_close(loss(u * scale + shift, v), base, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(v, u), base, rtol=1e-12, atol=0)
    order = torch.randperm(64)
    torch.testing.assert_close(loss(u[order], v[order]), base, rtol=1e-12, atol=0)
    assert abs(float(loss(u[order], v) - base)) > 1e-3


@pytest.mark.parametrize(("n", "d"), [(8, 4), (4, 8)])
def test_stop_gradient_halves_the_auto_term(n, d):
    """The matrix of correlations of z with itself is symmetric, so each branch gives half."""
    z = normal(n, d, 10).requires_grad_()
    full = torch.autograd.grad(loss(z, z), z)[0]
    codes = Codes(z)
    half = torch.autograd.grad(barlow_loss(codes, codes.detach(), lam=LAM, scale_loss=SCALE), z)[0]
    torch.testing.assert_close(half, full / 2, rtol=1e-9, atol=1e-14)


def test_shapes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="N >= 2"):
        Codes(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        loss(normal(4, 3), normal(4, 2))


def in_processes(folder, weight, views, *, sync):
    """Loss and mean gradient of two processes with half of the rows each; a list by process."""
    halves = list(zip(*(view.chunk(2) for view in views), strict=True))
    parts = {"weight": weight.tolist(), "rows": [[v.tolist() for v in half] for half in halves]}
    answers = forked.CONTEXT.Queue()
    started = [
        forked.start(several_processes.one_process, rank, str(folder / "store"), parts, sync,
                     answers)
        for rank in (0, 1)
    ]  # fmt: skip
    found = [answers.get(timeout=120) for _ in started]
    for process in started:
        process.join(60)
    return [(loss, torch.tensor(gradient, dtype=torch.float64)) for _, loss, gradient in found]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "dim"), [(12, 5), (6, 20)])  # the second in the Gram form
def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path, rows, dim):
    weight, views = normal(7, dim, 11), [normal(rows, 7, 12), normal(rows, 7, 13)]
    whole = weight.clone().requires_grad_()
    loss_of_all = several_processes.shared_loss(whole, views, sync=True)
    loss_of_all.backward()
    for value, gradient in in_processes(tmp_path, weight, views, sync=True):
        assert value == pytest.approx(float(loss_of_all.detach()), rel=1e-12)
        torch.testing.assert_close(gradient, whole.grad, rtol=1e-11, atol=1e-13)
    # on its own statistics each half is another objective
    apart = weight.clone().requires_grad_()
    halves = zip(*(view.chunk(2) for view in views), strict=True)
    mean = sum(several_processes.shared_loss(apart, half, sync=False) for half in halves) / 2
    mean.backward()
    (tmp_path / "store").unlink(missing_ok=True)
    for _, gradient in in_processes(tmp_path, weight, views, sync=False):
        torch.testing.assert_close(gradient, apart.grad, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(apart.grad, whole.grad, rtol=1e-2)

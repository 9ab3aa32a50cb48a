"""LARS: how a loss scale acts, and what the clip bounds (float64)."""

import pytest
import torch
from torch import nn

from edgessl.training.optimizers import LARS, LarsSettings, make_optimizer


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((5, 4), (3, 2, 3, 3), (7,))
    ]


def step(params, optimizer, scale):
    generator = torch.Generator().manual_seed(1)
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = scale * torch.randn(p.shape, dtype=p.dtype, generator=generator)
    optimizer.step()
    return [p.detach() - b for p, b in zip(params, before, strict=True)]


@pytest.mark.parametrize("flavour", ["solo", "official"])
def test_a_loss_scale_leaves_matrices_alone_and_scales_vectors(flavour):
    updates = []
    for scale in (1.0, 7.0):
        params = parameters()
        optimizer = LARS(params, lr=0.1, clip=False, weight_decay=0.0, flavour=flavour)
        updates.append(step(params, optimizer, scale))
    for one, seven in zip(updates[0][:2], updates[1][:2], strict=True):
        torch.testing.assert_close(one, seven, rtol=1e-6, atol=0)
    torch.testing.assert_close(7 * updates[0][2], updates[1][2])


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_with_clip_a_step_never_exceeds_plain_sgd(scale):
    params, plain = parameters(), parameters()
    ours = step(params, LARS(params, lr=0.3, weight_decay=1e-4, eta=0.02, clip=True), scale)
    sgd = torch.optim.SGD(plain, lr=0.3, weight_decay=1e-4)
    theirs = step(plain, sgd, scale)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert float(mine.norm()) <= float(other.norm()) * (1 + 1e-9)


def test_the_solo_update_by_hand():
    p = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    LARS([p], lr=0.5, weight_decay=0.1, eta=0.02, clip=False).step()
    trust = 0.02 * 5 / (1 + 0.1 * 5 + 1e-8)
    expected = torch.tensor([[3.0, 4.0]], dtype=torch.float64) - 0.5 * trust * torch.tensor(
        [[0.6 + 0.3, 0.8 + 0.4]], dtype=torch.float64
    )
    torch.testing.assert_close(p.detach(), expected)


def test_the_official_update_by_hand():
    p = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([[0.7, -0.9]], dtype=torch.float64)
    LARS([p], lr=0.5, weight_decay=0.1, eta=0.001, flavour="official").step()  # clip: no effect
    trust = 0.001 * 5 / (1.0**2 + (-0.5) ** 2) ** 0.5  # |g + wd p| of (0.7 + 0.3, -0.9 + 0.4)
    expected = torch.tensor([[3.0, 4.0]], dtype=torch.float64) - 0.5 * trust * torch.tensor(
        [[1.0, -0.5]], dtype=torch.float64
    )
    torch.testing.assert_close(p.detach(), expected)


def test_the_flavours_agree_without_decay_and_differ_with_it():
    for decay, equal in ((0.0, True), (0.1, False)):
        made = {}
        for flavour in ("solo", "official"):
            params = parameters()
            optimizer = LARS(params, lr=0.1, clip=False, weight_decay=decay, flavour=flavour)
            made[flavour] = step(params, optimizer, 1.0)
        for solo, official in zip(made["solo"][:2], made["official"][:2], strict=True):
            assert torch.allclose(solo, official, rtol=1e-6, atol=0) == equal


def test_settings_reach_lars():
    module = nn.Linear(3, 3)
    settings = LarsSettings("official", 0.001, False, 0.5, exclude_vectors=False, bias_lr_mult=0.5)
    made = make_optimizer(module, "lars", lr=0.1, weight_decay=0.5, lars=settings)
    assert isinstance(made, LARS)
    assert made.flavour == "official"
    for group in made.param_groups:
        assert (group["eta"], group["clip"], group["momentum"]) == (0.001, False, 0.5)
        assert group["weight_decay"] == 0.5
    assert not made.exclude_vectors
    assert [group["lr"] for group in made.param_groups] == [0.1, 0.05]


@pytest.mark.parametrize("flavour", ["solo", "official"])
def test_without_the_exclusion_vectors_are_treated_as_matrices(flavour):
    """A vector (7,) gets the update of the matrix (7, 1) that holds the same numbers."""
    generator = torch.Generator().manual_seed(3)
    values, slope = torch.randn(2, 7, dtype=torch.float64, generator=generator)
    updates = []
    for shape, exclude in (((7,), False), ((7, 1), True), ((7,), True)):
        p = values.clone().reshape(shape).requires_grad_()
        p.grad = slope.reshape(shape)
        LARS([p], lr=0.1, weight_decay=0.2, flavour=flavour, exclude_vectors=exclude).step()
        updates.append(p.detach().flatten() - values)
    assert torch.equal(updates[0], updates[1])
    torch.testing.assert_close(updates[2], -0.1 * slope)  # plain SGD, no decay
    assert not torch.allclose(updates[0], updates[2])


def test_a_smaller_rate_of_vectors_does_what_a_smaller_loss_does():
    """The official Barlow Twins' 0.2 and 0.0048 are solo-learn's scale_loss 0.024 (spec 1.1)."""
    updates = []
    for mult, scale in ((0.024, 1.0), (1.0, 0.024)):
        module = nn.ParameterList(parameters())
        settings = LarsSettings(flavour="official", eta=0.001, bias_lr_mult=mult)
        made = make_optimizer(module, "lars", lr=0.2, weight_decay=0.0, lars=settings)
        updates.append(step(list(module), made, scale))
    for one, other in zip(*updates, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


def test_momentum_accumulates_the_trusted_gradient():
    p = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    optimizer = LARS([p], lr=0.1, momentum=0.9)
    for _ in range(2):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert float(p.detach()) == pytest.approx(2 - 0.1 * (1 + 1.9))


@pytest.mark.parametrize("flavour", ["solo", "official"])
def test_zero_gradients_and_zero_weights_stay_finite(flavour):
    params = [torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)]
    params[0].grad, params[1].grad = torch.ones(2, 2), torch.zeros(2, 2)
    LARS(params, lr=0.1, weight_decay=0.1, flavour=flavour).step()
    assert torch.equal(params[0].detach(), torch.full((2, 2), -0.1))
    # solo-learn leaves a tensor without gradient alone, the official code decays it
    assert torch.equal(params[1].detach(), torch.ones(2, 2)) == (flavour == "solo")
    assert params[1].isfinite().all()


def test_a_gradient_that_the_decay_cancels_moves_nothing():
    p = torch.ones(2, 2, requires_grad=True)
    p.grad = -0.5 * torch.ones(2, 2)
    LARS([p], lr=0.1, weight_decay=0.5, flavour="official").step()
    assert torch.equal(p.detach(), torch.ones(2, 2))


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_vectors_are_not_decayed(name):
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(module, name, lr=0.1, weight_decay=0.5).param_groups
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(len(g["params"]) for g in groups) == len(list(module.parameters()))

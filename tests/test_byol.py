"""BYOL: its loss, what gets gradient, and how its target follows (float64)."""

import pytest
import torch

from edgessl.encoders import ENCODERS
from edgessl.losses.distillation import embedding_distance
from edgessl.methods.base import Parts, Schedule
from edgessl.methods.byol import Byol, Options
from edgessl.methods.momentum import rising_momentum
from edgessl.slimming.extract import NetSpec, build_sliced

SHORT = "mobilenet_v1_short"


def byol(**options):
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, 0.25, (0.25,), "small", "switch"), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    torch.manual_seed(2)
    chosen = Options(**{"projector": (12, 6), "predictor": 10} | options)
    return Byol(Parts(net, features), chosen).double().train()


def views():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(8, 3, 12, 12, dtype=torch.float64, generator=generator) for _ in "ab"]


@pytest.mark.parametrize(
    ("target", "expected"), [((3.0, 4.0), 0), ((-4.0, 3.0), 2), ((-6.0, -8.0), 4)]
)
def test_equal_orthogonal_and_opposite_directions(target, expected):
    p = torch.tensor([[6.0, 8.0], [0.3, 0.4]], dtype=torch.float64)
    z = torch.tensor(target, dtype=torch.float64).expand(2, 2)
    assert float(embedding_distance(p, z, "batchmean")) == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_two_minus_two_cosines_with_no_gradient_to_the_target():
    p, z = (torch.randn(5, 4, dtype=torch.float64).requires_grad_() for _ in "pz")
    loss = embedding_distance(p, z, "batchmean")
    by_cosine = (2 - 2 * torch.cosine_similarity(p, z.detach())).mean()
    torch.testing.assert_close(loss, by_cosine, rtol=1e-12, atol=0)
    ours, none = torch.autograd.grad(loss, (p, z), allow_unused=True)
    assert none is None
    torch.testing.assert_close(ours, torch.autograd.grad(by_cosine, p)[0], rtol=1e-10, atol=1e-14)


def test_both_directions_by_the_paper():
    """Each view's prediction against the other view's projection by the target."""
    method, (a, b) = byol(), views()
    with torch.no_grad():  # the target differs from the online net
        for p in method.target_projector.parameters():
            p.mul_(1.5).add_(0.01)
    p = [method.predictor(method.projector(method.encoder(x, width="host"))) for x in (a, b)]
    z = [method.target_projector(method.target_encoder(x, width="host")) for x in (a, b)]
    unit = [t / t.norm(dim=1, keepdim=True) for t in (*p, *z)]
    by_hand = sum(((unit[i] - unit[j]) ** 2).sum(1).mean() for i, j in ((0, 3), (1, 2)))
    torch.testing.assert_close(method([a, b])["total"], by_hand, rtol=1e-10, atol=0)
    torch.testing.assert_close(method([b, a])["total"], by_hand, rtol=1e-10, atol=0)


def test_the_online_net_learns_and_the_target_gets_no_gradient():
    method = byol()
    method(views())["total"].backward()
    for name, parameter in method.named_parameters():
        is_target = name.startswith("target_")
        assert parameter.requires_grad != is_target
        assert (parameter.grad is None) == is_target
    assert float(method.predictor[0].weight.grad.abs().max()) > 0


def test_the_momentum_rises_from_its_start_to_one():
    assert rising_momentum(0.99, 0.0) == 0.99
    assert rising_momentum(0.99, 1.0) == 1.0
    assert rising_momentum(0.9, 0.5) == pytest.approx(0.95)
    taus = [rising_momentum(0.9, k / 20) for k in range(21)]
    assert taus == sorted(taus)


@pytest.mark.parametrize(("step", "momentum"), [(1, 0.9), (6, 0.95), (11, 1.0)])
def test_the_target_follows_by_the_step_of_the_plan(step, momentum):
    """Step k + 1 of K moves the target with tau_k; after the last one it would stand still."""
    method = byol(momentum=0.9)
    method.begin(Schedule(10, 5, done=step - 1))
    with torch.no_grad():
        for p in method.projector.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.target_projector.parameters()]
    encoder = [p.clone() for p in method.target_encoder.parameters()]
    method.after_step(step)
    for target, b in zip(method.target_projector.parameters(), before, strict=True):
        torch.testing.assert_close(target, b + (1 - momentum), rtol=1e-12, atol=1e-12)
    for target, b in zip(method.target_encoder.parameters(), encoder, strict=True):
        torch.testing.assert_close(target, b, rtol=1e-12, atol=1e-15)

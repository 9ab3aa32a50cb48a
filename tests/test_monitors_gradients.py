"""Gradients of passes and of terms: against gradients taken apart by hand, on untouched nets."""

import pytest
import torch
from slim_methods import DENSE, SLIM, TWO, method, views
from torch import nn

from edgessl.evaluation.gradients import gradients_against
from edgessl.methods.base import codes
from edgessl.slimming.sliced import HOST


def step(made):
    return made(views())


def on_slice(made, loss, label):
    """The gradient of a loss on what a slim net reads of the encoder, as one row."""
    slim = made.encoder.slims[label]
    weights = {n: made.encoder.host.get_parameter(n) for n in slim.sliced_names}
    found = torch.autograd.grad(loss, list(weights.values()), retain_graph=True)
    pairs = zip(weights, found, strict=True)
    return torch.cat([slim.plan.take(name, gradient).flatten() for name, gradient in pairs])


def expect(found, first, second):
    assert found.cosine == pytest.approx(
        float(torch.cosine_similarity(first, second, dim=0)), abs=1e-9
    )
    assert found.ratio == pytest.approx(float(first.norm() / second.norm()), rel=1e-9)


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_host_and_slim_passes_pull_as_when_the_other_is_held_still(bn):
    made = method("sacl", TWO, bn)
    xa, xb = views()
    za = codes(made, xa, HOST)
    slims = made.encoder.labels
    zb = {s: codes(made, xb, s) for s in slims}
    distance = made.options.distance
    host_moves = sum(distance(za, z.detach()) for z in zb.values()) / 2
    found = gradients_against(made, step)
    assert list(found) == [f"host / {s}" for s in slims]
    for slim in slims:
        slim_moves = distance(za.detach(), zb[slim]) / 2
        expect(
            found[f"host / {slim}"], on_slice(made, host_moves, slim),
            on_slice(made, slim_moves, slim),
        )  # fmt: skip


@pytest.mark.parametrize("widths", [SLIM, TWO, DENSE], ids=["slim", "two", "dense"])
def test_terms_count_as_much_as_in_the_total(widths):
    made = method("sacl-xd", widths, alpha=0.8)
    found = gradients_against(made, step)
    terms, widest = step(made), made.encoder.labels[0]
    sacl, xd = (on_slice(made, terms[name], widest) for name in ("sacl", "xd"))
    expect(found["sacl / xd"], 0.8 * sacl, 0.2 * xd)
    slims = () if widths == DENSE else made.encoder.labels
    assert list(found) == [*(f"host / {s}" for s in slims), "sacl / xd"]


def test_one_net_with_one_term_has_nothing_to_compare():
    assert gradients_against(method("barlow", DENSE), step) == {}


class Terms(nn.Module):
    """A method with the terms that it is given, made from the features of two views."""

    def __init__(self, make):
        super().__init__()
        self.encoder, self.make = method("barlow", DENSE).encoder, make

    def forward(self, views):
        return self.make(*(self.encoder(x, width=HOST) for x in views))


def test_terms_that_undo_each_other_and_terms_that_do_not_count():
    def make(a, b):
        up, down = a.sum(), -2 * b.sum()
        still, aside = (0 * a).sum(), a.square().sum()
        total = 3 * up + 1.5 * down + still
        return {
            "up": up, "down": down, "still": still, "aside": aside, "logged": up.detach(),
            "total": total,
        }  # fmt: skip

    one = views()[0]
    found = gradients_against(Terms(make), lambda made: made([one, one]))
    assert list(found) == ["up / down"]
    assert found["up / down"].cosine == pytest.approx(-1)
    assert found["up / down"].ratio == pytest.approx(1)


def state(made):
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


@pytest.mark.parametrize("name", ["sacl-xd", "moco-v2"])
def test_nothing_of_the_method_changes(name):
    """Asked between two steps, when there are gradients and, for MoCo, new keys."""
    made = method(name, SLIM if name == "sacl-xd" else DENSE)
    optimizer = torch.optim.AdamW(made.parameters())
    for done in (1, 2):
        optimizer.zero_grad()
        step(made)["total"].backward()
        optimizer.step()
        made.after_step(done)
    before, random = state(made), torch.get_rng_state()
    gradients = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    total = step(made)["total"]  # moves running statistics: what is asked next must not
    made.load_state_dict(before)

    def drawing(copied):
        torch.rand(3)
        return step(copied)

    found = [gradients_against(made, drawing) for _ in range(2)]
    assert found[0] == found[1]
    assert all(torch.equal(tensor, before[n]) for n, tensor in made.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    for n, parameter in made.named_parameters():
        assert (parameter.grad is None) == (n not in gradients)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[n])
    assert torch.equal(step(made)["total"], total)

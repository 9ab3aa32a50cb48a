"""SACL+XD: which pass feeds which gradient, what "frozen" means, how often the encoder runs."""

from collections import Counter

import pytest
import torch

from edgessl.encoders import ENCODERS
from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.methods.base import Parts, codes
from edgessl.methods.sacl_xd import Options, SaclXd
from edgessl.slimming.extract import NetSpec, build_sliced

NAME = "mobilenet_v3_small"


def features_of(net, name=NAME):
    group = ENCODERS.load(name).feature_group(net.host)
    return {label: slim.plan.groups[group] for label, slim in net.slims.items()}


def method(host=1.5, *slims, alpha=0.95, name=NAME, bn="switch"):
    """A float64 method, in training mode."""
    spec = NetSpec(name, host, slims or (1.0,), "small", bn)
    net = build_sliced(ENCODERS.load(name), spec, seed=1)
    torch.manual_seed(2)
    options = Options(projector=(24, 16), alpha=alpha)
    return SaclXd(Parts(net, features_of(net, name)), options).double().train()


def views(n=8, side=16):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator) for _ in "ab"]


def distance(made, a, b):
    return made.options.distance(a, b)


def gradients(made, loss):
    parameters = dict(made.named_parameters())
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(parameters.items(), grads, strict=True)
    }


def assert_same(a, b, rtol=1e-9):
    largest = max(float(g.abs().max()) for g in b.values())
    for name in b:
        assert float((a[name] - b[name]).abs().max()) <= rtol * largest, name


def test_dense_reuse_equals_frozen_passes_bit_for_bit():
    made = method(1.0, 1.0)
    xa, _ = views()
    live = codes(made, xa, "host")
    with torch.no_grad():
        frozen = codes(made, xa, "1x", frozen=True)
    assert torch.equal(live.standard_ND, frozen.standard_ND)


def test_dense_loss_is_alpha_sacl_plus_decorrelation():
    made = method(1.0, 1.0, alpha=0.7)
    xa, xb = views()
    terms = made([xa, xb])
    za, zb = codes(made, xa, "host"), codes(made, xb, "host")
    xd = (distance(made, za, za.detach()) + distance(made, zb, zb.detach())) / 2
    torch.testing.assert_close(terms["xd"], xd)
    torch.testing.assert_close(terms["total"], 0.7 * distance(made, za, zb) + 0.3 * xd)


def test_whitened_codes_cost_no_cross_distillation():
    """C_ii is one and C_ij zero whatever the two views share."""
    z = torch.linalg.qr(torch.randn(64, 12, dtype=torch.float64) - 0.0)[0]
    z = z - z.mean(0)
    z = torch.linalg.qr(z)[0] * 8  # unit variance, zero mean up to rounding
    codes = Codes(z - z.mean(0))
    assert float(barlow_loss(codes, codes.detach(), lam=0.0051, scale_loss=0.1)) < 1e-8 * 12


@pytest.mark.parametrize("widths", [(1.5, 1.0), (1.0, 1.0)])
def test_gradients_are_affine_in_alpha_between_sacl_and_xd(widths):
    x = views()
    found = {}
    for alpha in (0.0, 0.25, 1.0):
        made = method(*widths, alpha=alpha)
        terms = made(x)
        if alpha == 1.0:
            only_sacl = gradients(made, method_terms(made, x)[0])
        if alpha == 0.0:
            only_xd = gradients(made, method_terms(made, x)[1])
        found[alpha] = gradients(made, terms["total"])
    assert_same(found[1.0], only_sacl)
    assert_same(found[0.0], only_xd)
    mixed = {n: 0.25 * only_sacl[n] + 0.75 * only_xd[n] for n in only_sacl}
    assert_same(found[0.25], mixed)


def method_terms(made, x):
    """L_SACL and L_CD written out from the formulas."""
    za, zb = codes(made, x[0], "host"), codes(made, x[1], "1x")
    with torch.no_grad():
        za_hat = codes(made, x[0], "1x", frozen=True)
        zb_hat = codes(made, x[1], "host", frozen=True)
    xd = (distance(made, za, za_hat) + distance(made, zb, zb_hat)) / 2
    return distance(made, za, zb), xd


def test_each_distillation_term_reaches_one_width_only():
    made = method()
    xa, xb = views()
    with torch.no_grad():
        za_hat = codes(made, xa, "1x", frozen=True)
        zb_hat = codes(made, xb, "host", frozen=True)
    to_host = gradients(made, distance(made, codes(made, xa, "host"), za_hat))
    to_slim = gradients(made, distance(made, codes(made, xb, "1x"), zb_hat))
    slim_norms = [n for n in to_host if ".norms." in n]
    host_norms = [
        n for n in to_host
        if n.removeprefix("encoder.host.") in host_norm_names(made)
    ]  # fmt: skip
    assert slim_norms
    assert host_norms
    assert all(float(to_host[n].abs().max()) == 0 for n in slim_norms)
    assert all(float(to_slim[n].abs().max()) == 0 for n in host_norms)
    assert any(float(to_slim[n].abs().max()) > 0 for n in slim_norms)


def host_norm_names(made):
    return {
        f"{name}.{part}"
        for name, layer in made.encoder.host.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        for part in ("weight", "bias")
    }


def test_frozen_passes_change_nothing_of_the_step():
    x = views()
    plain, full = method(alpha=1.0), method(alpha=1.0)
    za, zb = codes(plain, x[0], "host"), codes(plain, x[1], "1x")
    without = gradients(plain, distance(plain, za, zb))
    state = torch.get_rng_state()
    terms = full(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in full.parameters())
    assert_same(gradients(full, terms["sacl"]), without, rtol=0)
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(full.named_buffers())[name]), name


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((1.5, 1.0), {"host": 2, "1x": 2}),
        ((1.0, 1.0), {"host": 2}),
        ((1.5, 1.0, 0.75), {"host": 2, "1x": 2, "0.75x": 2}),
    ],
)
def test_number_of_encoder_passes(widths, expected):
    made, count = method(*widths), Counter()
    for width, module in passes(made.encoder).items():
        module.register_forward_hook(lambda *_, width=width: count.update([width]))
    made(views())
    assert count == expected


def passes(net):
    """The module that runs at every width."""
    return {"host": net.host} | {label: slim.template for label, slim in net.slims.items()}


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_with_several_slim_nets_the_loss_is_the_mean_over_them(bn):
    both = method(1.5, 1.0, 0.75, bn=bn)
    x = views()
    found, alone = both(x), []
    for width in (1.0, 0.75):
        one = method(1.5, width, bn=bn)
        state = both.state_dict()
        one.load_state_dict({name: state[name] for name in one.state_dict()})
        alone.append(one(x))
    for term in found:
        mean = torch.stack([terms[term] for terms in alone]).mean()
        torch.testing.assert_close(found[term], mean, rtol=1e-10, atol=0)

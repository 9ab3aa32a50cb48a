"""The switches of SACL, XD and SACL+XD: each against its formula, and off by default."""

from collections import Counter

import pytest
import torch
from pydantic import ValidationError
from slim_methods import DENSE, SLIM, TWO, gradients, method, train, views

from edgessl.core.errors import RecipeInvalid
from edgessl.cost.training import Passes
from edgessl.methods import METHODS
from edgessl.methods.base import Schedule, codes, embed

S = "0.25x"


def counted(made):
    """Encoder passes of a step by width; the counter fills while the method runs."""
    count = Counter()
    nets = {"host": made.encoder.host} | {s: n.template for s, n in made.encoder.slims.items()}
    for width, module in nets.items():
        module.register_forward_hook(lambda *_, width=width: count.update([width]))
    return count


def assert_same(ours, theirs, rtol=1e-10):
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name in theirs:
        assert float((ours[name] - theirs[name]).abs().max()) <= rtol * largest, name


def step(made, number):
    made.begin(Schedule(100, 10, done=number))
    return {name: float(term.detach()) for name, term in made(views()).items()}


@pytest.mark.parametrize("name", ["sacl", "sacl-xd"])
def test_routes(name):
    fixed, turned = step(method(name), 0), {
        n: float(t.detach()) for n, t in method(name)(views()[::-1]).items()
    }  # fmt: skip
    assert fixed != turned
    assert step(method(name), 1) == fixed
    assert step(method(name, route="alternate"), 4) == fixed
    assert step(method(name, route="alternate"), 5) == turned
    drawn = [step(method(name, route="random"), number) for number in range(12)]
    assert all(found in (fixed, turned) for found in drawn)
    assert fixed in drawn
    assert turned in drawn
    assert drawn == [step(method(name, route="random"), number) for number in range(12)]


def test_the_host_trains_alone_before_the_slim_nets_start():
    made, dense = method(slim_start_epoch=2), method("sacl-xd", (0.375, (0.375,)))
    dense.load_state_dict(
        {n: t for n, t in made.state_dict().items() if n in dense.state_dict()}, strict=True
    )
    count = counted(made)
    made.begin(Schedule(50, 5))
    for number in range(10):
        count.clear()
        terms = made(views())
        assert count == {"host": 2}, number
        if number == 0:
            expected = dense(views())
            assert all(torch.equal(terms[name], expected[name]) for name in expected)
        made.after_step(number + 1)
    own, host = made.encoder.slims[S].norms["features/1/4"], made.encoder.host.features[1][4]
    assert torch.equal(own.running_mean, host.running_mean[: len(own.running_mean)])
    count.clear()
    made(views())
    assert count == {"host": 2, S: 2}
    again = method(slim_start_epoch=2)
    again.begin(Schedule(50, 5, done=10))  # resumed after the start
    assert again.course.slims == (S,)


def test_slim_nets_that_would_never_start_are_refused():
    with pytest.raises(RecipeInvalid, match="slim_start_epoch is 10, but the training has 4"):
        method("sacl", slim_start_epoch=10).begin(Schedule(40, 10))


def test_a_late_start_trains_on():
    made = method(slim_start_epoch=2, frozen_source="ema", selector="l1_group", interval=1)
    train(made, 4, torch.optim.AdamW(made.parameters(), lr=0.01))
    copied = made.frozen.encoder.slims[S]
    assert copied.plan.groups == made.encoder.slims[S].plan.groups


@pytest.mark.parametrize("widths", [SLIM, DENSE])
@pytest.mark.parametrize("frozen_bn", ["batch", "running"])
def test_a_momentum_of_zero_is_the_live_net(widths, frozen_bn):
    losses = []
    for source in ("live", "ema"):
        made = method(widths=widths, frozen_source=source, frozen_momentum=0.0, alpha=0.5,
                      frozen_bn=frozen_bn)  # fmt: skip
        train(made, 3, torch.optim.SGD(made.parameters(), lr=0.1))
        terms = made(views())
        losses.append({name: float(term.detach()) for name, term in terms.items()})
    assert losses[0] == losses[1]


def test_the_momentum_copy_trails_and_gets_no_gradient():
    made = method(frozen_source="ema", frozen_momentum=0.75)
    live, copy = (net.host.get_parameter("features.1.3.weight") for net in
                  (made.encoder, made.frozen.encoder))  # fmt: skip
    start = copy.detach().clone()
    assert torch.equal(start, live.detach())
    train(made, 1, torch.optim.SGD(made.parameters(), lr=0.1))
    torch.testing.assert_close(copy, 0.75 * start + 0.25 * live.detach())
    assert all(p.grad is None for p in made.frozen.parameters())
    assert not any(p.requires_grad for p in made.frozen.parameters())
    assert not list(method().frozen.state_dict())  # no copy by default


def test_frozen_passes_on_running_statistics():
    made, x = method(frozen_bn="running", alpha=0.0), views()
    for _ in range(3):
        made(x)
    za, zb = codes(made, x[0], "host"), codes(made, x[1], S)
    before = {n: b.clone() for n, b in made.named_buffers()}
    za_hat, zb_hat = made.frozen.crossed(made, *x, za, {S: zb})
    assert all(torch.equal(b, before[n]) for n, b in made.named_buffers())
    assert all(module.training for module in made.modules())
    made.eval()
    with torch.no_grad():
        assert torch.equal(za_hat[S].standard_ND, codes(made, x[0], S).standard_ND)
        assert torch.equal(zb_hat.standard_ND, codes(made, x[1], "host").standard_ND)


@pytest.mark.parametrize("name", ["xd", "sacl-xd"])
@pytest.mark.parametrize(
    ("options", "passes"),
    [({}, 2), ({"frozen_source": "ema"}, 2), ({"frozen_bn": "running"}, 4)],
)
def test_passes_at_one_width(name, options, passes):
    made = method(name, DENSE, **options)
    count = counted(made)
    made(views())
    assert count == {"host": passes}  # those of a momentum copy are passes of the copy
    usual = Passes.of(METHODS[name].facts)
    assert made.options.passes(usual).dense == (8 if options else 6)
    assert made.options.passes(usual).host == usual.host


@pytest.mark.parametrize("options", [{"frozen_source": "ema"}, {"frozen_bn": "running"}])
def test_xd_is_sacl_xd_at_one_width_with_every_switch(options):
    x, found = views(), []
    for name in ("xd", "sacl-xd"):
        made = method(name, DENSE, **options, xd_loss="nll", xd_combine="additive")
        train(made, 2, torch.optim.SGD(made.parameters(), lr=0.1))
        found.append({n: float(term.detach()) for n, term in made(x).items()})
    assert found[0] == found[1]


def test_the_other_distillation_loss_by_hand():
    made, x = method(xd_loss="nll", xd_combine="additive", xd_weight=0.25), views()
    za, zb = codes(made, x[0], "host"), codes(made, x[1], S)
    za_hat, zb_hat = made.frozen.crossed(made, *x, za, {S: zb})

    def by_hand(live, target):
        n, d = live.shape
        return -sum(
            target[i, j] * (live[i, j] - live[i].exp().sum().log())
            for i in range(n) for j in range(d)
        ) / n  # fmt: skip

    a = by_hand(za.standard_ND, za_hat[S].standard_ND)
    b = by_hand(zb.standard_ND, zb_hat.standard_ND)
    terms = made(x)
    torch.testing.assert_close(terms["xd"], (a + b) / 2, rtol=1e-11, atol=0)
    torch.testing.assert_close(
        terms["total"], terms["sacl"] + 0.25 * (a + b) / 2, rtol=1e-11, atol=0
    )


def test_both_mixtures_point_the_same_way():
    """alpha (L_SACL + w L_CD) with w = (1 - alpha) / alpha is the convex mixture."""
    alpha, x = 0.8, views()
    convex = method(alpha=alpha)
    additive = method(xd_combine="additive", xd_weight=(1 - alpha) / alpha)
    scaled = {n: alpha * g for n, g in gradients(additive, additive(x)["total"]).items()}
    assert_same(gradients(convex, convex(x)["total"]), scaled)
    alone = method(xd_combine="additive", xd_weight=0.0)
    terms = alone(x)
    assert torch.equal(terms["total"], terms["sacl"])


@pytest.mark.parametrize("name", ["sacl", "sacl-xd"])
def test_weights_of_widths(name):
    x = views()
    equal, mean = (method(name, TWO, **o)(x) for o in ({"width_weights": (2, 2)}, {}))
    wide, narrow, mixed = (method(name, TWO, width_weights=w)(x) for w in ((1, 0), (0, 3), (3, 1)))
    for term in mean:
        torch.testing.assert_close(equal[term], mean[term], rtol=1e-12, atol=0)
        expected = 0.75 * wide[term] + 0.25 * narrow[term]
        torch.testing.assert_close(mixed[term], expected, rtol=1e-12, atol=0)
    for wrong in ((1.0,), (0.0, 0.0)):
        with pytest.raises(RecipeInvalid, match=f"has {len(wrong)} weights"):
            method(name, TWO, width_weights=wrong)
    with pytest.raises(ValidationError):
        method(name, TWO, width_weights=(-1.0, 2.0))
    # no slim net has a term yet: its weight is not asked for
    alone, plain = (method(name, slim_start_epoch=1, **o) for o in ({"width_weights": (2,)}, {}))
    for made in (alone, plain):
        made.begin(Schedule(20, 10))
    assert torch.equal(alone(x)["total"], plain(x)["total"])


def crops(n=8):
    return views(n, side=8, count=3, seed=7)


@pytest.mark.parametrize("name", ["sacl", "sacl-xd"])
def test_local_crops_reach_the_slim_channels_only(name):
    made = method(name, local_weight=0.5)
    local = gradients(made, made([*views(), *crops()])["local"])
    slims = {"encoder.": made.encoder.slims[S], "projector.": made.projector.slims[S]}
    reached = Counter()
    for net, slim in slims.items():
        for name_, gradient in local.items():
            stock = name_.removeprefix(f"{net}host.")
            if stock == name_:
                continue
            if stock not in slim.sliced_names:  # a BatchNorm of the host
                assert float(gradient.abs().max()) == 0, name_
                continue
            kept, removed = slim.plan.take(stock, gradient), gradient.clone()
            slim.plan.put(stock, removed, torch.zeros_like(kept))
            assert float(removed.abs().max()) == 0, name_
            reached[net] += float(kept.abs().max()) > 0
    assert reached == {"encoder.": 13, "projector.": 2}  # every convolution, both Linear layers
    assert all(float(g.abs().max()) > 0 for n, g in local.items() if n.startswith("encoder.norms"))


@pytest.mark.parametrize(("name", "targets"), [("sacl", 1), ("sacl-xd", 2)])
def test_local_crops_by_hand(name, targets):
    made, plain = method(name, local_weight=0.5), method(name)
    count, x, small = counted(made), views(), crops()
    terms, without = made([*x, *small]), plain(x)
    assert count == {"host": targets, S: targets + 1}
    for n, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(made.named_buffers())[n]), n
    with torch.no_grad():
        za = codes(made, x[0], "host", frozen=True)
        zb = codes(made, x[1], "host", frozen=True)
        parts = embed(made, torch.cat(small), S, frozen=True).split(8)
        distances = [
            made.options.distance(made.options.codes(part), target)
            for part in parts for target in (za, zb)[:targets]
        ]  # fmt: skip
    torch.testing.assert_close(terms["local"].detach(), torch.stack(distances).mean())
    torch.testing.assert_close(terms["total"], without["total"] + 0.5 * terms["local"])
    assert "local" not in without


def test_local_crops_wait_for_the_slim_nets_and_work_at_one_width():
    late = method(slim_start_epoch=1)
    late.begin(Schedule(10, 5))
    assert "local" not in late([*views(), *crops()])
    late.begin(Schedule(10, 5, done=5))
    assert "local" in late([*views(), *crops()])
    assert "local" in method(widths=DENSE)([*views(), *crops()])


def test_unknown_values_are_refused():
    for name, value in (("route", "zigzag"), ("frozen_momentum", 1.5), ("interval", 0)):
        with pytest.raises(ValidationError):
            METHODS.load("sacl-xd").Options(**{name: value})
    with pytest.raises(ValidationError):
        METHODS.load("xd").Options(route="fixed")  # one net: nothing to route

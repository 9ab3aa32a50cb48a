"""Channels chosen by L1: exact counts, and everything a channel owns goes where it goes."""

import copy

import pytest
import torch
from masked_oracle import masked_forward
from slim_methods import SHORT, TWO, method, train, views

from edgessl.core.console import Reporter
from edgessl.encoders import ENCODERS
from edgessl.methods.base import Schedule
from edgessl.slimming.choice import (
    begin_as_host,
    channel_scores,
    keep_channels,
    overlap,
    strongest,
    strongest_groups,
)
from edgessl.slimming.extract import NetSpec, extract, largest_difference
from edgessl.slimming.plan import Group
from edgessl.training.loop import Job
from edgessl.training.loop import train as train_job
from edgessl.training.optimizers import make_optimizer
from edgessl.training.plan import Plan

L1 = {"selector": "l1_group", "interval": 2, "freeze_at": 1.0}


def plan_of(made, label="0.25x"):
    return made.encoder.slims[label].plan


def some_groups(made, label="0.25x", seed=4):
    """An arbitrary choice of as many channels."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Group(g.host, tuple(sorted(torch.randperm(g.host, generator=generator)
                                         [: len(g.keep)].tolist())))
        for name, g in plan_of(made, label).groups.items()
    }  # fmt: skip


def test_scores_are_sums_of_mean_absolute_filters():
    made = method()
    scores = channel_scores(made.encoder.host, plan_of(made))
    weights = dict(made.encoder.host.named_parameters())
    # block 1 comes out of its pointwise layer and through the depthwise one of block 2
    pointwise, depthwise = weights["features.1.3.weight"], weights["features.2.0.weight"]
    expected = [
        float(pointwise[c].detach().abs().mean() + depthwise[c].detach().abs().mean())
        for c in range(len(pointwise))
    ]
    assert scores["block1"].tolist() == pytest.approx(expected, rel=1e-12)


def test_ties_keep_exactly_as_many_and_the_first():
    assert strongest(torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0]), 2) == (1, 2)
    made = method(widths=TWO)
    with torch.no_grad():
        for parameter in made.encoder.host.parameters():
            parameter.fill_(1.0)
    for label in made.encoder.labels:
        before, after = plan_of(made, label).groups, strongest_groups(made.encoder, label)
        assert after == before  # prefixes of the same lengths


def test_choices_of_several_slim_nets_lie_within_each_other():
    made = method(widths=TWO)
    wide, narrow = (strongest_groups(made.encoder, label) for label in made.encoder.labels)
    assert all(set(narrow[name].keep) <= set(wide[name].keep) for name in wide)
    assert not any(group.is_prefix for group in wide.values())


def test_overlap_by_hand():
    before = {"a": Group(6, (0, 1, 2)), "b": Group(4, (0, 1)), "all": Group(2, (0, 1))}
    after = {"a": Group(6, (0, 1, 5)), "b": Group(4, (2, 3)), "all": Group(2, (0, 1))}
    assert overlap(before, after) == pytest.approx((2 + 0) / (4 + 4))
    assert overlap(before, before) == 1
    assert overlap({"all": Group(2, (0, 1))}, {"all": Group(2, (0, 1))}) == 1


def permuted(made, order):
    """The same method with the channels of every group in another order, all it owns included."""
    other, plan = copy.deepcopy(made), plan_of(made)
    with torch.no_grad():
        for name, tensor in other.encoder.host.state_dict().items():
            for axis, group in enumerate(plan.axes[name]):
                if group is not None:
                    tensor.copy_(tensor.index_select(axis, order[group]))
        first = other.projector.host.get_parameter("0.weight")
        first.copy_(first[:, order[features(made)]])
    return other


def features(made):
    return ENCODERS.load(SHORT).feature_group(made.encoder.host)


def a_choice(made):
    encoder, groups = made.encoder, strongest_groups(made.encoder, "0.25x")
    keep_channels(encoder, "0.25x", groups)
    keep_channels(made.projector, "0.25x", {"features": groups[features(made)]})
    return groups


def test_a_choice_is_the_prefix_of_a_permuted_host():
    chosen = method()
    groups = a_choice(chosen)
    order = {
        name: torch.tensor([*g.keep, *(c for c in range(g.host) if c not in g.keep)])
        for name, g in groups.items()
    }
    prefix = permuted(method(), order)
    assert all(g.is_prefix for g in plan_of(prefix).groups.values())
    ours, theirs = chosen(views()), prefix(views())
    for term in ours:
        torch.testing.assert_close(ours[term], theirs[term], rtol=1e-11, atol=0)


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_a_choice_equals_the_masked_host_with_its_gradients(bn):
    made = method(bn=bn)
    net, x = made.encoder, views()[0]
    keep_channels(net, "0.25x", some_groups(made))
    keep = torch.tensor(plan_of(made).groups[features(made)].keep)
    masked = masked_forward(net, "0.25x", x)[:, keep]
    sliced = net(x, width="0.25x")
    torch.testing.assert_close(sliced, masked, rtol=1e-11, atol=1e-12)
    weights = list(net.host.parameters())
    ours, theirs = (
        torch.autograd.grad(z.square().sum(), weights, allow_unused=True) for z in (sliced, masked)
    )
    largest = max(float(g.abs().max()) for g in theirs if g is not None)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        assert mine is None or float((mine - other).abs().max()) < 1e-10 * largest


@pytest.mark.parametrize("bn", ["switch", "shared"])
@pytest.mark.parametrize("kind", ["adamw", "lars", "sgd"])
def test_what_a_channel_owns_follows_it(bn, kind):
    """Every entry is marked with its channel: c + 1000 in the slim net, c in the host."""
    made = method(bn=bn)
    net, old = made.encoder, plan_of(made)
    optimizer = make_optimizer(made, kind, lr=0.1, weight_decay=0.0)
    made(views())["total"].backward()
    optimizer.step()

    def everything(stock):
        """All per-channel tensors of a BatchNorm: slim net's own, and the host's."""
        own = net.slims["0.25x"].norms[stock.replace(".", "/")]
        host = net.host.get_submodule(stock)
        for part in ("running_mean", "running_var"):
            yield getattr(own, part), getattr(host, part)
        for part, tensor in own.named_parameters():
            yield tensor, host.get_parameter(part)
            for name, value in optimizer.state[tensor].items():
                if value.shape == tensor.shape:
                    yield value, optimizer.state[host.get_parameter(part)][name]

    norms = [key.replace("/", ".") for key in net.slims["0.25x"].norms]
    with torch.no_grad():
        for stock in norms:
            keep = torch.tensor(old.groups[old.axes[f"{stock}.running_mean"][0]].keep)
            for own, host in everything(stock):
                host.copy_(torch.arange(len(host)))
                own.copy_(keep + 1000)
    groups = some_groups(made)
    keep_channels(net, "0.25x", groups, optimizer)
    moved = 0
    for stock in norms:
        group = old.axes[f"{stock}.running_mean"][0]
        was, now = set(old.groups[group].keep), groups[group].keep
        expected = [c + 1000.0 if c in was else float(c) for c in now]
        for own, host in everything(stock):
            assert own.tolist() == expected, stock
            assert host.tolist() == list(range(len(host)))
            moved += 1
    per_parameter = {"adamw": 3, "lars": 2, "sgd": 2}[kind]
    assert moved == len(norms) * (2 + (2 * per_parameter if bn == "switch" else 0))


def test_a_training_with_rankings_does_not_depend_on_the_order_of_channels():
    """Whole trajectories agree after permuting the host, so nothing is tied to a place."""
    first = method(**L1)
    generator = torch.Generator().manual_seed(6)
    order = {
        n: torch.randperm(g.host, generator=generator) for n, g in plan_of(first).groups.items()
    }
    second = permuted(first, order)
    losses, overlaps = [], []
    for made in (first, second):
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.02)
        overlaps.append(train(made, 7, optimizer))
        losses.append(float(made(views())["total"].detach()))
    assert sorted(overlaps[0]) == [2, 4, 6]
    assert overlaps[0] == overlaps[1]
    assert min(o["overlap"]["0.25x"] for o in overlaps[0].values()) < 1  # some channels did move
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)
    kept = plan_of(first).groups
    for name, group in plan_of(second).groups.items():
        assert {int(order[name][c]) for c in group.keep} == set(kept[name].keep)


@pytest.mark.parametrize(("interval", "expected"), [(3, [6, 9]), (None, [5, 10])])
def test_rankings_begin_with_the_second_epoch_and_freeze(interval, expected):
    made = method(selector="l1_group", interval=interval, freeze_at=0.5)
    assert int(made.course.selection.chosen_at) == -1
    made.begin(Schedule(steps=20, steps_per_epoch=5))
    assert int(made.course.selection.chosen_at) == 0
    notes = {step: made.after_step(step) for step in range(1, 21)}
    assert [step for step, told in notes.items() if told] == expected
    assert int(made.course.selection.chosen_at) == expected[-1]
    assert notes[expected[0]] == {"overlap": {"0.25x": 1.0}}  # no weight has moved


def test_extraction_after_rankings_equals_the_slim_pass():
    made = method(widths=TWO, **L1)
    train(made, 4, torch.optim.AdamW(made.parameters(), lr=0.02))
    net = made.encoder.float()
    spec = NetSpec(SHORT, *TWO, "small")
    for label in net.labels:
        assert not any(g.is_prefix for g in plan_of(made, label).groups.values())
        plain = extract(ENCODERS.load(SHORT), spec, net, label)
        assert largest_difference(plain, net, label, views()[0].float()) <= 1e-5


def test_beginning_as_the_host():
    made = method()
    net, groups = made.encoder, some_groups(method())
    made(views())
    keep_channels(net, "0.25x", groups)
    begin_as_host(net, "0.25x")
    keep = list(groups["block1"].keep)
    own, host = net.slims["0.25x"].norms["features/1/4"], net.host.get_submodule("features.1.4")
    for part in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(own, part), getattr(host, part)[keep])


class Cut(BaseException):
    """Not an Exception: as little chance to clean up as a test can give."""


@pytest.mark.parametrize("at", [1, 6])  # rankings after 4, 6 and 8 of 12 steps
def test_a_cut_and_resumed_run_has_the_same_bits_across_a_ranking(tmp_path, at):
    options = {**L1, "freeze_at": 0.7, "frozen_source": "ema", "frozen_momentum": 0.5}

    def job(made, folder, after=None):
        def loss(module, indices, epoch):
            generator = torch.Generator().manual_seed(int(indices.sum()) + epoch)
            return module([torch.randn(8, 3, 12, 12, generator=generator) for _ in "ab"])

        def after_step(step):
            told = made.after_step(step)
            if after == step:
                raise Cut
            return told

        plan = Plan(items=24, batch=8, epochs=4, learning_rate=0.02)
        train_job(
            Job(made, loss, plan, "t", tmp_path / folder, begin=made.begin,
                after_step=after_step, save_every_s=1e-9),
            Reporter(quiet=True),
        )  # fmt: skip
        return made

    whole = job(method(**options).float(), "a")
    with pytest.raises(Cut):
        job(method(**options).float(), "b", after=at)
    scrambled = method(**options).float()
    with torch.no_grad():  # all must come from the state
        for parameter in scrambled.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    resumed = job(scrambled, "b")
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert int(whole.course.selection.chosen_at) == 8
    assert plan_of(whole).groups == plan_of(resumed).groups
    copied = resumed.frozen.encoder.slims["0.25x"].plan.groups
    assert copied == plan_of(whole).groups  # the momentum copy keeps the same channels
    both = ((tmp_path / f / "metrics.jsonl").read_text() for f in "ab")
    overlaps = [[line for line in text.splitlines() if "overlap" in line] for text in both]
    assert overlaps[0] == overlaps[1]
    assert len(overlaps[0]) == 3


def test_the_projector_reads_the_features_that_are_kept():
    made = method(**L1)
    train(made, 2, torch.optim.AdamW(made.parameters(), lr=0.02))
    keep = plan_of(made).groups[features(made)].keep
    assert made.projector.slims["0.25x"].plan.groups["features"].keep == keep
    first = made.projector.host.get_parameter("0.weight")
    assert torch.equal(made.projector.tensors("0.25x")["0.weight"], first[:, list(keep)])

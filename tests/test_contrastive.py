"""The InfoNCE family: losses, queue, momentum encoder, and the methods built on them (float64)."""

import math
from collections import deque

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from edgessl.cost.training import Passes
from edgessl.encoders import ENCODERS
from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.losses.contrastive import info_nce, nt_xent, similarities, soft_nce, unit
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Schedule
from edgessl.methods.keys import Keys
from edgessl.methods.momentum import follow, momentum_copy
from edgessl.methods.queue import Queue
from edgessl.slimming.extract import NetSpec, build_sliced

SHORT = "mobilenet_v1_short"
TAU = 0.2


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def some(b=6, d=5, k=30):
    """Queries, keys and a queue of unit norm; the queries are leaves."""
    q, key, queue = (unit(normal(n, d, seed=s)) for s, n in enumerate((b, b, k)))
    return q.requires_grad_(), key, queue


def axis(d, place, rows=1):
    return torch.eye(d, dtype=torch.float64)[place].expand(rows, d)


# ------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize(
    ("k", "tau", "expected"),
    [(1000, 0.2, 2.04614), (65536, 0.2, 6.09262), (65536, 0.1, 1.38011)],
)
def test_a_found_key_among_orthogonal_ones(k, tau, expected):
    """log(1 + K e^(-1/tau))."""
    q, others = axis(2, 0, rows=3), axis(2, 1, rows=k)
    loss = info_nce(q, q, others, tau)
    assert float(loss) == pytest.approx(math.log(1 + k * math.exp(-1 / tau)), rel=1e-12)
    assert float(loss) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("k", [20, 1000, 65536])
def test_equal_logits_give_the_log_of_their_number(k, smoothing):
    q, key, others = axis(3, 0), axis(3, 1), axis(3, 2, rows=k)
    expected = {20: math.log(21), 1000: math.log(1001), 65536: 11.09037}[k]
    assert float(info_nce(q, key, others, TAU)) == pytest.approx(expected, abs=5e-6)
    soft = soft_nce(q, key, others, TAU, smoothing=smoothing, hardest=20)
    assert float(soft) == pytest.approx(math.log(k + 1), rel=1e-12)


def test_without_smoothing_soft_nce_is_info_nce():
    q, key, queue = some()
    soft = soft_nce(q, key, queue, TAU, smoothing=0.0, hardest=20)
    hard = info_nce(q, key, queue, TAU)
    assert torch.equal(soft, hard)
    torch.testing.assert_close(
        torch.autograd.grad(soft, q), torch.autograd.grad(hard, q), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("hardest", [1, 7, 30])
def test_soft_nce_is_the_cross_entropy_to_its_target(hardest):
    """The target by hand, against torch's cross-entropy with probabilities and p - target."""
    q, key, queue = some()
    target = torch.zeros(6, 31, dtype=torch.float64)
    target[:, 0] = 0.7
    for row, similar in zip(target, (q @ queue.T).tolist(), strict=True):
        for place in sorted(range(30), key=lambda i: -similar[i])[:hardest]:
            row[1 + place] = 0.3 / hardest
    logits = similarities(q, key, queue, TAU)
    ours = soft_nce(q, key, queue, TAU, smoothing=0.3, hardest=hardest)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target), rtol=1e-12, atol=0)
    (mine,) = torch.autograd.grad(ours, q)
    missing = (logits.softmax(1) - target).detach() / (6 * TAU)
    by_hand = missing[:, :1] * key + missing[:, 1:] @ queue
    torch.testing.assert_close(mine, by_hand, rtol=1e-10, atol=1e-14)


def test_the_shared_mass_pulls_towards_similar_keys_only():
    """A query between two keys of the queue: with smoothing it is drawn to the nearer one."""
    q = unit(torch.tensor([[1.0, 0.2, 0.0]], dtype=torch.float64)).requires_grad_()
    key, queue = axis(3, 2), torch.stack([axis(3, 0)[0], axis(3, 1)[0]])
    losses = [soft_nce(q, key, queue, 1.0, smoothing=e, hardest=1) for e in (0.0, 0.9)]
    plain, soft = (torch.autograd.grad(loss, q)[0][0] for loss in losses)
    assert plain[0] > 0 > soft[0]  # downhill is away from the near key, and towards it
    assert plain[1] > 0
    assert soft[1] > 0


@pytest.mark.parametrize("b", [2, 5])
def test_nt_xent_of_equal_embeddings_counts_the_other_views(b):
    """2 B - 1 candidates, all alike; and of one image alone there is nothing to confuse."""
    z = torch.ones(b, 4, dtype=torch.float64)
    assert float(nt_xent(z, z, temperature=0.5)) == pytest.approx(math.log(2 * b - 1))
    one = normal(1, 4)
    assert float(nt_xent(one, one, temperature=0.5)) == pytest.approx(0.0, abs=1e-12)


def test_nt_xent_by_hand():
    """Images on two axes, views equal: the other view at cosine 1, two others at 0."""
    z = torch.eye(2, dtype=torch.float64) * 3
    expected = math.log(1 + 2 * math.exp(-1 / 0.5))
    assert float(nt_xent(z, 2 * z, temperature=0.5)) == pytest.approx(expected, rel=1e-12)


# --------------------------------------------------------------------------- queue and copies


@pytest.mark.parametrize(("size", "batch"), [(8, 4), (10, 4), (7, 7), (4, 10), (1, 3)])
def test_the_queue_keeps_the_latest_keys_and_wraps(size, batch):
    queue, kept = Queue(size, 3, seed=0).double(), deque(maxlen=size)
    first = queue.keys_KD.clone()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(size).double(), rtol=1e-6, atol=0)
    for step in range(1, 2 * math.ceil(size / batch) + 2):
        new = unit(normal(batch, 3, seed=step))
        queue.push(new)
        kept.extend(new)
        assert int(queue.pointer) == step * batch % size
        ours = {tuple(row.tolist()) for row in queue.keys_KD}
        assert ours >= {tuple(row.tolist()) for row in kept}
        if step >= math.ceil(size / batch):
            assert len(kept) == size == len(ours) == len(queue.latest_KD)
            assert not (queue.keys_KD[:, None] == first).all(2).any()
    torch.testing.assert_close(queue.keys_KD.norm(dim=1), torch.ones(size).double())


def test_a_copy_follows_as_its_momentum_says():
    source, target = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    before = [p.detach().clone() for p in target.parameters()]
    follow(target, source, 1.0)
    assert all(torch.equal(p, b) for p, b in zip(target.parameters(), before, strict=True))
    follow(target, source, 0.75)
    for t, s, b in zip(target.parameters(), source.parameters(), before, strict=True):
        torch.testing.assert_close(t, 0.75 * b + 0.25 * s)
    follow(target, source, 0.0)
    assert all(
        torch.equal(t, s) for t, s in zip(target.parameters(), source.parameters(), strict=True)
    )


def test_a_copy_is_out_of_reach_of_optimisers_and_has_statistics_of_its_own():
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    copy = momentum_copy(source)
    assert not any(p.requires_grad for p in copy.parameters())
    source(normal(5, 3))
    assert torch.equal(copy[1].running_mean, torch.zeros(4).double())
    assert not torch.equal(source[1].running_mean, torch.zeros(4).double())


def net():
    architecture = ENCODERS.load(SHORT)
    sliced = build_sliced(architecture, NetSpec(SHORT, 0.25, (0.25,), "small", "switch"), seed=1)
    group = architecture.feature_group(sliced.host)
    return sliced, {label: slim.plan.groups[group] for label, slim in sliced.slims.items()}


def keys_of(groups):
    sliced, features = net()
    torch.manual_seed(2)
    head = nn.Linear(next(iter(features.values())).host, 6)
    return Keys(sliced, head, size=16, dim=6, groups=groups, seed=5).double()


def test_shuffled_keys_come_back_in_the_order_of_their_images():
    """Without batch statistics an image's key is the same whatever group it was in."""
    x = normal(9, 3, 12, 12)
    whole, grouped = (keys_of(groups).eval()(x, step=0) for groups in (1, 3))
    torch.testing.assert_close(whole, grouped, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(9).double())


def test_groups_of_keys_have_batch_statistics_of_their_own():
    """Changing one image changes the keys of its group and of no other; each step groups anew."""
    x = normal(8, 3, 12, 12)
    other = x.clone()
    other[3] += 1
    groups = []
    for step in range(6):
        a, b = (keys_of(2).train()(images, step) for images in (x, other))
        changed = (a != b).any(1)
        assert int(changed.sum()) == 4
        assert changed[3]
        groups.append(tuple(changed.tolist()))
        assert torch.equal(a, keys_of(2).train()(x, step))
    assert len(set(groups)) > 1
    leaky = keys_of(1).train()
    assert (leaky(x, 0) != leaky(other, 0)).any(1).all()


@pytest.mark.parametrize(("images", "groups"), [(7, 3), (10, 4), (13, 4), (25, 8), (5, 9)])
def test_no_group_is_a_single_image(images, groups):
    keys, seen = keys_of(groups).train(), []
    keys.encoder.host.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    keys(normal(images, 3, 12, 12), step=0)
    assert sum(seen) == images
    assert len(seen) == min(groups, images // 2)
    assert min(seen) >= 2


@pytest.mark.parametrize("form", ["rows", "columns"])
def test_losses_do_not_round_under_autocast(form):
    """In bfloat16 their products would be wrong in the third digit."""
    z = [normal(8, 6 if form == "columns" else 40, seed=s).float() for s in range(2)]
    q, k = (unit(x) for x in z)

    def losses():
        return torch.stack([
            barlow_loss(Codes(z[0]), Codes(z[1]), lam=0.1, scale_loss=1.0),
            info_nce(q, k, k.flip(0), TAU), nt_xent(*z, temperature=TAU),
        ])  # fmt: skip

    plain = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z[0] @ z[1].T).dtype == torch.bfloat16
        assert torch.equal(losses(), plain)


# ----------------------------------------------------------------------------------- methods


def made(name, **options):
    """A float64 method in training mode, of equal weights whatever the method."""
    sliced, features = net()
    kind = METHODS.load(name)
    torch.manual_seed(2)
    chosen = kind.Options(**{"projector": (12, 6), "queue": 24} | options)
    return kind(Parts(sliced, features), chosen).double().train()


def views(seed=3, n=8):
    return [normal(n, 3, 12, 12, seed=seed), normal(n, 3, 12, 12, seed=seed + 1)]


def trained(method, steps=3):
    """Terms and gradients of some steps with plain gradient descent."""
    seen = []
    for step in range(steps):
        total = method(views(seed=10 * step + 3))["total"]
        method.zero_grad(set_to_none=True)
        total.backward()
        gradients = [p.grad for p in method.parameters() if p.requires_grad]
        seen.append((total.detach(), [g.clone() for g in gradients]))
        with torch.no_grad():
            for p in method.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
        method.after_step(step + 1)
    return seen


def assert_same_training(a, b):
    for (loss, gradients), (other, others) in zip(trained(a), trained(b), strict=True):
        torch.testing.assert_close(loss, other, rtol=1e-12, atol=0)
        for mine, theirs in zip(gradients, others, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    theirs = b.state_dict()
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_light_moco_without_smoothing_is_moco_v2(symmetric):
    light = made("light-moco", temperature=0.2, smoothing=0.0, symmetric=symmetric)
    assert_same_training(light, made("moco-v2", symmetric=symmetric))


@pytest.mark.parametrize("name", ["moco-v2", "light-moco"])
def test_keys_get_no_gradient_and_move_after_the_step(name):
    method = made(name, momentum=0.9)
    ((first, _),) = trained(method, steps=1)
    assert float(first) == 0  # nothing to tell the own key from
    assert len(method.keys.latest_KD) == 8
    before = {n: t.clone() for n, t in method.keys.state_dict().items()}
    ours = {n: t.clone() for n, t in method.projector.state_dict().items()}
    trained(method, steps=1)
    assert all(p.grad is None and not p.requires_grad for p in method.keys.parameters())
    assert not any(t.requires_grad for t in method.keys.buffers())
    for part, tensor in method.keys.projector.state_dict().items():
        new = method.projector.state_dict()[part]
        assert not torch.equal(new, ours[part])
        torch.testing.assert_close(tensor, 0.9 * before[f"projector.{part}"] + 0.1 * new)
    latest = method.keys.latest_KD
    assert (len(latest), int(method.keys.queue.pointer)) == (16, 16)
    assert torch.equal(latest[:8], before["queue.keys_KD"][:8])


def test_a_forward_pass_changes_running_statistics_only():
    method = made("light-moco")
    before = {n: t.clone() for n, t in method.state_dict().items()}
    method(views())
    moved = {n for n, t in method.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


@pytest.mark.parametrize("name", ["moco-v2", "light-moco"])
def test_symmetric_is_the_mean_of_both_ways_at_twice_the_cost(name):
    method, (a, b) = made(name, symmetric=True, shuffle_bn=1).eval(), views()
    one_way = made(name, shuffle_bn=1).eval()
    both = [one_way(pair)["total"] for pair in ((a, b), (b, a))]
    torch.testing.assert_close(method([a, b])["total"], sum(both) / 2, rtol=1e-12, atol=0)
    assert len(method.new_keys) == 2 * len(a)
    usual = Passes.of(METHODS[name].facts)
    assert (method.options.passes(usual).dense, one_way.options.passes(usual).dense) == (8, 4)


def test_smoothing_waits_for_its_epochs_and_rises_to_its_value():
    options, plan = METHODS.load("light-moco").Options, Schedule(100, 10)
    assert [options(plain_epochs=3).smoothing_at(s, plan) for s in (0, 29, 30, 100)] == [
        0.0, 0.0, 0.2, 0.2,
    ]  # fmt: skip
    rising = [options(ramp=True, smoothing=0.4).smoothing_at(s, plan) for s in (0, 50, 100)]
    assert rising == pytest.approx([0.0, 0.2, 0.4])
    with pytest.raises(ValidationError, match=r"hardest \(20\) exceeds queue \(8\)"):
        options(queue=8)


@pytest.mark.parametrize("name", ["moco-v2", "light-moco", "ssl-small"])
def test_the_momentum_of_the_keys_rises_by_the_step_of_the_plan(name):
    """From 0.8 to 1, half-way after step 50 of 100; a resumed process goes on there."""
    method = made(name, momentum=0.8, momentum_end=1.0)
    method.begin(Schedule(100, 10, done=50))
    for parameter in method.projector.parameters():
        parameter.data.add_(1.0)
    before = {n: t.clone() for n, t in method.keys.projector.state_dict().items()}
    method(views())
    method.after_step(51)
    ours = dict(method.projector.named_parameters())
    for part, parameter in method.keys.projector.named_parameters():
        torch.testing.assert_close(parameter, 0.9 * before[part] + 0.1 * ours[part])


def test_light_moco_goes_on_softening_where_it_stopped():
    """Step 50 of 100 of a ramp is at half of its value, also in a fresh process."""
    method, x = made("light-moco", ramp=True), views()
    half = made("light-moco", smoothing=0.1)
    method.begin(Schedule(100, 10, done=50))
    half.begin(Schedule(100, 10, done=50))
    torch.testing.assert_close(method(x)["total"], half(x)["total"], rtol=1e-12, atol=0)

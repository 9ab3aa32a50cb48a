"""Methods whose teacher trains along: ReKD style (self-check 36) and OSS style (37)."""

import math

import pytest
import torch

from edgessl.core.errors import RecipeInvalid
from edgessl.encoders import ENCODERS
from edgessl.losses.clustering import cross_entropy, reversed_gradient, sinkhorn
from edgessl.losses.contrastive import info_nce, unit
from edgessl.losses.relation import related_nce
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Schedule, Teacher
from edgessl.slimming.extract import NetSpec, build_sliced

SHORT = "mobilenet_v1_short"
B, K, D = 5, 12, 6


def rows(n, d=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randn(n, d, dtype=torch.float64, generator=generator))


def teacher(width=0.5):
    architecture = ENCODERS.load(SHORT)
    network = architecture.network(width, classes=None, stem="small", seed=5)
    return Teacher(network, architecture.feature_size(width), None, "teacher")


def method(name, **options):
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, 0.25, (0.25,), "small"), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    kind = METHODS.load(name)
    torch.manual_seed(2)
    made = kind(Parts(net, features, teacher()), kind.Options(projector=(24, 16), **options))
    return made.double().train()


def views(n=8, side=16, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator) for _ in "ab"]


def reached(made, term):
    """Parts of the method that get gradient from a term."""
    names, parameters = zip(*made.named_parameters(), strict=True)
    wanted = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad(term, wanted, allow_unused=True, retain_graph=True))
    gradients = [next(found) if p.requires_grad else None for p in parameters]
    return {
        name.partition(".")[0]
        for name, g in zip(names, gradients, strict=True)
        if g is not None and bool(g.abs().max() > 0)
    }


def test_images_without_relations_pay_info_nce_with_equal_gradients():
    q, k, queue = rows(B).requires_grad_(), rows(B, seed=1), rows(K, seed=2)
    alone = (torch.arange(B), torch.full((K,), -1))
    own_groups = (torch.arange(B), torch.arange(B, B + K))
    expected = info_nce(q, k, queue, 0.2)
    wanted = torch.autograd.grad(expected, q)[0]
    for groups in (alone, own_groups):
        loss = related_nce(q, k, queue, groups, 0.2)
        torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
        torch.testing.assert_close(torch.autograd.grad(loss, q)[0], wanted, rtol=1e-12, atol=1e-15)


def test_without_other_keys_there_is_nothing_to_pay():
    q, nothing = rows(B), rows(0)
    groups = (torch.arange(B), torch.zeros(0, dtype=torch.int64))
    assert float(related_nce(q, rows(B, seed=1), nothing, groups, 0.2)) == 0


def test_one_group_with_equal_logits_pays_the_logarithm_of_the_number_of_keys():
    q = torch.zeros(B, D, dtype=torch.float64)
    q[:, 0] = 1
    keys = torch.zeros(K, D, dtype=torch.float64)
    keys[:, 1] = 1
    groups = (torch.zeros(B, dtype=torch.int64), torch.zeros(K, dtype=torch.int64))
    loss = related_nce(q, keys[:B], keys, groups, 0.2)
    assert float(loss) == pytest.approx(math.log(K + 1), abs=1e-12)


def test_a_related_key_is_a_positive_like_the_own_one():
    q, k, queue = rows(1), rows(1, seed=1), rows(3, seed=2)
    groups = (torch.tensor([7]), torch.tensor([7, 3, -1]))
    logits = torch.cat([(q * k).sum(1), (q @ queue.T)[0]]) / 0.5
    by_hand = logits.logsumexp(0) - (logits[0] + logits[1]) / 2
    torch.testing.assert_close(related_nce(q, k, queue, groups, 0.5), by_hand)


def test_sinkhorn_balances():
    scores = 8 * torch.randn(
        48, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    q = sinkhorn(scores, iterations=200)
    torch.testing.assert_close(q.sum(1), torch.ones(48, dtype=torch.float64), rtol=1e-12, atol=0)
    assert float((q.sum(0) - 48 / 12).abs().max()) < 1e-3
    # large scores must not overflow, and balance does not depend on a constant
    torch.testing.assert_close(sinkhorn(scores + 1e4, iterations=200), q, rtol=1e-6, atol=1e-9)


def test_a_cross_entropy_is_never_below_the_entropy_of_its_target():
    logits = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p = logits.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    assert float(cross_entropy(p, logits)) == pytest.approx(float(entropy), abs=1e-12)
    assert cross_entropy(p, logits.flip(1)) > entropy


def test_the_gradient_is_reversed_and_the_value_is_not():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reversed_gradient(x)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert x.grad.tolist() == [-3.0, -3.0]


def test_rekd_style_trains_each_net_by_its_own_terms():
    made = method("rekd-style", queue=16, prototypes=4, relation_from=0)
    made(views())
    made.after_step(1)  # before it there are no other keys
    terms = made(views())
    assert reached(made, terms["teacher"]) == {"teacher", "teacher_projector"}
    assert reached(made, terms["student"]) == {"encoder", "projector"}
    assert reached(made, terms["relation"]) == {"encoder", "projector"}
    weight = made.options.relation_weight
    whole = terms["teacher"] + terms["student"] + weight * terms["relation"]
    torch.testing.assert_close(terms["total"], whole)


def test_rekd_style_relates_keys_by_the_nearest_prototype_of_their_teacher_key():
    made = method("rekd-style", queue=16, prototypes=4, relation_from=2)
    made.begin(Schedule(10, 1))
    before = made.prototypes_MD.clone()
    assert "relation" not in made(views())
    k, k_teacher, group = made.fresh
    assert torch.equal(group, torch.cdist(k_teacher, before).argmin(1))  # of unit norm
    made.after_step(1)
    assert torch.equal(made.keys.latest_KD[:8], k)
    assert made.groups_K.tolist() == group.tolist() + [-1] * 8
    assert torch.equal(made.prototypes_MD[[m for m in range(4) if m not in group]],
                       before[[m for m in range(4) if m not in group]])  # fmt: skip
    torch.testing.assert_close(made.prototypes_MD.norm(dim=1), torch.ones(4).double())
    chosen = int(group[0])
    mean = k_teacher[group == chosen].mean(0)
    nearer = made.prototypes_MD[chosen] @ mean > before[chosen] @ mean
    assert bool(nearer)
    assert "relation" not in made(views())
    made.after_step(2)
    assert "relation" in made(views())


def test_rekd_style_without_a_relation_is_refused():
    made = method("rekd-style", queue=16, prototypes=4, relation_from=8)
    with pytest.raises(RecipeInvalid, match=r"relation_from is 8, but the training has 8 epochs"):
        made.begin(Schedule(80, 10))
    made.begin(Schedule(90, 10))


def test_oss_style_trains_each_net_by_its_own_terms():
    made = method("oss-style", queue=0, prototypes=4)
    terms = made(views())
    assert reached(made, terms["teacher"]) == {"teacher", "teacher_projector", "prototypes"}
    assert reached(made, terms["student"]) == {"encoder", "projector"}
    both = {"encoder", "projector", "teacher", "teacher_projector"}
    assert reached(made, terms["domain"]) == both | {"domain"}


def test_oss_style_balances_over_earlier_images_from_an_epoch_on():
    made = method("oss-style", queue=16, prototypes=4, queue_from=1)
    made.begin(Schedule(4, 1))
    alone = made(views())["total"].detach()
    made(views(seed=4))
    made.after_step(1)
    torch.testing.assert_close(made.queues[0].keys_KD[:8], made.fresh[0])
    with_queue = made(views())["total"].detach()
    assert float(alone) != float(with_queue)


def test_oss_style_balances_over_images_only():
    """A queue that is not yet full holds nothing that no image gave."""
    early, late = (method("oss-style", queue=16, prototypes=4, queue_from=n) for n in (0, 9))
    for made in (early, late):
        made.begin(Schedule(10, 1))
    assert torch.equal(early(views())["total"], late(views())["total"])


@pytest.mark.parametrize("name", ["rekd-style", "oss-style"])
def test_without_a_teacher_the_fix_is_named(name):
    kind = METHODS.load(name)
    made = method(name)
    parts = Parts(made.encoder, {})
    with pytest.raises(RecipeInvalid, match=f"'{name}'") as caught:
        kind(parts, kind.Options())
    assert "--teacher" in caught.value.hint

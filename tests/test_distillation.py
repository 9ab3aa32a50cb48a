"""Learning from a teacher: the losses, SEED and DisCo, and what a frozen teacher must not do."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from edgessl.core.errors import RecipeInvalid
from edgessl.encoders import ENCODERS
from edgessl.losses.contrastive import info_nce, similarities, unit
from edgessl.losses.distillation import embedding_distance, similarity_distillation
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Teacher
from edgessl.methods.frozen_teacher import FrozenTeacher
from edgessl.slimming.extract import NetSpec, build_sliced


def rows(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=generator)


@pytest.fixture
def codes():
    """Unit codes of a student (with gradient), of its teacher, and of other images."""
    return unit(rows(6, 64, 1)).requires_grad_(), unit(rows(6, 64, 2)), unit(rows(20, 64, 3))


def gradient(loss, at):
    return torch.autograd.grad(loss, at)[0]


def distil(student, teacher, queue, tau_s=0.2, tau_t=0.01):
    return similarity_distillation(
        student, teacher, queue, student_temperature=tau_s, teacher_temperature=tau_t
    )


@pytest.mark.parametrize("tau_t", [1e-2, 1e-4])  # of the paper, and of the authors' code
def test_a_sharp_teacher_makes_it_info_nce(codes, tau_t):
    s, t, queue = codes
    ours, theirs = distil(s, t, queue, tau_t=tau_t), info_nce(s, t, queue, 0.2)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, s), gradient(theirs, s), rtol=1e-10, atol=1e-12)


def test_a_student_that_equals_its_teacher_pays_the_entropy_and_is_at_rest(codes):
    _, t, queue = codes
    p = similarities(t, t, queue, 0.2).softmax(1)
    loss = distil(t.clone(), t, queue, tau_t=0.2)
    torch.testing.assert_close(loss, -(p * p.log()).sum(1).mean(), rtol=1e-12, atol=0)
    # with respect to the logits the gradient of a cross-entropy is p^S - p^T
    logits = similarities(t, t, queue, 0.2).requires_grad_()
    entropy = -(p * logits.log_softmax(1)).sum(1).mean()
    assert float(gradient(entropy, logits).abs().max()) < 1e-16
    # so a student code is at rest, too
    s = t.clone().requires_grad_()
    assert float(gradient(distil(s, t, queue, tau_t=0.2), s).abs().max()) < 1e-15


def test_the_loss_worked_by_hand():
    s, t, queue = torch.eye(2)[:1].double(), torch.eye(2)[1:].double(), torch.eye(2)[:1].double()
    # teacher: similarities 1 (itself) and 0; student: 0 and 1
    high, low = math.e / (math.e + 1), 1 / (math.e + 1)
    expected = -(high * math.log(low) + low * math.log(high))
    assert float(distil(s, t, queue, 1.0, 1.0)) == pytest.approx(expected, rel=1e-14)


def test_no_gradient_reaches_the_teacher(codes):
    s, t, queue = codes
    t, queue = t.clone().requires_grad_(), queue.clone().requires_grad_()
    for loss in (distil(s, t, queue), embedding_distance(s, t, "sum")):
        assert torch.autograd.grad(loss, (t, queue), allow_unused=True) == (None, None)


def test_the_distance_is_0_for_equal_and_4_for_opposite_directions():
    t = rows(6, 8, 2)
    for factor, each in ((0.5, 0.0), (-3.0, 4.0)):  # lengths do not count
        mean = float(embedding_distance(factor * t, t, "batchmean"))
        assert mean == pytest.approx(each, abs=1e-14)
        assert float(embedding_distance(factor * t, t, "sum")) == pytest.approx(6 * each, abs=1e-13)


def test_the_distance_is_2_minus_2_cos_with_its_gradient():
    s, t = rows(6, 8, 1).requires_grad_(), rows(6, 8, 2)
    ours = embedding_distance(s, t, "batchmean")
    theirs = (2 - 2 * cosine_similarity(s, t)).mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(ours, s), gradient(theirs, s), rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------ the methods

SHORT = "mobilenet_v1_short"
DIM = 12


class TinyNet(torch.nn.Sequential):
    """Images to 10 pooled features, with a BatchNorm."""

    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 10, 3, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(10),
            torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        )  # fmt: skip


def teacher(*, projected=True):
    """A teacher whose running statistics are not those of a batch."""
    torch.manual_seed(5)
    network = TinyNet().double()
    network(views(1)[0])
    projector = torch.nn.Sequential(torch.nn.Linear(10, DIM)).double() if projected else None
    return Teacher(network, 10, projector, "tiny")


def views(count=2, n=8, side=16):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)
        for _ in range(count)
    ]


def method(name, teaches=None, classes=0, **options):
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, 0.25, (0.25,), "small"), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    kind = METHODS.load(name)
    torch.manual_seed(2)
    return kind(Parts(net, features, teaches, classes), kind.Options(**options)).double().train()


def taught(name, teaches=None, **options):
    return method(name, teaches or teacher(), projector=(24, 99), queue=20, **options)


def buffers(network):
    return {name: tensor.clone() for name, tensor in network.named_buffers()}


def unchanged(network, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in network.named_buffers())


def test_the_student_ends_in_the_dimensions_of_its_teacher():
    for projected, dim in ((True, DIM), (False, 10)):  # without a projector: its features
        for name in ("seed", "disco"):
            made = taught(name, teacher(projected=projected))
            assert [layer.out_features for layer in made.projector[::2]] == [24, dim]


@pytest.mark.parametrize("name", ["seed", "disco"])
@pytest.mark.parametrize("projected", [True, False])
def test_a_teacher_is_asked_once_per_view_as_the_table_says(name, projected):
    images, teaches = [], teacher(projected=projected)
    teaches.network.register_forward_hook(lambda _, x, y: images.append((len(x[0]), y)))
    made = taught(name, teaches)
    assert not images  # nothing is asked before the first step
    made(views(made.views))
    assert [n for n, _ in images] == [8] * int(METHODS[name].facts["teacher_units"])
    assert not any(codes.requires_grad for _, codes in images)  # one unit each


@pytest.mark.parametrize("name", ["seed", "disco"])
def test_a_teacher_stays_as_it_is_and_out_of_the_checkpoint(name):
    teaches = teacher()
    weights, statistics = list(teaches.network.parameters()), buffers(teaches.network)
    made = taught(name, teaches)
    optimizer = torch.optim.SGD(made.parameters(), lr=1.0)
    before = [w.detach().clone() for w in weights]
    for step in range(2):
        optimizer.zero_grad()
        made(views(made.views))["total"].backward()
        optimizer.step()
        made.after_step(step + 1)
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))
    assert unchanged(teaches.network, statistics)
    assert all(w.grad is None for w in weights)
    assert not any("teacher" in key for key in made.state_dict())
    held = {tensor.data_ptr() for tensor in made.state_dict().values()}
    assert not held & {w.data_ptr() for w in weights}
    # a throwaway copy, as for a time budget, asks the same teacher
    assert copy.deepcopy(made).teacher is made.teacher


@pytest.mark.parametrize("bn", ["running", "batch"])
def test_a_teacher_uses_the_statistics_it_is_asked_to_use(bn):
    (x,), teaches = views(1), teacher()
    expected = copy.deepcopy(teaches.network).train(bn == "batch")
    with torch.no_grad():
        wanted = unit(teaches.projector(expected(x)))
    before = buffers(teaches.network)
    asked = FrozenTeacher(
        Parts(method("simclr", projector=(8, 8)).encoder, {}, teaches), "disco", bn=bn
    )
    assert torch.equal(asked(x), wanted)
    assert unchanged(teaches.network, before)


def test_a_teacher_follows_the_images():
    asked = FrozenTeacher(Parts(method("simclr", projector=(8, 8)).encoder, {}, teacher()), "seed")
    assert asked(views(1)[0].float()).dtype == torch.float32
    assert asked(views(1)[0]).dtype == torch.float64


def test_seed_is_its_loss_on_one_view_and_then_enqueues_the_codes():
    teaches = teacher()
    made = taught("seed", teaches, teacher_temperature=0.1)
    made.queue.push(unit(rows(20, DIM, 6)))
    (x,), queue = views(1), made.queue.latest_KD.clone()
    reference = copy.deepcopy(made)
    total = made([x])["total"]
    s = unit(reference.projector(reference.encoder(x, width="host")))
    with torch.no_grad():
        t = unit(teaches.projector(teaches.network(x)))
    torch.testing.assert_close(total, distil(s, t, queue, 0.2, 0.1), rtol=1e-12, atol=0)
    assert torch.equal(made.queue.latest_KD, queue)  # forward moves nothing
    made.after_step(1)
    assert torch.equal(made.queue.latest_KD[:8], t)
    assert torch.equal(made.queue.latest_KD[8:], queue[8:])


def test_disco_without_distillation_is_moco_v2():
    options = {"queue": 20, "temperature": 0.3, "momentum": 0.5}
    disco = method("disco", teacher(), projector=(24, 99), weights=(1, 0, 0), **options)
    moco = method("moco-v2", projector=(24, DIM), **options)
    x = views()
    for step in range(2):  # the second one sees moved keys and a moved queue
        ours, theirs = (made(x)["total"] for made in (disco, moco))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
        for made, loss in ((disco, ours), (moco, theirs)):
            made.zero_grad()
            loss.backward()
            torch.optim.SGD(made.parameters(), lr=0.1).step()
            made.after_step(step + 1)
    for a, b in zip(disco.projector.parameters(), moco.projector.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_disco_weighs_the_contrast_and_each_view():
    x, found = views(), {}
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 2, 3)):
        found[weights] = taught("disco", weights=weights)(x)["total"]
    parts = [found[w] for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    expected = 0.5 * parts[0] + 2 * parts[1] + 3 * parts[2]
    torch.testing.assert_close(found[(0.5, 2, 3)], expected, rtol=1e-12, atol=0)
    summed = taught("disco", weights=(0, 1, 0), mse_reduce="sum")(x)["total"]
    torch.testing.assert_close(summed, 8 * parts[1], rtol=1e-12, atol=0)


def test_only_the_student_gets_gradient_and_from_both_views():
    made, x = taught("disco", weights=(0, 1, 1)), views()
    x = [view.requires_grad_() for view in x]
    total = made(x)["total"]
    assert all(float(g.abs().max()) > 0 for g in torch.autograd.grad(total, x, retain_graph=True))
    total.backward()
    parts = {name.split(".")[0] for name, p in made.named_parameters() if p.grad is not None}
    assert parts == {"encoder", "projector"}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_supervised_is_the_cross_entropy_of_all_labels(smoothing):
    made = method("supervised", classes=5, label_smoothing=smoothing)
    (x,), labels = views(1), torch.arange(8) % 5
    reference = copy.deepcopy(made)
    total = made([x], labels)["total"]
    log_p = reference.classifier(reference.encoder(x, width="host")).log_softmax(1)
    expected = -(1 - smoothing) * log_p[range(8), labels].mean() - smoothing * log_p.mean()
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    assert not hasattr(made, "projector")  # the monitors look at the features


def test_what_cannot_be_taught_is_refused():
    for name in ("seed", "disco"):
        with pytest.raises(RecipeInvalid, match=f"'{name}' learns from a trained teacher"):
            method(name)
    with pytest.raises(RecipeInvalid, match="learns from labels, and there are 0 classes"):
        method("supervised")
    with pytest.raises(ValueError, match="its classifier reads the features"):
        METHODS.load("supervised").Options(projector=(8, 8))

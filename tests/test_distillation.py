"""Learning from a teacher: the losses, SEED and DisCo, and what a frozen teacher must not do."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from edgessl.losses.contrastive import info_nce, similarities, unit
from edgessl.losses.distillation import embedding_distance, similarity_distillation


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

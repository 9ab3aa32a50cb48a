"""What all methods keep to, and those that are parts of SACL+XD.

The numeric self-checks of the method specification and where they are:

==  ==========================================================================================
 1  test_barlow: equal_orthogonal_columns_cost_only_eps
 2  test_barlow: opposite_columns_cost_four_each
 3  test_barlow: independent_columns_have_the_expected_cost
 4  test_barlow: equal_columns_pay_for_every_pair
 5  test_barlow: a_constant_column_adds_one_and_no_nan
 6  test_barlow: invariances_and_symmetry
 7  test_barlow: invariances_and_symmetry
 8  test_sacl_xd: dense_reuse_equals_frozen_passes_bit_for_bit; here: xd_is_sacl_xd_at_one_width
 9  test_barlow: stop_gradient_halves_the_auto_term; here: xd_alone_gives_half_the_gradient...
10  test_sacl_xd: whitened_codes_cost_no_cross_distillation
11  test_sacl_xd: gradients_are_affine_in_alpha_between_sacl_and_xd; here: sacl_is_sacl_xd...
12  test_sacl_xd: each_distillation_term_reaches_one_width_only
13  test_sacl_xd: frozen_passes_change_nothing_of_the_step; test_slimming: frozen_passes_leave...
14  test_sacl_xd: number_of_encoder_passes; here: number_of_encoder_passes
15  test_slimming: keep_counts_are_those_of_the_reference_architecture; test_slim_choice:
    ties_keep_exactly_as_many_and_the_first
16  test_slimming: sliced_equals_masked_with_every_gradient
17  test_encoders: the_extracted_net_is_the_published_one
18  test_slimming: removed_channels_get_gradient_from_the_host_pass_only
19  test_slimming: output_masks_alone_are_not_slicing
20  test_slimming: the_slim_net_never_reads_removed_channels
21  test_slimming: slim_passes_leave_the_host_statistics_alone_and_move_their_own
22  test_slimming: weights_are_shared
23  test_contrastive: a_found_key_among_orthogonal_ones
24  test_contrastive: equal_logits_give_the_log_of_their_number
25  test_contrastive: without_smoothing_soft_nce_is_info_nce, equal_logits_give...
26  test_contrastive: the_queue_keeps_the_latest_keys_and_wraps
27  test_contrastive: a_copy_follows_as_its_momentum_says
28  test_contrastive: keys_get_no_gradient_and_move_after_the_step
29  test_distillation: a_sharp_teacher_makes_it_info_nce
30  test_distillation: a_student_that_equals_its_teacher_pays_the_entropy_and_is_at_rest
31  test_distillation: a_teacher_stays_as_it_is_and_out_of_the_checkpoint, a_teacher_uses_the...
32  test_distillation: the_distance_is_0_for_equal_and_4_for_opposite_directions
33  test_distillation: the_distance_is_2_minus_2_cos_with_its_gradient
34  test_byol: equal_orthogonal_and_opposite_directions, the_loss_is_two_minus_two_cosines...,
    the_momentum_rises_from_its_start_to_one
35  test_ssl_small: with_its_settings_set_back_it_is_moco_v2
36  test_online_teachers: images_without_relations_pay_info_nce..., one_group_with_equal_logits...
37  test_online_teachers: sinkhorn_balances, a_cross_entropy_is_never_below_the_entropy...
38  test_optimizers: a_loss_scale_leaves_matrices_alone_and_scales_vectors
39  test_optimizers: with_clip_a_step_never_exceeds_plain_sgd
40  test_paper_costs: macs_of_whole_classifiers_at_224_px
41  test_cost: flops_are_linear_in_epochs_and_a_wider_host_costs_more
==  ==========================================================================================
"""

from collections import Counter

import numpy as np
import pytest
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import RecipeInvalid
from edgessl.core.images import to_model_input
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS, passes
from edgessl.methods.base import Parts, Teacher, codes, embed
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.slimming.sliced import recalibrate_plain
from edgessl.stages.pretrain import build_method
from edgessl.stages.recipes import validated
from edgessl.stages.watch import Looker

SHORT = "mobilenet_v1_short"
DENSE, SLIM = (0.5, (0.5,)), (0.75, (0.5,))
CLASSES = 4


def method(name, widths=DENSE, bn="switch", **options):
    """A float64 method in training mode; equal widths give equal weights whatever the method."""
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, *widths, "small", bn), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    kind = METHODS.load(name)
    projector = {"projector": (24, 16)} if kind.Options().projector else {}
    torch.manual_seed(2)
    parts = Parts(net, features, teacher_for(kind), CLASSES if kind.uses_labels else 0)
    return kind(parts, kind.Options(**projector, **options)).double().train()


def teacher_for(kind):
    """A wider net for a method that cannot do without a teacher, its codes far from each other."""
    if kind.teacher_kind in ("none", "optional"):
        return None
    architecture = ENCODERS.load(SHORT)
    network = architecture.network(0.5, classes=None, stem="small", seed=5)
    features = architecture.feature_size(0.5)
    torch.manual_seed(6)
    projector = torch.nn.Sequential(
        torch.nn.BatchNorm1d(features, momentum=1.0), torch.nn.Linear(features, 16)
    )
    recalibrate_plain(network, [torch.randn(32, 3, 12, 12)])
    projector.train()(network.eval()(torch.randn(32, 3, 12, 12)))
    return Teacher(network, features, projector, "a wider net")


def views(n=8, side=16, count=2):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)
        for _ in range(count)
    ]


def gradients(made, loss):
    return torch.autograd.grad(loss, list(made.parameters()), allow_unused=True)


def assert_same(ours, theirs, factor=1.0):
    largest = max(float(g.abs().max()) for g in theirs if g is not None)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert float((mine - factor * other).abs().max()) <= 1e-10 * largest


def takes_slim_nets(name):
    return "host_units" in METHODS[name].facts


@pytest.mark.parametrize(
    ("name", "widths", "expected"),
    [
        ("sacl", SLIM, {"host": 1, "0.5x": 1}),
        ("sacl", (0.75, (0.5, 0.25)), {"host": 1, "0.5x": 1, "0.25x": 1}),
        ("sacl", DENSE, {"host": 2}),
        ("xd", DENSE, {"host": 2}),
        ("barlow", DENSE, {"host": 2}),
    ],
)
def test_number_of_encoder_passes(name, widths, expected):
    made, count = method(name, widths), Counter()
    net = made.encoder
    modules = {"host": net.host} | {label: slim.template for label, slim in net.slims.items()}
    for width, module in modules.items():
        module.register_forward_hook(lambda *_, width=width: count.update([width]))
    made(views())
    assert count == expected


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_xd_is_sacl_xd_at_one_width(bn):
    x, both = views(), []
    for name in ("xd", "sacl-xd"):
        made = method(name, bn=bn, alpha=0.7)
        terms = made(x)
        both.append((terms, gradients(made, terms["total"]), list(made.buffers())))
    (xd, xd_gradients, xd_buffers), (sacl_xd, gradients_, buffers) = both
    assert {name: float(term.detach()) for name, term in xd.items()} == {
        name: float(term.detach()) for name, term in sacl_xd.items()
    }
    assert_same(xd_gradients, gradients_)
    assert all(torch.equal(a, b) for a, b in zip(xd_buffers, buffers, strict=True))


def test_xd_alone_gives_half_the_gradient_of_both_auto_correlations():
    made, x = method("xd", alpha=0.0), views()
    ours = gradients(made, made(x)["total"])
    za, zb = (codes(made, view, "host") for view in x)
    distance = made.options.distance
    assert_same(ours, gradients(made, (distance(za, za) + distance(zb, zb)) / 2), factor=0.5)


@pytest.mark.parametrize("widths", [SLIM, DENSE, (0.75, (0.5, 0.25))])
def test_sacl_is_sacl_xd_without_xd(widths):
    x, both = views(), []
    for name, options in (("sacl", {}), ("sacl-xd", {"alpha": 1.0})):
        made = method(name, widths, **options)
        total = made(x)["total"]
        both.append((total, gradients(made, total), list(made.buffers())))
    (ours, our_gradients, our_buffers), (theirs, their_gradients, their_buffers) = both
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert_same(our_gradients, their_gradients)
    assert all(torch.equal(a, b) for a, b in zip(our_buffers, their_buffers, strict=True))


def test_sacl_at_one_width_is_barlow_twins():
    x = views()
    sacl, barlow = (method(name)(x)["total"] for name in ("sacl", "barlow"))
    assert torch.equal(sacl, barlow)


@pytest.mark.parametrize("name", [n for n in METHODS if not takes_slim_nets(n)])
def test_methods_of_one_width_refuse_slim_nets(name):
    with pytest.raises(RecipeInvalid, match=f"'{name}' trains one width"):
        method(name, SLIM)


class Looking:
    """What the monitors of a pretraining see of a method on fixed images."""

    def __init__(self, made, images):
        unknown = np.full(len(images), -1)
        spec, quiet = InputSpec.square(images.shape[1]), Reporter(quiet=True)
        self.made, self.look = made, Looker(made, images, unknown, spec, len(images), quiet)

    def alarm(self):
        return self.look(warm=True)["alarm"]

    def scale(self):
        """Mean standard deviation of an embedding, the smallest over all widths."""
        return min(self.look._outputs(w)[1].std(0).mean() for w in self.made.encoder.labels)


def what_is_wrong_after_learning(made):
    """Train on one batch whose noise is new in every step, so that nothing can be memorised.

    A loss that only pulls views together is least where all embeddings are equal: in direction,
    which the monitors see, or in length, which only the scale shows. Of those that keep images
    apart, embeddings grow, as the optimiser moves along directions.
    """
    side, n = 12, 32
    images = np.random.default_rng(3).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    clean = torch.from_numpy(to_model_input(images, InputSpec.square(side)))
    labels = torch.arange(n) % CLASSES
    noise = torch.Generator().manual_seed(4)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    seen, losses = Looking(made, images), []
    before = seen.scale()
    for step in range(75 if made.teacher_kind in ("frozen", "online") else 25):
        x = [clean + 0.5 * torch.randn(clean.shape, generator=noise) for _ in range(made.views)]
        optimizer.zero_grad()
        loss = made(x, labels)["total"] if made.uses_labels else made(x)["total"]
        loss.backward()
        optimizer.step()
        made.after_step(step)
        losses.append(float(loss.detach()))
    first, last = np.mean(losses[1:4]), np.mean(losses[-4:])  # a queue is filled after one step
    if last > first - 0.04 * abs(first):
        return f"the loss went from {first:.3f} to {last:.3f}"
    if seen.scale() < 0.5 * before:
        return f"the embeddings shrank from {before:.3f} to {seen.scale():.3f}"
    return seen.alarm()


def learner(name):
    widths = (0.375, (0.25,)) if takes_slim_nets(name) else (0.25, (0.25,))
    # a short queue: the keys that it starts with are random directions, soon gone
    queue = {"queue": 32} if "queue" in METHODS.load(name).Options.model_fields else {}
    return method(name, widths, **queue).float()


@pytest.mark.parametrize("name", tuple(METHODS))
def test_every_method_learns_from_one_batch_without_collapse(name):
    assert what_is_wrong_after_learning(learner(name)) is None


class OnlyPulls(torch.nn.Module):
    """Views are asked to agree, and nothing keeps images apart."""

    views, uses_labels, teacher_kind, least_std = 2, False, "none", 0.25

    def __init__(self, distance):
        super().__init__()
        like = learner("barlow")
        self.encoder, self.projector, self.distance = like.encoder, like.projector, distance

    def forward(self, views):
        za, zb = (embed(self, x, "host") for x in views)
        return {"total": self.distance(za, zb)}

    def after_step(self, step):
        pass


def test_methods_that_only_pull_views_together_are_caught():
    by_angle = OnlyPulls(lambda a, b: 1 - torch.cosine_similarity(a, b).mean())
    assert "collapsed" in str(what_is_wrong_after_learning(by_angle))
    by_length = OnlyPulls(torch.nn.functional.mse_loss)
    assert "shrank" in str(what_is_wrong_after_learning(by_length))


@pytest.mark.parametrize("name", tuple(METHODS))
def test_the_cost_in_words_is_that_in_units(name):
    facts = METHODS[name].facts
    words = passes(**{n: facts.get(f"{n}_units", 0) for n in ("dense", "host", "slim", "teacher")})
    assert {fact: facts.get(fact) for fact in words} == words


def test_a_method_that_takes_more_views_than_the_preset_makes_is_refused(monkeypatch):
    monkeypatch.setattr(METHODS.load("barlow"), "views", 3)
    values = {"pretrain": {"method": "barlow"}, "encoder": {"width": "0.25x"}}
    with pytest.raises(RecipeInvalid, match=r"takes 3 views.* makes 2"):
        build_method(validated(values))

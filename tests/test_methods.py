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
15  test_slimming: keep_counts_are_those_of_the_reference_architecture
16  test_slimming: sliced_equals_masked_with_every_gradient
17  test_encoders: the_extracted_net_is_the_published_one
18  test_slimming: removed_channels_get_gradient_from_the_host_pass_only
19  test_slimming: output_masks_alone_are_not_slicing
20  test_slimming: the_slim_net_never_reads_removed_channels
21  test_slimming: slim_passes_leave_the_host_statistics_alone_and_move_their_own
22  test_slimming: weights_are_shared
38  test_optimizers: a_loss_scale_leaves_matrices_alone_and_scales_vectors
39  test_optimizers: with_clip_a_step_never_exceeds_plain_sgd
==  ==========================================================================================
"""

from collections import Counter

import pytest
import torch

from edgessl.core.errors import RecipeInvalid
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.methods.base import embed
from edgessl.slimming.extract import NetSpec, build_sliced

SHORT = "mobilenet_v1_short"
DENSE, SLIM = (0.5, (0.5,)), (0.75, (0.5,))


def method(name, widths=DENSE, bn="switch", **options):
    """A float64 method in training mode; equal widths give equal weights whatever the method."""
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, *widths, "small", bn), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    kind = METHODS.load(name)
    torch.manual_seed(2)
    made = kind.from_options(net, features, kind.Options(projector=(24, 16), **options))
    return made.double().train()


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
    za, zb = (embed(made, view, "host") for view in x)
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


@pytest.mark.parametrize("name", ["sacl-xd", "sacl", "xd", "barlow"])
def test_the_cost_is_what_the_passes_cost(name):
    """Three units a pass with gradient, one a pass without: counted, not declared."""
    facts, units = METHODS[name].facts, Counter()

    def count(width):
        return lambda *_: units.update({width: 3 if torch.is_grad_enabled() else 1})

    made = method(name)
    made.encoder.host.register_forward_hook(count("dense"))
    made(views())
    if takes_slim_nets(name):
        made = method(name, SLIM)
        made.encoder.host.register_forward_hook(count("host"))
        made.encoder.slims["0.5x"].template.register_forward_hook(count("slim"))
        made(views())
    assert units == {w: facts[f"{w}_units"] for w in ("dense", "host", "slim") if w in units}
    assert len(units) == (3 if takes_slim_nets(name) else 1)


@pytest.mark.parametrize("name", tuple(METHODS))
def test_every_method_learns_from_one_batch_without_collapse(name):
    made = method(name, (0.375, (0.25,)) if takes_slim_nets(name) else (0.25, (0.25,))).float()
    x = [view.float() for view in views(32, side=12, count=made.views)]
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = made(x)["total"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        spread = made.encoder(x[0], width="0.25x").std(0)
    assert float(spread.mean()) > 1e-2

"""Slicing against the masked host, gradients included; the traps of shared weights."""

import copy

import pytest
import torch
from masked_oracle import masked_forward
from torch import nn
from torch.func import functional_call

from edgessl.core.errors import FileInvalid, InvalidInput
from edgessl.encoders import ENCODERS
from edgessl.slimming.extract import NetSpec, build_sliced, extract, largest_difference
from edgessl.slimming.plan import ChannelPlan, Group, plan_for
from edgessl.slimming.sliced import recalibrate

NAMES = (*ENCODERS, "timm:test_efficientnet", "timm:test_resnet")


# narrow hosts keep float64 cheap; at 0.5x V3-small has a residual connection more than at 0.75x
V3_SMALL = ("mobilenet_v3_small", "mobilenet_v3_small_pooled")
WIDTHS = dict.fromkeys(V3_SMALL, (1.0, 0.75)) | {
    name: (0.25, 0.125) for name in ("mobilenetv4_conv_small", "resnet34", "resnet50", "resnet101")
}


def spec_of(name, widths=None, bn="switch"):
    host, slim = widths or WIDTHS.get(name, (0.75, 0.5))
    return NetSpec(name, host, (slim,), "small", bn)


def sliced_net(name, widths=None, bn="switch"):
    """A float64 net whose BatchNorms are far from their initial values."""
    net = build_sliced(ENCODERS.load(name), spec_of(name, widths, bn), seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in (*net.host.modules(), *net.norms.modules()):
            if isinstance(layer, nn.BatchNorm2d):
                scales = [layer.running_var] + ([layer.weight] if layer.affine else [])
                shifts = [layer.running_mean] + ([layer.bias] if layer.affine else [])
                for tensor in scales:
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
                for tensor in shifts:
                    tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return net


def plan_of(net):
    (slim,) = net.slims.values()
    return slim.plan


def slim_of(net):
    (label,) = net.labels
    return label


def images(n=8, side=16, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)


def relative(a, b):
    return float(((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).detach())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("training", "bn"), [(True, "switch"), (False, "switch"), (True, "shared")]
)
def test_sliced_equals_masked_with_every_gradient(name, training, bn):
    net = sliced_net(name, bn=bn).train(training)
    x = images()
    group = plan_of(net).groups[ENCODERS.load(name).feature_group(net.host)]
    keep = torch.tensor(group.keep)
    weights = torch.randn(len(keep), dtype=torch.float64)

    masked = masked_forward(net, slim_of(net), x)  # on copies of the statistics
    sliced = net(x, width=slim_of(net))
    removed = torch.ones(group.host, dtype=torch.bool)
    removed[keep] = False
    assert masked[:, removed].abs().sum() == 0
    assert relative(sliced, masked[:, keep]) < 1e-12

    parameters = [*net.host.parameters(), *net.norms.parameters()]
    names = [n for n, _ in (*net.host.named_parameters(), *net.norms.named_parameters())]
    ours = torch.autograd.grad((sliced @ weights).square().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(
        (masked[:, keep] @ weights).square().sum(), parameters, allow_unused=True
    )
    largest = max(float(g.abs().max()) for g in theirs if g is not None)
    for tensor, mine, other in zip(names, ours, theirs, strict=True):
        if mine is None or other is None:
            assert mine is None, tensor
            assert other is None, tensor
            continue
        # parameters whose true gradient is zero leave rounding only: relative to the largest
        assert float((mine - other).abs().max()) < 1e-10 * largest, tensor


@pytest.mark.parametrize("name", NAMES)
def test_removed_channels_get_gradient_from_the_host_pass_only(name):
    net = sliced_net(name).train()
    x = images()
    for width, expect_zero in ((slim_of(net), True), ("host", False)):
        net.zero_grad(set_to_none=True)
        net(x, width=width).square().sum().backward()
        seen = 0.0
        for tensor, axes in plan_of(net).axes.items():
            parameter = dict(net.host.named_parameters()).get(tensor)
            if parameter is None or parameter.grad is None or not any(axes):
                continue
            removed = torch.ones_like(parameter, dtype=torch.bool)
            index = [slice(None)] * parameter.ndim
            for axis, group in enumerate(axes):
                if group is not None:
                    index[axis] = slice(0, len(plan_of(net).groups[group].keep))
            removed[tuple(index)] = False
            seen = max(seen, float(parameter.grad[removed].abs().max()) if removed.any() else 0.0)
        assert (seen == 0.0) == expect_zero


def test_keep_counts_are_those_of_the_reference_architecture():
    net = sliced_net("mobilenet_v3_large", (1.5, 1.0))
    counts = {g.host: len(g.keep) for g in plan_of(net).groups.values()}
    assert counts[64] == 40  # int(64 / 1.5) would be 42
    assert counts[40] == 24  # int(40 / 1.5) would be 26
    differing = sum(int(g.host / 1.5) != len(g.keep) for g in plan_of(net).groups.values())
    assert (differing, len(plan_of(net).groups)) == (13, 30)


def test_the_slim_net_never_reads_removed_channels():
    net = sliced_net("mobilenet_v2").eval()
    x = images()
    before = net(x, width=slim_of(net))
    with torch.no_grad():
        for tensor, parameter in net.host.named_parameters():
            kept = (
                plan_of(net).take(tensor, parameter).clone()
                if tensor in plan_of(net).axes
                else None
            )
            parameter.fill_(float("nan"))
            if kept is not None:
                plan_of(net).put(tensor, parameter, kept)
    assert torch.equal(net(x, width=slim_of(net)), before)
    assert net(x, width="host").isnan().all()


def test_slim_passes_leave_the_host_statistics_alone_and_move_their_own():
    net = sliced_net("mobilenet_v2").train()
    host = {n: b.clone() for n, b in net.host.named_buffers()}
    own = {n: b.clone() for n, b in net.norms.named_buffers()}
    net(images(), width=slim_of(net))
    assert all(torch.equal(b, host[n]) for n, b in net.host.named_buffers())
    assert not any(torch.equal(b, own[n]) for n, b in net.norms.named_buffers())


def test_frozen_passes_leave_every_statistic_alone():
    net = sliced_net("mobilenet_v2").train()
    before = {n: b.clone() for n, b in net.state_dict().items()}
    generator_state = torch.get_rng_state()
    for width in ("host", slim_of(net)):
        live = net(images(), width=width).detach()
        net.load_state_dict(before)
        with torch.no_grad():
            frozen = net(images(), width=width, frozen=True)
        assert torch.equal(frozen, live)  # the same function: batch statistics in both
        assert all(torch.equal(b, before[n]) for n, b in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator_state)


def test_weights_are_shared():
    net = sliced_net("mobilenet_v1_short").train()
    x = images()
    before = net(x, width="host", frozen=True).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x, width=slim_of(net)).square().mean().backward()
    optimizer.step()
    assert not torch.allclose(net(x, width="host", frozen=True), before)


def test_output_masks_alone_are_not_slicing():
    """A removed channel still emits act(beta): visible through a zero-padded 3 x 3, not a 1 x 1."""
    torch.manual_seed(0)
    x = images(8, 12)
    for kernel, equal in ((1, True), (3, False)):
        first, norm = nn.Conv2d(3, 6, 1, bias=False).double(), nn.BatchNorm2d(6).double()
        second = nn.Conv2d(6, 4, kernel, padding=kernel // 2, bias=False).double()
        last = nn.BatchNorm2d(4).double()
        with torch.no_grad():
            norm.bias.fill_(0.7)
        mask = torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64)
        hidden = functional_call(norm, {}, (first(x) * mask.view(1, -1, 1, 1),)).relu()
        masked = last(second(hidden))
        sliced = last(
            nn.functional.conv2d(hidden[:, :4], second.weight[:, :4], padding=kernel // 2)
        )
        assert torch.allclose(masked, sliced, atol=1e-9) == equal


@pytest.mark.parametrize("name", NAMES)
def test_index_sets_select_the_same_net_as_a_prefix_of_permuted_channels(name):
    """Permuting a host's channels group by group and keeping the images of the prefix."""
    net = sliced_net(name).eval()
    x = images()
    expected = net(x, width=slim_of(net))
    generator = torch.Generator().manual_seed(4)
    order = {n: torch.randperm(g.host, generator=generator) for n, g in plan_of(net).groups.items()}
    permuted = copy.deepcopy(net)
    with torch.no_grad():
        for tensor, parameter in permuted.host.state_dict().items():
            for axis, group in enumerate(plan_of(net).axes[tensor]):
                if group is not None:
                    parameter.copy_(parameter.index_select(axis, order[group].argsort()))
    groups = {
        n: Group(g.host, tuple(order[n][: len(g.keep)].tolist()))
        for n, g in plan_of(net).groups.items()
    }
    permuted.slims[slim_of(net)].plan = ChannelPlan(groups, plan_of(net).axes)
    assert not any(g.is_prefix for g in groups.values())
    assert relative(permuted(x, width=slim_of(net)), expected) < 1e-12
    assert (
        relative(
            permuted(x, width="host"), net(x, width="host")[:, feature_order(name, net, order)]
        )
        < 1e-12
    )
    plain = extract(ENCODERS.load(name), spec_of(name), permuted, slim_of(net))
    assert relative(plain.double()(x), expected) < 1e-5
    again = ChannelPlan.from_dict(plan_of(permuted).as_dict())
    assert again.groups == plan_of(permuted).groups


def feature_order(name, net, order):
    return order[ENCODERS.load(name).feature_group(net.host)].argsort()


@pytest.mark.parametrize("name", NAMES)
def test_extraction_and_writing_back_are_inverse(name):
    net = sliced_net(name).float().eval()
    spec = spec_of(name)
    plain = extract(ENCODERS.load(name), spec, net, slim_of(net))
    assert largest_difference(plain, net, slim_of(net), images().float()) <= 1e-5
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.01)
    before = {n: t.clone() for n, t in net.host.named_parameters()}
    net.write_back(slim_of(net), plain.state_dict())
    assert largest_difference(plain, net, slim_of(net), images().float()) <= 1e-5
    for tensor, parameter in net.host.named_parameters():
        old, new = before[tensor].clone(), parameter.detach().clone()
        if tensor in net.slims[slim_of(net)].sliced_names:
            plan_of(net).put(tensor, old, torch.zeros_like(plan_of(net).take(tensor, old)))
            plan_of(net).put(tensor, new, torch.zeros_like(plan_of(net).take(tensor, new)))
        assert torch.equal(old, new), tensor  # what lies outside the slice is untouched


def test_a_dense_plan_is_the_host_itself():
    net = sliced_net("mobilenet_v2", (0.5, 0.5)).train()
    assert net.is_dense
    assert not list(net.norms.parameters())
    x = images()
    assert torch.equal(net(x, width="host", frozen=True), net(x, width=slim_of(net), frozen=True))


@pytest.mark.parametrize(
    ("name", "width"),
    [("mobilenet_v3_small", 0.5), ("mobilenet_v2", 0.25), ("efficientnet_b0", 0.25)],
)
def test_widths_that_differ_in_residual_connections_are_refused(name, width):
    with pytest.raises(InvalidInput, match="has a residual connection in the slim net only"):
        build_sliced(ENCODERS.load(name), NetSpec(name, 1.5, (1.0, width)))


def test_a_slim_net_wider_than_its_host_is_refused():
    architecture = ENCODERS.load("mobilenet_v1_short")
    wide, narrow = (architecture.network(w, classes=None) for w in (1.5, 1.0))
    with pytest.raises(InvalidInput, match="is not a slice"):
        plan_for(architecture, narrow, wide, widths=(1.0, 1.5))


def test_a_malformed_plan_is_refused():
    plan = plan_of(sliced_net("mobilenet_v1_short")).as_dict()
    plan["groups"]["stem"]["keep"] = [0, 0]
    with pytest.raises(FileInvalid, match="twice or outside"):
        ChannelPlan.from_dict(plan)


@pytest.mark.parametrize("bn", ["switch", "shared"])
@pytest.mark.parametrize("width", ["host", "0.5x"])
def test_recalibration_gives_the_plain_average_over_batches(width, bn):
    net = sliced_net("mobilenet_v1_short", bn=bn).train()
    batches = [images(8, seed=s) for s in range(3)]
    recalibrate(net, width, batches)
    first = net.host.get_submodule("features.0.0")
    weight = (
        first.weight if width == "host" else plan_of(net).take("features.0.0.weight", first.weight)
    )
    means = [
        nn.functional.conv2d(b, weight, stride=first.stride, padding=1).mean((0, 2, 3))
        for b in batches
    ]
    norm = (
        net.host.get_submodule("features.0.1")
        if width == "host"
        else net.slims[slim_of(net)].norms["features/0/1"]
    )
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    assert norm.momentum == 0.1


def test_the_template_is_no_part_of_the_state():
    net = sliced_net("mobilenet_v1_short")
    assert all(k.startswith(("host.", "norms.")) for k in net.state_dict())
    assert all(p.device.type == "cpu" for p in net.parameters())

"""Several slim nets in one host, and BatchNorms that they share with it."""

import copy

import pytest
import torch
from masked_oracle import masked_forward
from torch import nn

from edgessl.encoders import ENCODERS
from edgessl.slimming.extract import NetSpec, build_sliced, extract, largest_difference
from edgessl.slimming.sliced import HOST, Sliced

SHORT = "mobilenet_v1_short"
# V3-small gains a residual connection at 0.5x; the others have narrow hosts to be quick
V3_SMALL = ("mobilenet_v3_small", "mobilenet_v3_small_pooled")
WIDTHS = (
    {SHORT: (1.5, (1.0, 0.5))}
    | dict.fromkeys(V3_SMALL, (1.5, (1.0, 0.75)))
    | {
        name: (0.375, (0.25, 0.125))
        for name in ("mobilenetv4_conv_small", "resnet34", "resnet50", "resnet101")
    }
)


def spec_of(name, bn="switch"):
    return NetSpec(name, *WIDTHS.get(name, (1.0, (0.75, 0.5))), "small", bn)


def nets(name=SHORT, bn="switch"):
    """A float64 net with slims, after one step of every width: no statistics are initial."""
    net = build_sliced(ENCODERS.load(name), spec_of(name, bn), seed=1).double().train()
    for seed, width in enumerate((HOST, *net.labels)):
        net(images(seed=seed), width=width)
    return net


def images(n=8, side=16, seed=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)


def snapshot(net, width):
    tensors = net.host.state_dict() if width == HOST else net.tensors(width)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moved(net, width, before):
    return [name for name, tensor in snapshot(net, width).items() if not tensor.equal(before[name])]


@pytest.mark.parametrize("name", [*ENCODERS, "timm:test_byobnet"])
@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_every_extracted_net_equals_its_slim_pass(name, bn):
    net, spec = nets(name, bn).float(), spec_of(name, bn)
    for label in spec.labels:
        plain = extract(ENCODERS.load(name), spec, net, label)
        assert largest_difference(plain, net, label, images().float()) <= 1e-6
        with torch.no_grad():
            for tensor in plain.parameters():
                tensor.add_(0.01)
        net.write_back(label, plain.state_dict())
        assert largest_difference(plain, net, label, images().float()) <= 1e-6


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_the_narrowest_net_equals_the_masked_host(bn):
    net = nets(bn=bn)
    for mode in (True, False):
        net.train(mode)
        with torch.no_grad():
            masked, sliced = masked_forward(net, "0.5x", images()), net(images(), width="0.5x")
        assert float((masked[:, : sliced.shape[1]] - sliced).abs().max()) < 1e-12
        assert float(masked[:, sliced.shape[1] :].abs().max()) == 0


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_a_pass_moves_the_statistics_of_its_width_only(bn):
    net = nets(bn=bn)
    for width in (HOST, *net.labels):
        before = {other: snapshot(net, other) for other in (HOST, *net.labels)}
        net(images(seed=20), width=width)
        for other in before:
            changed = moved(net, other, before[other])
            assert bool(changed) == (other == width)
            assert all(".running_" in name or ".num_batches" in name for name in changed)


def test_training_the_norms_of_one_width_leaves_the_others_alone():
    net = nets().eval()
    before = {width: snapshot(net, width) for width in (HOST, *net.labels)}
    optimizer = torch.optim.SGD(net.slims["1x"].norms.parameters(), lr=0.1)
    net(images(), width="1x").square().sum().backward()
    optimizer.step()
    assert moved(net, "1x", before["1x"])
    assert not moved(net, "0.5x", before["0.5x"])
    assert not moved(net, HOST, before[HOST])


def test_shared_norms_have_statistics_of_their_own_and_no_affine():
    net = nets(bn="shared")
    assert not list(net.norms.parameters())
    assert {key.rpartition(".")[2] for key in net.norms.state_dict()} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    host = net.host.get_submodule("features.0.1")
    assert isinstance(host, nn.BatchNorm2d)
    for label in net.labels:
        own = net.tensors(label)
        width = len(own["features.0.1.weight"])
        assert own["features.0.1.weight"].data_ptr() == host.weight.data_ptr()  # a view
        assert not torch.equal(own["features.0.1.running_mean"], host.running_mean[:width])


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_shared_weights_get_the_sum_of_the_gradients_of_plain_nets(bn):
    """Against extracted nets, which share nothing: kept entries add up, the rest is the host's."""
    net, spec, architecture = nets(bn=bn), spec_of(SHORT, bn), ENCODERS.load(SHORT)
    losses = [net(images(), width=w, frozen=True).square().sum() for w in (HOST, *net.labels)]
    torch.stack(losses).sum().backward()

    alone = copy.deepcopy(net.host)
    alone.zero_grad()
    alone.train()(images()).square().sum().backward()
    expected = {n: p.grad.clone() for n, p in alone.named_parameters()}
    for label in net.labels:
        plain = extract(architecture, spec, net, label).double()
        plain.load_state_dict(net.tensors(label))
        plain.train()(images()).square().sum().backward()
        slim = net.slims[label]
        for name, parameter in plain.named_parameters():
            if name in slim.sliced_names:
                slim.plan.take(name, expected[name]).add_(parameter.grad)
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, parameter in net.host.named_parameters():
        assert float((parameter.grad - expected[name]).abs().max()) < 1e-10 * largest, name
    shared = "features.0.1.weight" in net.slims["1x"].sliced_names
    assert shared == (bn == "shared")


@pytest.mark.parametrize("bn", ["switch", "shared"])
def test_a_copy_is_whole_and_its_own(bn):
    net = nets(bn=bn)
    twin = copy.deepcopy(net)
    assert isinstance(twin, Sliced)
    for label in net.labels:
        assert twin.slims[label].norms is twin.norms[label.replace(".", "/")]
        assert twin.slims[label].norms is not net.slims[label].norms
    before = {width: snapshot(net, width) for width in (HOST, *net.labels)}
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    sum(twin(images(), width=w).square().sum() for w in (HOST, *twin.labels)).backward()
    optimizer.step()
    for width in before:
        assert moved(twin, width, before[width])
        assert not moved(net, width, before[width])
    net.load_state_dict(twin.state_dict())
    for width in (HOST, *net.labels):
        assert torch.equal(net(images(), width=width), twin(images(), width=width))

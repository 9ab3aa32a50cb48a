"""Quantisation simulated in PyTorch: rounding, sensitivity, and fine-tuning that lives with it.

The net that int8 breaks comes from ``int8_trap``: the same function as before, with channels of
very different size in front of one layer.
"""

import json
import math
import signal

import numpy as np
import pytest
import torch
from int8_trap import places, trap
from torch import nn
from torch.nn import functional as F

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, Interrupted, UsageProblem
from edgessl.core.images import to_model_input
from edgessl.data.digits import open_digits
from edgessl.encoders import ENCODERS
from edgessl.quantization.aware import AwareImages, AwarePlan, fine_tuned
from edgessl.quantization.figures import measure
from edgessl.quantization.sensitivity import (
    LayerSensitivity,
    alone,
    feeders,
    file_error,
    most_sensitive,
    record,
    to_keep_in_float,
)
from edgessl.quantization.simulate import (
    Range,
    Simulated,
    input_ranges,
    layer_names,
    rounded_weight,
    simulated,
)

QUIET = Reporter(quiet=True)
SPEC = InputSpec.square(16)
TRAINED = 1000  # digits to train on; 100 to calibrate, 100 to choose, the others to test


@pytest.fixture(scope="module")
def digits():
    data = open_digits()
    images = np.stack([data.load(i) for i in range(len(data.items))])
    return images.repeat(2, axis=1).repeat(2, axis=2), torch.as_tensor(data.labels)


@pytest.fixture(scope="module")
def network(digits):
    """A small MobileNetV1 that reads digits."""
    images, labels = digits
    x = torch.from_numpy(to_model_input(images[:TRAINED], SPEC))
    net = ENCODERS.load("mobilenet_v1_short").network(0.25, classes=10).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(80):
        chosen = torch.randint(0, TRAINED, (48,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(net(x[chosen]), labels[chosen]).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def split(digits):
    """Prepared images to calibrate and to test with, and those of fine-tuning."""
    images, _ = digits
    calibration, test = (
        torch.from_numpy(to_model_input(part, SPEC)) for part in (images[1000:1100], images[1200:])
    )
    return calibration, test, AwareImages(images[:1000], images[1000:1100], images[1100:1200], SPEC)


@pytest.fixture(scope="module")
def trapped(network):
    return trap(network)


@torch.no_grad()
def deviation(reference, other, images):
    return measure(reference(images).numpy(), other(images).numpy())


def tensors(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal_tensors(network, before):
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


# rounding


def on_grid(x, scale, zero_point, low, high):
    """Integers and back, written down once more in float64."""
    integers = np.rint(x.detach().double().numpy() / scale + zero_point).clip(low, high)
    return torch.from_numpy((integers - zero_point) * scale).float()


def test_weights_are_rounded_to_symmetric_int8():
    by_hand = torch.tensor([[1.27, -0.014], [0.0, 0.0], [-2.54, 0.031]])
    per_channel = torch.tensor([[1.27, -0.01], [0.0, 0.0], [-2.54, 0.04]])  # steps 0.01, -, 0.02
    assert torch.allclose(rounded_weight(by_hand), per_channel, atol=1e-7)
    per_tensor = torch.tensor([[1.28, -0.02], [0.0, 0.0], [-2.54, 0.04]])  # 0.02 everywhere
    assert torch.allclose(rounded_weight(by_hand, per_channel=False), per_tensor, atol=1e-7)

    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    scale = weight.abs().amax((1, 2, 3), keepdim=True).double().numpy() / 127
    assert torch.allclose(rounded_weight(weight), on_grid(weight, scale, 0, -127, 127), atol=1e-6)


def test_inputs_are_rounded_to_unsigned_integers():
    assert Range(-1.0, 3.0).grid(8) == (pytest.approx(4 / 255), 64)
    assert Range(0.0, 0.0).grid(8)[1] == 0  # a tensor of zeros has a grid, too

    linear = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(linear[0].weight)
    x = torch.linspace(-2.0013, 3.9987, 601)[:, None]
    # float32 may take the other of two neighbours where 65,536 of them are this near
    for bits, zero_point, tolerance in ((8, 64, 1e-6), (16, 16384, 1.01 * 4 / 65535)):
        got = Simulated(linear, {"0": Range(-1.0, 3.0)}, activation_bits=bits)(x).detach()
        top = 2**bits - 1
        assert torch.allclose(got, on_grid(x, 4 / top, zero_point, 0, top), atol=tolerance)
        assert float(got.min()) == pytest.approx(-zero_point * 4 / top)
        assert float(got.max()) == pytest.approx((top - zero_point) * 4 / top)


class Backwards(nn.Module):
    """Its layers are registered in the other order than they are executed."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Linear(1, 2), nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.first.weight)

    def forward(self, images_BCHW):
        return self.second(self.first(images_BCHW).mean((2, 3)))


def test_ranges_follow_from_the_images():
    net = Backwards().eval()
    images = torch.zeros(4, 3, 100, 100)
    images[0, 0, 0, 0], images[1, 1, 0, 0], images[2] = 8.0, -2.0, 0.5
    assert list(input_ranges(net, images.split(3))) == ["first", "second"]  # of execution
    assert layer_names(net) == ["second", "first"]
    assert input_ranges(net, [images])["first"] == (-2.0, 8.0)
    # per image: 0..8, -2..0, 0.5..0.5, 0..0; however they are cut into batches
    for batches in ([images], images.split(1)):
        averaged = input_ranges(net, batches, "moving_average")["first"]
        assert averaged == (pytest.approx(-1.5 / 4), pytest.approx(8.5 / 4))
    # one value of 120,000 is far less than 0.01 %, and half of an image is far more
    clipped = input_ranges(net, [images], "percentile")["first"]
    assert clipped == (pytest.approx(0.0, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_what_cannot_be_calibrated_is_refused():
    net = Backwards().eval()
    with pytest.raises(DataInvalid, match="no images"):
        simulated(net, [])
    with pytest.raises(DataInvalid, match="'first' is fed NaN"):
        simulated(net, [torch.full((1, 3, 2, 2), math.nan)])
    with pytest.raises(UsageProblem, match="'frist'") as caught:
        simulated(net, [torch.zeros(1, 3, 2, 2)], modules=["frist"])
    assert "'first'" in caught.value.hint


def test_gradients_pass_the_rounding_and_stop_where_it_clips():
    net = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(net[0].weight, 0.5)
    x = torch.tensor([[-9.0], [1.0], [9.0]], requires_grad=True)
    student = Simulated(net, {"0": Range(-2.0, 2.0)})
    student(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([0.0, 0.5, 0.0])
    clipped = -128 * 4 / 255 + 1.0 + 127 * 4 / 255  # what the layer was really fed
    assert net[0].weight.grad.item() == pytest.approx(clipped, abs=4 / 255)


def test_nothing_quantised_is_the_float_net_and_the_float_net_is_left_alone(network, split):
    calibration, test, _ = split
    before = tensors(network)
    net = simulated(network, [calibration], modules=[])
    with torch.no_grad():
        assert torch.equal(net(test), network(test))
        net.switch(net.ranges)
        assert not torch.equal(net(test), network(test))
    assert_equal_tensors(network, before)
    assert not any(m._forward_pre_hooks for n in (network, net) for m in n.modules())


def test_eight_bits_are_enough_for_a_plain_net_and_four_are_not(network, split):
    calibration, test, _ = split
    seen = {
        bits: deviation(network, simulated(network, [calibration], activation_bits=bits), test)
        for bits in (4, 8, 16)
    }
    assert seen[8].agreement >= 0.97
    assert seen[4].kl > 10 * seen[8].kl > 20 * seen[16].kl
    per_tensor = simulated(network, [calibration], per_channel=False)
    assert deviation(network, per_tensor, test).kl > seen[8].kl


# the trap


@pytest.mark.parametrize(
    "encoder", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"]
)
def test_the_trap_changes_nothing_in_float(encoder):
    net = ENCODERS.load(encoder).network(0.25, classes=5).eval()
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # biases, so that ReLU has something to cut
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for at in range(len(places(net))):
            assert torch.equal(trap(net, at=at, octaves=6)(x), net(x))


def test_the_trapped_layer_is_found_and_mended_by_keeping_it_in_float(network, trapped, split):
    calibration, test, _ = split
    with torch.no_grad():
        assert torch.equal(trapped(test), network(test))
    broken = simulated(trapped, [calibration])
    assert deviation(network, broken, test).agreement < 0.75

    rows = alone(trapped, test[:128].split(50), [calibration], reporter=QUIET)
    assert [row.module for row in rows] == list(broken.ranges)
    (worst,) = most_sensitive(rows, 1)
    place = max(places(network), key=lambda one: (one.depthwise, one.channels))
    assert (worst,) == place.readers
    # its feeder is the convolution of the BatchNorm that was scaled
    (feeder,) = (name.removesuffix("4") + "3" for name in place.writers)
    assert to_keep_in_float(rows, trapped)[0] == (worst, feeder)
    others = [row for row in rows if row.module != worst]
    assert max(row.alone_kl for row in others) < 0.01
    assert min(row.alone_snr_db for row in others) > 25

    broken.switch(row.module for row in others)
    assert deviation(network, broken, test).agreement >= 0.97
    finer = simulated(trapped, [calibration], activation_bits=16)
    assert deviation(network, finer, test).agreement >= 0.97


def test_what_feeds_a_layer_is_followed_through_sums_and_squeeze():
    fed = feeders(ENCODERS.load("mobilenet_v3_small").network(0.25, classes=3))
    assert list(fed)[:2] == ["features.0.0", "features.1.block.0.0"]  # of execution
    assert fed["features.0.0"] == ()
    assert fed["features.1.block.1.fc1"] == ("features.1.block.0.0",)
    # the projection reads the depthwise convolution times what the squeeze makes of it
    assert set(fed["features.1.block.2.0"]) == {"features.1.block.0.0", "features.1.block.1.fc2"}
    # behind a residual connection: the last projection and what it is added to
    assert set(fed["features.4.block.0.0"]) == {"features.2.block.2.0", "features.3.block.2.0"}


def test_the_record_of_sensitivity_holds_both_views():
    rows = [
        LayerSensitivity("a", "conv", 40.0, 1e-4, 1.0),
        LayerSensitivity("b", "conv", 12.0, 0.5, 0.7),
        LayerSensitivity("c", "linear", 30.0, 1e-2, 0.9),
    ]
    assert most_sensitive(rows, 2) == ["b", "c"]
    want = {"a": np.full((2, 3, 1, 1), 10.0), "b": np.ones((2, 2)), "c": np.ones((2, 2))}
    got = {"a": np.full((2, 3, 1, 1), 11.0), "b": np.ones((2, 2))}  # c was fused away
    errors = file_error(want, got)
    assert errors == {"a": pytest.approx(20.0), "b": pytest.approx(300.0)}
    body = record(rows, errors, seal="f" * 64, images=64)
    assert json.loads(json.dumps(body)) == body
    assert [row["file_snr_db"] for row in body["layers"]] == [*errors.values(), None]
    assert body["layers"][1]["alone_agreement"] == 0.7


# fine-tuning


def test_fine_tuning_brings_a_broken_net_nearer_and_gives_a_stock_net(network, trapped, split):
    calibration, test, images = split
    before = tensors(trapped)
    plan = AwarePlan(steps=24, learning_rate=3e-4, checks=3)
    net, facts = fine_tuned(trapped, images, plan, reporter=QUIET)
    assert_equal_tensors(trapped, before)
    assert facts.steps == 24
    assert facts.ended_by == "steps"
    assert facts.kl_after < 0.7 * facts.kl_before
    assert facts.loss_last < facts.loss_first
    after = deviation(network, simulated(net, [calibration]), test)  # images it never saw
    assert after.kl < 0.8 * deviation(network, simulated(trapped, [calibration]), test).kl

    stock = ENCODERS.load("mobilenet_v1_short").network(0.25, classes=10)
    stock.load_state_dict(net.state_dict(), strict=True)
    for name, tensor in net.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(tensor, before[name]), name

    again, _ = fine_tuned(trapped, images, plan, reporter=QUIET)
    assert_equal_tensors(again, net.state_dict())


@pytest.mark.parametrize(
    ("plan", "ended_by"),
    [
        (AwarePlan(steps=6, learning_rate=1e37), "divergence"),
        (AwarePlan(steps=2, learning_rate=0.3, checks=2), "steps"),
        (AwarePlan(max_seconds=0.0), "seconds"),
    ],
    ids=["diverges", "gets worse", "has no time"],
)
def test_fine_tuning_never_returns_something_worse(network, split, plan, ended_by):
    net, facts = fine_tuned(network, split[2], plan, reporter=QUIET)
    assert (facts.ended_by, facts.kept_step) == (ended_by, 0)
    assert facts.kl_after == facts.kl_before
    assert_equal_tensors(net, network.state_dict())
    assert json.dumps(facts.kl_after)


def test_layers_that_stay_in_float_are_not_rounded_in_fine_tuning(trapped, split):
    floating = tuple(layer_names(trapped))
    plan = AwarePlan(steps=0, float_layers=floating)
    _, facts = fine_tuned(trapped, split[2], plan, reporter=QUIET)
    assert facts.kl_before == pytest.approx(0.0, abs=1e-6)


def test_a_signal_ends_fine_tuning(network, split):
    class Loud(Reporter):
        def bar(self, label, total, *, done=0):
            signal.raise_signal(signal.SIGINT)
            return super().bar(label, total, done=done)

    with pytest.raises(Interrupted, match="after step 1 of 300"):
        fine_tuned(network, split[2], AwarePlan(), reporter=Loud(quiet=True))
    images = AwareImages(*(np.zeros((0, 16, 16, 3), np.uint8) for _ in range(3)), SPEC)
    with pytest.raises(DataInvalid, match="no training images"):
        fine_tuned(network, images, AwarePlan(), reporter=QUIET)

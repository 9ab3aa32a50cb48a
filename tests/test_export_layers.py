"""Operations of a file find their PyTorch modules by their weights alone."""

import numpy as np
import pytest

from edgessl.core.errors import ConversionFailed
from edgessl.exporters.base import Layer
from edgessl.exporters.layers import match, modules_in_order


def rows(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


MODULES = [
    ("stem", "conv", rows((16, 27), 0)),
    ("depthwise", "conv", rows((16, 9), 1)),
    ("twin_a", "conv", rows((16, 16), 2)),
    ("twin_b", "conv", rows((16, 16), 3)),
    ("head", "linear", rows((5, 16), 4)),
]


def folded(weights, seed):
    """Scale every output channel as BatchNorm does, half of them negatively."""
    scales = np.random.default_rng(seed).uniform(0.01, 30, size=(len(weights), 1))
    scales[::2] *= -1
    return (weights * scales).astype(np.float32)


def test_folded_and_permuted_layers_are_found_and_keep_the_order_of_the_file():
    order = [3, 0, 4, 2, 1]  # the two layers of equal shape change places, too
    found = [(f"op{i}", folded(MODULES[i][2], seed=i)) for i in order]
    assert match(MODULES, found) == [Layer(MODULES[i][0], f"op{i}", MODULES[i][1]) for i in order]


def test_float16_weights_still_match():
    found = [(name, folded(w, 9).astype(np.float16)) for name, _, w in MODULES]
    assert [layer.module for layer in match(MODULES, found)] == [name for name, _, _ in MODULES]


def test_equal_layers_are_told_apart_by_their_order():
    same = rows((4, 4), 0)
    one_weight = [("gain_a", "conv", rows((8, 1), 1)), ("gain_b", "conv", rows((8, 1), 2))]
    modules = [("first", "conv", same), ("second", "conv", same.copy()), *one_weight]
    found = [("x", folded(same, 1)), ("p", one_weight[1][2]), ("y", -same), ("q", rows((8, 1), 3))]
    got = [(layer.node, layer.module) for layer in match(modules, found)]
    assert got == [("x", "first"), ("p", "gain_a"), ("y", "second"), ("q", "gain_b")]


@pytest.mark.parametrize("fault", ["one weight", "rows swapped", "columns swapped", "nan"])
def test_an_altered_layer_is_refused_and_both_are_named(fault):
    found = [(f"op{i}", w.copy()) for i, (_, _, w) in enumerate(MODULES)]
    weights = found[2][1]
    if fault == "one weight":
        weights[3, 5] += 0.01 * np.linalg.norm(weights[3])
    elif fault == "rows swapped":
        weights[[3, 4]] = weights[[4, 3]]
    elif fault == "columns swapped":
        weights[:, [3, 4]] = weights[:, [4, 3]]
    else:
        weights[3, 5] = np.nan
    with pytest.raises(ConversionFailed, match=r"twin_a \(16, 16\).*op2 \(16, 16\)"):
        match(MODULES, found)


def test_a_missing_layer_is_refused_and_extra_operations_are_passed_over():
    found = [(f"op{i}", w) for i, (_, _, w) in enumerate(MODULES)]
    with pytest.raises(ConversionFailed, match=r"depthwise .*: none"):
        match(MODULES, found[:1] + found[2:])
    assert len(match(MODULES, [("resize", rows((48, 96), 7)), *found])) == len(MODULES)


def test_channels_without_weights():
    # a BatchNorm scale of zero, and a scale so small that its square vanishes in float32
    module = rows((3, 4), 0)
    found = module * np.array([[0], [1e-30], [1]], np.float32)
    assert match([("a", "conv", module)], [("x", found)]) == [Layer("a", "x", "conv")]
    module[2] = 0  # a channel that was never there cannot appear
    with pytest.raises(ConversionFailed):
        match([("a", "conv", module)], [("x", found)])


def test_modules_are_listed_as_they_run():
    torch = pytest.importorskip("torch", reason="needs the extra train")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(6, 2)
            self.depthwise = torch.nn.Conv2d(6, 6, 3, groups=6)
            self.stem = torch.nn.Conv2d(3, 6, (2, 3))
            self.unused = torch.nn.Conv2d(3, 6, 1)

        def forward(self, x):
            return self.head(self.depthwise(self.stem(x)).mean((2, 3)))

    net = Net().eval()
    got = modules_in_order(net, torch.zeros(1, 3, 8, 8))
    shapes = [(name, op, weights.shape) for name, op, weights in got]
    assert shapes == [
        ("stem", "conv", (6, 18)),
        ("depthwise", "conv", (6, 9)),
        ("head", "linear", (2, 6)),
    ]
    # the order within a row: input channel, kernel row, kernel column
    assert got[0][2][4, 2 * 6 + 1 * 3 + 2] == net.stem.weight[4, 2, 1, 2].item()
    assert not net.stem._forward_hooks

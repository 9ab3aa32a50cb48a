"""Quantisation simulated in PyTorch: what integers do to a net, independent of any runtime.

Every convolution and Linear layer sees its weights and its input rounded to the values that
integers can stand for (``fake quantisation``, arXiv:1712.05877); everything between them stays
in float. Weights: symmetric int8, one scale per output channel. Inputs: one scale and zero point
per tensor, ranges from calibration images, zero always among the values.

BatchNorm is not folded into the convolution before it. With one scale per output channel that
changes nothing: folding multiplies a channel's weights, its scale and its error by the same
factor. (Per tensor it does make a difference; ``per_channel=False`` is for comparison only.)

Runtimes also round what lies between the layers (sums of residual connections, activations that
are not fused) and the bias, so the simulation is the kinder one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgessl.core.errors import DataInvalid, UsageProblem, nearest
from edgessl.exporters.base import Calibration

WEIGHT_MAX = 127  # -128 is left out, so that zero lies in the middle
PERCENTILE = 0.9999  # share of the values below the upper, and above the lower end of a range
BINS = 8192  # of the histogram that percentiles are read from
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


class Range(NamedTuple):
    """The real numbers that the integers of a tensor span; zero is among them."""

    low: float
    high: float

    def grid(self, bits: int) -> tuple[float, int]:
        """Return scale and zero point of unsigned integers of so many bits."""
        scale = max((self.high - self.low) / (2**bits - 1), SMALLEST_SCALE)
        return scale, round(-self.low / scale)


class Simulated(nn.Module):
    """A net whose convolutions and Linear layers compute with rounded weights and inputs.

    Gradients pass the rounding as if it were not there, and stop where a value was clipped.

    Args:
        network: A net in evaluation mode; it is held, not copied (see :func:`simulated`).
        ranges: Of the input of every layer that can be quantised, in the order of execution.
        activation_bits: Of the inputs, 2 to 16.
        per_channel: One weight scale per output channel, or one per tensor.

    Attributes:
        network: The plain net. Training the simulation trains its float weights, and its state
            dict has the names of the stock net.
        active: Modules that are quantised at present; all of ``ranges`` to begin with.
    """

    def __init__(
        self,
        network: nn.Module,
        ranges: dict[str, Range],
        *,
        activation_bits: int = 8,
        per_channel: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.ranges = network, ranges
        self.activation_bits, self.per_channel = activation_bits, per_channel
        self.active = frozenset(ranges)

    def switch(self, modules: Iterable[str]) -> None:
        """Quantise these modules only.

        Raises:
            UsageProblem: One of them is no layer of the net.
        """
        wanted = frozenset(modules)
        for name in sorted(wanted - self.ranges.keys()):
            raise UsageProblem(
                f"the net has no convolution or Linear layer '{name}'",
                hint=nearest(name, self.ranges),
            )
        self.active = wanted

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, C) of the partly quantised net."""
        weights = {}
        for name in self.active:
            weight = self.network.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weights[f"{name}.weight"] = rounded_weight(weight, per_channel=self.per_channel)
        with _inputs(self.network, self.active, self._rounded_input):
            return functional_call(self.network, weights, (images_BCHW,))

    def _rounded_input(self, name: str, x: Tensor) -> Tensor:
        scale, zero_point = self.ranges[name].grid(self.activation_bits)
        top = 2**self.activation_bits - 1
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, top)


def simulated(
    network: nn.Module,
    calibration_batches: Sequence[Tensor],
    *,
    modules: Iterable[str] | None = None,
    calibration: Calibration = "minmax",
    activation_bits: int = 8,
    per_channel: bool = True,
) -> Simulated:
    """Return a quantised copy of a net; the net itself is left as it was.

    Args:
        network: Images (B, 3, H, W) to logits (B, C); a plain stock net.
        calibration_batches: Normalised float32 images (B, 3, H, W).
        modules: Names of the layers to quantise, as in ``named_modules()``; None for all.
        calibration: How ranges follow from the images; see :func:`input_ranges`.
        activation_bits: Of the inputs of layers, 2 to 16; weights have 8.
        per_channel: One weight scale per output channel, or one per tensor.

    Raises:
        DataInvalid: No images, or a layer is fed something that is not finite.
        UsageProblem: ``modules`` names something that is no layer of the net.
    """
    plain = copy.deepcopy(network).eval()
    ranges = input_ranges(plain, calibration_batches, calibration)
    net = Simulated(plain, ranges, activation_bits=activation_bits, per_channel=per_channel)
    if modules is not None:
        net.switch(modules)
    return net


def rounded_weight(weight: Tensor, *, per_channel: bool = True) -> Tensor:
    """Round a weight (output channels first) to symmetric int8 and back; differentiable."""
    flat = weight.detach().abs().flatten(1).amax(1)
    top = flat if per_channel else flat.max()
    scale = (top / WEIGHT_MAX).clamp(min=SMALLEST_SCALE)
    if per_channel:
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zeros, 0, -WEIGHT_MAX, WEIGHT_MAX
        )
    return torch.fake_quantize_per_tensor_affine(weight, float(scale), 0, -WEIGHT_MAX, WEIGHT_MAX)


@torch.no_grad()
def input_ranges(
    network: nn.Module, batches: Sequence[Tensor], calibration: Calibration = "minmax"
) -> dict[str, Range]:
    """Return the range of every layer's input, in the order of execution.

    Args:
        network: A plain net in evaluation mode.
        batches: Normalised float32 images (B, 3, H, W).
        calibration: ``minmax``: from the smallest to the largest value of all images.
            ``percentile``: between the values that 0.01 % lie below and above.
            ``moving_average``: from the mean of the images' minima to that of their maxima; what
            averages that move slowly tend to, without their dependence on the order of images.

    Raises:
        DataInvalid: No images, or a layer is fed something that is not finite.
    """
    extremes: dict[str, list[Tensor]] = {}

    def note(name: str, x: Tensor) -> None:
        per_image = torch.stack(x.flatten(1).aminmax(dim=1), dim=1)
        extremes.setdefault(name, []).append(per_image.double())

    _feed(network, batches, note)
    ranges = {}
    for name, parts in extremes.items():
        low_high_N2 = torch.cat(parts)
        if not low_high_N2.isfinite().all():
            raise DataInvalid(
                f"layer '{name}' is fed NaN or infinite values",
                hint="the net or an image is damaged: export in float and compare there first",
            )
        low, high = low_high_N2.unbind(1)
        ends = (low.mean(), high.mean())
        if calibration != "moving_average":
            ends = (low.min(), high.max())
        ranges[name] = Range(min(float(ends[0]), 0.0), max(float(ends[1]), 0.0))
    return _clipped(network, batches, ranges) if calibration == "percentile" else ranges


def _clipped(
    network: nn.Module, batches: Sequence[Tensor], ranges: dict[str, Range]
) -> dict[str, Range]:
    """Narrow ranges to where all but the outermost values lie, to one bin of a histogram."""
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in ranges}

    def count(name: str, x: Tensor) -> None:
        low, high = ranges[name]
        if high > low:
            counts[name] += torch.histc(x.float(), BINS, low, high).double().cpu()

    _feed(network, batches, count)
    clipped = {}
    for name, (low, high) in ranges.items():
        share = counts[name].cumsum(0) / counts[name].sum().clamp(min=1.0)
        first = int((share <= 1 - PERCENTILE).sum())  # the bins before it may go
        last = min(int((share < PERCENTILE).sum()), BINS - 1)
        width = (high - low) / BINS
        ends = (low + first * width, low + (last + 1) * width) if high > low else (low, high)
        clipped[name] = Range(min(ends[0], 0.0), max(ends[1], 0.0))
    return clipped


def layer_names(network: nn.Module) -> list[str]:
    """Return the names of the convolutions and Linear layers, as they were registered."""
    return [
        name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]


def _feed(
    network: nn.Module, batches: Sequence[Tensor], see: Callable[[str, Tensor], None]
) -> None:
    """Run a net over images and show ``see`` what every layer is fed."""
    if sum(len(batch) for batch in batches) == 0:
        raise DataInvalid("no images to calibrate with", hint="give images with --calib")
    device = next(network.parameters()).device
    with _inputs(network, layer_names(network), see):
        for batch in batches:
            network(batch.to(device))


@contextmanager
def _inputs(
    network: nn.Module, modules: Iterable[str], replace: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Put what ``replace`` gives in place of the inputs of modules; None leaves them."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor | None]:
        return lambda _module, inputs: replace(name, inputs[0])

    # for the time of a pass only: the net that is kept is a plain one
    handles = [
        network.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

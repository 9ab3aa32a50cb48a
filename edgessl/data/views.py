"""Random views of whole batches, from uint8 images to normalised model input.

Crop, resize, flip and blur are linear and act on rows and columns separately, so together they
are one matrix per image and axis: two batched products do all four, with antialiasing, on CPU
and GPU alike. Brightness, contrast, saturation, hue and grey are one affine colour map per image.

Against torchvision's per-image pipeline this differs in three ways: the operations have a fixed
order (crop, flip, blur, brightness, contrast, saturation, hue, grey, solarise), values are clamped
once, before the solarisation, instead of after each step, and hue turns the chroma plane of YIQ,
which keeps brightness, instead of that of HSV. Without the clamp, blur and colour changes commute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgessl.data.keyed_random import uniforms
from edgessl.data.view_specs import (
    PRESETS,
    Parameters,
    ViewSpec,
    draw_parameters,
    view_specs,
)

__all__ = ["PRESETS", "ViewSpec", "Views", "render", "uniforms", "view_specs"]

# NTSC luma and chroma; the first row is also torchvision's grey
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
SOLARIZE_FROM = 128 / 255
# floats of stored images in work at a time: what stays in a CPU's caches, and what a GPU can spare
CHUNK_CPU, CHUNK_GPU = 1 << 20, 1 << 27


class Views:
    """Makes the views of a batch; holds no random state.

    Args:
        specs: One per view.
        mean: Mean per channel, on the scale 0..1.
        std: Standard deviation per channel.
        seed: Seed of the run.
    """

    def __init__(
        self, specs: Sequence[ViewSpec], mean: Sequence[float], std: Sequence[float], seed: int
    ) -> None:
        self.specs = tuple(specs)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.seed = seed

    def __call__(
        self, images_BHWC: Tensor, indices: Tensor | NDArray[np.int64], epoch: int
    ) -> list[Tensor]:
        """Make every view of every image.

        Args:
            images_BHWC: uint8 (B, H, W, 3), on any device.
            indices: (B,), positions of the images in their source: with seed, epoch and view the
                key of all randomness.
            epoch: Pass over the data.

        Returns:
            One float32 (B, 3, size, size) per view, normalised, channels_last, on the device of
            the images.
        """
        keys = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, np.int64)
        height, width = images_BHWC.shape[1:3]
        parameters = [
            draw_parameters(
                spec, (height, width), seed=self.seed, epoch=epoch, indices=keys, view=view
            )
            for view, spec in enumerate(self.specs)
        ]
        limit = CHUNK_CPU if images_BHWC.device.type == "cpu" else CHUNK_GPU
        step = max(1, limit // (3 * height * width))
        parts: list[list[Tensor]] = [[] for _ in self.specs]
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            pixels = images_BHWC[part].permute(0, 3, 1, 2).contiguous().float()
            for spec, drawn, done in zip(self.specs, parameters, parts, strict=True):
                done.append(render(pixels, spec, drawn.rows(part), self.mean, self.std))
        return [torch.cat(done) if len(done) > 1 else done[0] for done in parts]


@torch.no_grad()
def render(
    pixels_BCHW: Tensor,
    spec: ViewSpec,
    parameters: Parameters,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Apply drawn parameters.

    Args:
        pixels_BCHW: float32 (B, 3, H, W), contiguous, values 0..255.
        spec: The kind of view; says which operations can be left out.
        parameters: Of the B images.
        mean: Mean per channel, on the scale 0..1.
        std: Standard deviation per channel.

    Returns:
        float32 (B, 3, size, size), channels_last.
    """
    b, _, h, w = pixels_BCHW.shape
    size, device = spec.size, pixels_BCHW.device

    def column(values: NDArray[np.float64] | NDArray[np.bool_]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)[:, None]

    with torch.autocast(device.type, enabled=False):  # 8-bit values need more than bfloat16
        never = torch.zeros(b, 1, device=device)
        rows = _resampling(column(parameters.top), column(parameters.height), never, h, spec)
        columns = _resampling(
            column(parameters.left), column(parameters.width), column(parameters.flip), w, spec
        )
        if (blurred := np.flatnonzero(parameters.sigma)).size:
            blur = _blurring(column(parameters.sigma[blurred]), size, spec.blur_radius)
            if blurred.size == b:
                rows, columns = blur @ rows, blur @ columns
            else:
                chosen = torch.as_tensor(blurred, device=device)
                rows[chosen] = blur @ rows[chosen]
                columns[chosen] = blur @ columns[chosen]
        rows /= 255

        x = torch.bmm(pixels_BCHW.view(b, 3 * h, w), columns.mT).view(b, 3, h, size)
        offset = None
        if spec.jitter or spec.gray:
            # the mean colour of the crop, before its rows are resampled
            mean_colour = (x.mean(3) * rows.mean(1)[:, None, :]).sum(2)
            matrix, offset = _colour_map(parameters, mean_colour)
            x = torch.bmm(matrix, x.view(b, 3, h * size)).view(b, 3, h, size)
        x = x.permute(0, 2, 3, 1).reshape(b, h, size * 3)
        x = torch.bmm(rows, x).view(b, size, size, 3)
        if offset is not None:
            x += offset[:, :, None, None]
        x.clamp_(0, 1)
        if (inverted := np.flatnonzero(parameters.solarize)).size:
            chosen = torch.as_tensor(inverted, device=device)
            x[chosen] = torch.where(x[chosen] >= SOLARIZE_FROM, 1 - x[chosen], x[chosen])
    # whole rows of pixels: broadcasting over a last axis of 3 would be many times slower
    lines = x.view(b * size, size * 3)
    lines -= torch.tensor(mean, device=device).repeat(size)
    lines /= torch.tensor(std, device=device).repeat(size)
    return x.permute(0, 3, 1, 2)


def _resampling(
    start_B1: Tensor, length_B1: Tensor, flip_B1: Tensor, size_in: int, spec: ViewSpec
) -> Tensor:
    """Weights (B, size, size_in) that cut ``length`` from ``start`` and resize it to ``size``.

    The antialiased filter of Pillow and torchvision: the kernel is stretched by the scale when
    shrinking, and sees only what lies inside the crop.
    """
    device, size = start_B1.device, spec.size
    scale = length_B1 / size
    stretch = scale.clamp(min=1)
    i = torch.arange(size, device=device, dtype=torch.float32)
    centre = start_B1 + (torch.where(flip_B1 > 0, size - 1 - i, i) + 0.5) * scale
    # a kernel reaches few of the size_in positions: work on those, then put them in their places
    reach = (2 if spec.interpolation == "bicubic" else 1) * max(1.0, size_in / size)
    taps = 2 * math.ceil(reach) + 1
    first = torch.floor(centre - reach)
    j = first[:, :, None] + torch.arange(taps, device=device)
    distance = (j + 0.5 - centre[:, :, None]).abs_() / stretch[:, :, None]
    weights = _bicubic(distance) if spec.interpolation == "bicubic" else (1 - distance).clamp_(0)
    weights *= (j >= start_B1[:, :, None]) & (j < (start_B1 + length_B1)[:, :, None])
    weights /= weights.sum(2, keepdim=True)
    # room on both sides for taps that fall outside; their weight is 0
    padded = torch.zeros(len(centre), size, size_in + 2 * taps, device=device)
    return padded.scatter_(2, j.long() + taps, weights)[:, :, taps:-taps]


def _bicubic(d: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -0.5 at distances ``d`` >= 0, as Pillow has it."""
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, far) * (d < 2)


def _blurring(sigma_N1: Tensor, size: int, radius: int) -> Tensor:
    """Matrices (N, size, size) of a Gaussian blur cut at ``radius``, the image mirrored."""
    taps = torch.arange(radius + 1, device=sigma_N1.device, dtype=torch.float32)
    half = torch.exp(-0.5 * (taps / sigma_N1) ** 2)
    half = half / (half[:, :1] + 2 * half[:, 1:].sum(1, keepdim=True))
    line = F.pad(torch.cat([half.flip(1), half[:, 1:]], 1), (size - 1 - radius,) * 2)
    blur = line.unfold(1, size, 1).flip(1)  # [i, j] = kernel at j - i
    # pixel j also answers for its mirror image -j; an edge pixel has none
    mirrored = F.pad(half[:, 1:], (0, radius)).unfold(1, radius, 1)  # [i, j - 1] = at i + j
    blur[:, : radius + 1, 1 : radius + 1] += mirrored
    blur[:, size - radius - 1 :, size - radius - 1 : size - 1] += mirrored.flip(1, 2)
    return blur


def _colour_map(parameters: Parameters, mean_colour_B3: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (B, 3, 3) and offset (B, 1) of the colour changes of each image.

    Brightness b and contrast c about the mean grey m give c b x + (1 - c) b m. Saturation and hue
    scale and turn the chroma plane, and leave the grey offset as it is.
    """
    to_yiq = np.array(RGB_TO_YIQ)
    # as in HSV a positive turn leads from red to yellow: clockwise in the (I, Q) plane
    turn = -2 * math.pi * parameters.hue
    chroma = np.zeros((len(turn), 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = parameters.saturation * np.cos(turn)
    chroma[:, 2, 1] = parameters.saturation * np.sin(turn)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    gain = (parameters.brightness * parameters.contrast)[:, None, None]
    matrix = gain * (np.linalg.inv(to_yiq) @ chroma @ to_yiq)
    left_over = (1 - parameters.contrast) * parameters.brightness
    as_tensor = {"dtype": torch.float32, "device": mean_colour_B3.device}
    grey = mean_colour_B3 @ torch.tensor(RGB_TO_YIQ[0], **as_tensor)
    offset = torch.as_tensor(left_over, **as_tensor) * grey
    return torch.as_tensor(matrix, **as_tensor), offset[:, None]

"""What a random view is, and the drawing of its parameters; no torch.

Parameters are drawn as torchvision draws them (``RandomResizedCrop``, ``ColorJitter``), but every
number comes from :func:`edgessl.data.keyed_random.uniforms`, so an image gets the same view
whatever batch, order or process it is in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import RecipeInvalid, nearest
from edgessl.data.keyed_random import uniforms

CROP_TRIES = 10
# place of every number in the row of an image; fixed, so that one option never shifts another
AREA, RATIO = slice(0, CROP_TRIES), slice(CROP_TRIES, 2 * CROP_TRIES)
TOP, LEFT, FLIP, JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE = range(20, 28)
GRAY, BLUR, SIGMA, SOLARIZE, COUNT = range(28, 33)


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """One kind of random view; a probability or strength of 0 turns its operation off.

    Attributes:
        size: Side of the square output, in pixels.
        crop_scale: Bounds of the area of the crop, as a share of the image.
        crop_ratio: Bounds of width / height of the crop, drawn log-uniformly.
        interpolation: Filter of the resize, antialiased.
        flip: Probability of a horizontal flip.
        jitter: Probability of the four colour changes together.
        brightness: Factor in [1 - b, 1 + b], not below 0; likewise the next two.
        contrast: Factor about the mean grey of the crop.
        saturation: Factor about the grey of the pixel.
        hue: Largest turn of the hue, as a share of the circle, 0 to 0.5.
        gray: Probability of losing all colour.
        blur: Probability of a Gaussian blur.
        blur_sigma: Bounds of its standard deviation, in output pixels.
        solarize: Probability of inverting all values from 128 up.
    """

    size: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    flip: float = 0.5
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0

    @property
    def blur_radius(self) -> int:
        """Half of the blur kernel: its side is odd, about 0.1 of the output, at least 3."""
        return max(3, int(0.1 * self.size) | 1) // 2


_BYOL = ViewSpec(
    size=224, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray=0.2
)
_MOCO = replace(_BYOL, crop_scale=(0.2, 1.0), saturation=0.4, blur=0.5)
_SMALL = replace(_MOCO, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.4, gray=0.5)

# name -> the views of one image, at 224 pixels
PRESETS: Mapping[str, tuple[ViewSpec, ...]] = {
    # BYOL, also Barlow Twins and SACL+XD: the first view is always blurred, the second solarised
    "byol_asym": (replace(_BYOL, blur=1.0), replace(_BYOL, blur=0.1, solarize=0.2)),
    # the same for images of some 32 pixels, where a blur leaves nothing
    "cifar_asym": (_BYOL, replace(_BYOL, solarize=0.2)),
    "moco_v2": (_MOCO, _MOCO),
    # the same with stronger colours, for small nets (SSL-Small)
    "ssl_small": (_SMALL, _SMALL),
    # one mild view for training with labels
    "finetune": (
        ViewSpec(size=224, crop_scale=(0.5, 1.0), interpolation="bilinear"),
    ),
}  # fmt: skip


def view_specs(name: str, size: int, *, flip: float | None = None) -> tuple[ViewSpec, ...]:
    """Return the views of a preset at ``size`` pixels.

    Args:
        name: A key of :data:`PRESETS`.
        size: Side of the output, in pixels.
        flip: Probability of a flip instead of the preset's; 0 where left and right differ in
            meaning, as for digits and letters.

    Raises:
        RecipeInvalid: There is no such preset.
    """
    if name not in PRESETS:
        raise RecipeInvalid(f"unknown views '{name}'", hint=nearest(name, PRESETS))
    changes: dict[str, float] = {"size": size} if flip is None else {"size": size, "flip": flip}
    return tuple(replace(spec, **changes) for spec in PRESETS[name])


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one view does to each of B images; arrays of shape (B,).

    ``top``, ``left``, ``height``, ``width`` are the crop in whole pixels; ``flip`` and
    ``solarize`` are booleans; ``brightness``, ``contrast``, ``saturation`` are factors (1 leaves
    the image alone, saturation 0 is grey); ``hue`` is a share of the circle; ``sigma`` is in
    output pixels, 0 for no blur.
    """

    top: NDArray[np.float64]
    left: NDArray[np.float64]
    height: NDArray[np.float64]
    width: NDArray[np.float64]
    flip: NDArray[np.bool_]
    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    saturation: NDArray[np.float64]
    hue: NDArray[np.float64]
    sigma: NDArray[np.float64]
    solarize: NDArray[np.bool_]

    def rows(self, part: slice) -> Parameters:
        """Return the parameters of some of the images."""
        return Parameters(**{f.name: getattr(self, f.name)[part] for f in fields(self)})


def draw_parameters(
    spec: ViewSpec,
    image_size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    view: int,
) -> Parameters:
    """Draw the parameters of one view of each image.

    Args:
        spec: The kind of view.
        image_size: Height and width of the stored images.
        seed: Seed of the run.
        epoch: Pass over the data.
        indices: int64 (B,), positions of the images in their source.
        view: Number of the view.

    Returns:
        A function of the arguments alone.
    """
    u = uniforms(seed, epoch, indices, view, COUNT)
    jitter = u[:, JITTER] < spec.jitter

    def factor(strength: float, place: int) -> NDArray[np.float64]:
        return np.where(jitter, _between(max(0.0, 1 - strength), 1 + strength, u[:, place]), 1.0)

    height, width = _crop_sizes(spec, image_size, u)
    return Parameters(
        top=np.floor(u[:, TOP] * (image_size[0] - height + 1)),
        left=np.floor(u[:, LEFT] * (image_size[1] - width + 1)),
        height=height,
        width=width,
        flip=u[:, FLIP] < spec.flip,
        brightness=factor(spec.brightness, BRIGHTNESS),
        contrast=factor(spec.contrast, CONTRAST),
        saturation=np.where(u[:, GRAY] < spec.gray, 0.0, factor(spec.saturation, SATURATION)),
        hue=np.where(jitter, _between(-spec.hue, spec.hue, u[:, HUE]), 0.0),
        sigma=np.where(u[:, BLUR] < spec.blur, _between(*spec.blur_sigma, u[:, SIGMA]), 0.0),
        solarize=u[:, SOLARIZE] < spec.solarize,
    )


def _crop_sizes(
    spec: ViewSpec, image_size: tuple[int, int], u: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Height and width of the first of ten tries that fits, else of the largest allowed crop."""
    h, w = image_size
    area = h * w * _between(*spec.crop_scale, u[:, AREA])
    low, high = spec.crop_ratio
    ratio = np.exp(_between(math.log(low), math.log(high), u[:, RATIO]))
    heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (heights >= 1) & (heights <= h) & (widths >= 1) & (widths <= w)
    first, rows = fits.argmax(axis=1), np.arange(len(u))
    # torchvision centres the fallback; here its place is drawn like any other
    fallback = (min(h, np.rint(w / low)), min(w, np.rint(h * high)))
    found = fits.any(axis=1)
    return (
        np.where(found, heights[rows, first], fallback[0]),
        np.where(found, widths[rows, first], fallback[1]),
    )


def _between(low: float, high: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
    return low + (high - low) * u

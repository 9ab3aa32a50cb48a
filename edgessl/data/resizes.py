"""Ways in which programs on devices prepare pictures, the right one first.

Most of them are taken for the same thing, and most of them are not: libraries call different
filters bilinear. The table tells what each one does; what it costs is measured by
:mod:`edgessl.stages.resizes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.framing import framing
from edgessl.data.decode import fit

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to prepare a picture.

    Attributes:
        name: For tables.
        summary: What it does, for people.
        prepare: Picture uint8 (H, W, 3) and contract to uint8 (height, width, 3).
        contract: Fields of the contract that normalisation takes otherwise.
        needs: Package that it imports and that may be missing.
    """

    name: str
    summary: str
    prepare: Callable[[Pixels, InputSpec], Pixels]
    contract: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None

    @property
    def available(self) -> bool:
        """Whether it can be tried on this machine."""
        return self.needs is None or find_spec(self.needs) is not None


def as_agreed(picture: Pixels, spec: InputSpec) -> Pixels:
    """Prepare a picture by the contract: :func:`edgessl.data.decode.fit`."""
    return fit(picture, spec.height, spec.width, spec.resize)


def opencv_linear(picture: Pixels, spec: InputSpec) -> Pixels:
    """Resize with ``cv2.INTER_LINEAR``."""
    import cv2

    return _cropped(picture, spec, lambda x, size: _opencv(x, size, cv2.INTER_LINEAR))


def opencv_area(picture: Pixels, spec: InputSpec) -> Pixels:
    """Resize with ``cv2.INTER_AREA``."""
    import cv2

    return _cropped(picture, spec, lambda x, size: _opencv(x, size, cv2.INTER_AREA))


def without_antialias(picture: Pixels, spec: InputSpec) -> Pixels:
    """Interpolate between the four nearest pixels, however much the picture is reduced."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    def resize(x: Pixels, size: tuple[int, int]) -> Pixels:
        planes = from_numpy(x.transpose(2, 0, 1).astype(np.float32))[None]
        resized = interpolate(planes, size, mode="bilinear", align_corners=False, antialias=False)
        return resized[0].round().numpy().astype(np.uint8).transpose(1, 2, 0)

    return _cropped(picture, spec, resize)


def nearest(picture: Pixels, spec: InputSpec) -> Pixels:
    """Take the nearest pixel."""
    return _cropped(picture, spec, lambda x, size: _pillow(x, size, Image.Resampling.NEAREST))


def squashed(picture: Pixels, spec: InputSpec) -> Pixels:
    """Resize both sides to those of the net, whatever the aspect."""
    return _pillow(picture, (spec.height, spec.width), Image.Resampling.BILINEAR)


def without_margin(picture: Pixels, spec: InputSpec) -> Pixels:
    """Resize the short side to that of the net, so that no margin is left to crop off."""
    return fit(picture, spec.height, spec.width, min(spec.height, spec.width))


def in_bgr(picture: Pixels, spec: InputSpec) -> Pixels:
    """Prepare a picture by the contract, but in the order in which OpenCV reads colours."""
    return np.ascontiguousarray(as_agreed(picture, spec)[:, :, ::-1])


WAYS = (
    Way(
        "Pillow, bilinear",
        "short side with Pillow's antialiased bilinear filter, centre crop, RGB: the contract",
        as_agreed,
    ),
    Way(
        "OpenCV, INTER_AREA",
        "the mean over the area of each new pixel; near the contract when pictures shrink much",
        opencv_area,
        needs="cv2",
    ),
    Way(
        "OpenCV, INTER_LINEAR",
        "OpenCV's default: no antialias, so fine detail turns into noise when pictures shrink",
        opencv_linear,
        needs="cv2",
    ),
    Way(
        "bilinear without antialias",
        "the default of TensorFlow, of torch's interpolate and of most phone libraries",
        without_antialias,
    ),
    Way("nearest neighbour", "what fast paths and many camera pipelines do", nearest),
    Way("squashed to the square", "both sides resized, the aspect is lost", squashed),
    Way(
        "no margin cropped off",
        "short side resized to the net's own side: objects appear smaller than in training",
        without_margin,
    ),
    Way("BGR instead of RGB", "red and blue swapped: pictures as OpenCV reads them", in_bgr),
    Way(
        "mean and std left out",
        "pixels scaled to the value range and not normalised",
        as_agreed,
        contract={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    ),
)


def _cropped(
    picture: Pixels, spec: InputSpec, resize: Callable[[Pixels, tuple[int, int]], Pixels]
) -> Pixels:
    """Frame a picture as the contract does, with another filter."""
    h, w = picture.shape[:2]
    at = framing((h, w), (spec.height, spec.width), spec.resize)
    kept = picture[at.top : at.top + at.kept[0], at.left : at.left + at.kept[1]]
    resized = resize(np.ascontiguousarray(kept), at.resized)
    rows = slice(at.crop_top, at.crop_top + spec.height)
    return resized[rows, at.crop_left : at.crop_left + spec.width]


def _pillow(picture: Pixels, size: tuple[int, int], how: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), how))


def _opencv(picture: Pixels, size: tuple[int, int], how: int) -> Pixels:
    import cv2

    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=how), np.uint8)

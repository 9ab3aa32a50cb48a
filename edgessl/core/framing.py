"""Where the square that a net sees lies in a picture: one definition for files and for graphs."""

from __future__ import annotations

import math
from dataclasses import dataclass

# A picture that is longer than this many short sides is cut around its centre before resizing:
# a 1 x 5000 strip would else become 256 x 1280000.
LONGEST_ASPECT = 16


@dataclass(frozen=True, slots=True)
class Framing:
    """How a picture is cut, resized and cropped, in this order.

    Attributes:
        top, left: First row and column that are kept of the picture.
        kept: Height and width that are kept; the whole picture, unless it is a strip.
        resized: Height and width after resizing.
        crop_top, crop_left: Where the crop begins in the resized picture.
    """

    top: int
    left: int
    kept: tuple[int, int]
    resized: tuple[int, int]
    crop_top: int
    crop_left: int


def framing(picture: tuple[int, int], crop: tuple[int, int], resize: int) -> Framing:
    """Resize the short side, then crop from the centre.

    As torchvision's ``Resize`` and ``CenterCrop``, except that a picture too small for the crop
    is enlarged instead of padded, and a strip is cut first (:data:`LONGEST_ASPECT`).

    Args:
        picture: Height and width in pixels.
        crop: Height and width wanted.
        resize: Short side after resizing.
    """
    height, width = crop
    longest = LONGEST_ASPECT * max(height / width, width / height)
    h = min(picture[0], int(longest * picture[1]))
    w = min(picture[1], int(longest * picture[0]))
    short = max(resize, math.ceil(height * min(h, w) / h), math.ceil(width * min(h, w) / w))
    new_h, new_w = (int(short * h / w), short) if w <= h else (short, int(short * w / h))
    new_h, new_w = max(new_h, height), max(new_w, width)
    return Framing(
        top=(picture[0] - h) // 2,
        left=(picture[1] - w) // 2,
        kept=(h, w),
        resized=(new_h, new_w),
        crop_top=round((new_h - height) / 2),
        crop_left=round((new_w - width) / 2),
    )

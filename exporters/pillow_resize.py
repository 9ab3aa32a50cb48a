"""Pillow's bilinear resize as constant matrices, to the bit, for graphs that take pictures.

Pillow weighs the pixels under a triangle, as wide as the output pixel when it reduces, with
integers in units of 2^-22 that sum to about one, adds one half and drops the fraction; columns
first, then rows (``Image.resize`` with ``Resampling.BILINEAR``, Pillow 10 to 13).

float32 cannot hold such sums. So each weight is split into two digits, high in units of 2^-11
and low in units of 2^-22: products with pixels and all their partial sums then are multiples of
one unit and below 2^24 of it, which float32 holds in whatever order a runtime adds. Both digits
have at most 11 significant bits: stored as float16 they are the same numbers. What the graph
*computes* with must be float32 (or TF32): in bfloat16 pixels are off by one level here and there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgessl.core.errors import ConversionFailed

if TYPE_CHECKING:
    import torch

BITS = 22  # of Pillow's fixed-point weights
EXACT = 1 << 24  # up to here float32 holds every integer
FEWEST_LOW_BITS = 6  # fewer would not leave the sums of high digits exact
# Output pixels that share a matrix: most of one matrix for all of them would be zeros.
BLOCK = 32


@dataclass(frozen=True, slots=True)
class Block:
    """Some neighbouring output pixels along one side.

    Attributes:
        start, stop: Input pixels that they depend on, counted from :attr:`Side.begin`.
        high, low: float32 (stop - start, outputs), the two digits of the weights; the low one
            in units of the last place of the high one.
    """

    start: int
    stop: int
    high: NDArray[np.float32]
    low: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Side:
    """How one side of pictures is resized and cropped.

    Attributes:
        begin, end: Input pixels that are needed.
        blocks: The output pixels in their order; none where the length stays as it is.
        low_bits: Bits of a weight in its low digit.
    """

    begin: int
    end: int
    blocks: tuple[Block, ...]
    low_bits: int


def weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what every output pixel takes of the input, as Pillow computes it.

    Args:
        source: Length in pixels before resizing.
        target: Length after it.

    Returns:
        First input pixel (target,), and weights (target, K) in units of 2^-22 of it and the K-1
        pixels after it; zero where there are fewer.
    """
    scale = source / target
    reach = max(1.0, scale)
    starts, rows = [], []
    for position in range(target):
        centre = (position + 0.5) * scale
        start = max(0, int(centre - reach + 0.5))
        stop = min(source, int(centre + reach + 0.5))
        offsets = (np.arange(start, stop) - centre + 0.5) * (1.0 / reach)
        row = np.maximum(0.0, 1.0 - np.abs(offsets))
        # summed one by one: another order gives another last bit
        total = sum(row.tolist())
        starts.append(start)
        rows.append((row * (1.0 / total) * (1 << BITS) + 0.5).astype(np.int64))
    table = np.zeros((target, max(map(len, rows))), np.int64)
    for position, row in enumerate(rows):
        table[position, : len(row)] = row
    return np.array(starts), table


def low_bits(taps: int) -> int:
    """Return how many bits of the weights of ``taps`` pixels go into the low digit.

    Raises:
        ConversionFailed: Too many pixels for float32 to add.
    """
    bits = BITS // 2
    while taps * (1 << (bits - 1)) * 255 > EXACT:
        bits -= 1
    if bits < FEWEST_LOW_BITS:
        raise ConversionFailed(
            f"a pixel after resizing would be the sum of {taps} pixels, too many to be exact",
            hint="give smaller pictures",
        )
    return bits


def side(source: int, target: int, first: int, count: int) -> Side:
    """Return how one side of pictures is resized and cropped.

    Args:
        source: Its length in pixels.
        target: Length that the whole side is resized to.
        first: First output pixel that is kept.
        count: How many are kept.

    Raises:
        ConversionFailed: See :func:`low_bits`.
    """
    if source == target:
        return Side(first, first + count, (), 0)
    starts, table = weights(source, target)
    starts, table = starts[first : first + count], table[first : first + count]
    bits = low_bits(table.shape[1])
    stops = starts + np.array([np.flatnonzero(row)[-1] + 1 for row in table])
    begin = int(starts.min())
    found = []
    for at in range(0, count, BLOCK):
        part = slice(at, at + BLOCK)
        start, stop = int(starts[part].min()), int(stops[part].max())
        matrix = np.zeros((stop - start, len(starts[part])), np.int64)
        for column, (a, b, row) in enumerate(
            zip(starts[part], stops[part], table[part], strict=True)
        ):
            matrix[a - start : b - start, column] = row[: b - a]
        high = (matrix + (1 << (bits - 1))) >> bits
        low = (matrix - (high << bits)).astype(np.float32) * 2.0**-bits
        scaled = high.astype(np.float32) * 2.0 ** (bits - BITS)
        found.append(Block(start - begin, stop - begin, scaled, low))
    return Side(begin, int(stops.max()), tuple(found), bits)


def resizer(along: Side, *, rows: bool) -> torch.nn.Module:
    """Return the module that resizes one side.

    Args:
        along: What it does.
        rows: Whether the side is the height, else the width.

    Returns:
        Module from float32 (B, 3, H, W), integers in 0..255 and that side from ``begin`` to
        ``end``, to the same at its new length.
    """
    import torch

    class Resizer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ranges = [(block.start, block.stop) for block in along.blocks]
            for i, block in enumerate(along.blocks):
                for digit, matrix in (("high", block.high), ("low", block.low)):
                    # contiguous: of others, litert-torch takes one for the next of that shape
                    value = torch.from_numpy(np.ascontiguousarray(matrix.T if rows else matrix))
                    self.register_buffer(f"{digit}{i}", value, persistent=False)

        def sums(self, x: torch.Tensor, digit: str) -> torch.Tensor:
            parts = []
            for i, (start, stop) in enumerate(self.ranges):
                matrix = getattr(self, f"{digit}{i}")
                part = matrix @ x[:, :, start:stop] if rows else x[:, :, :, start:stop] @ matrix
                parts.append(part)
            return torch.cat(parts, 2 if rows else 3) if len(parts) > 1 else parts[0]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            carry = torch.floor(self.sums(x, "low")) * 2.0 ** (along.low_bits - BITS)
            return torch.floor(self.sums(x, "high") + carry + 0.5)

    return Resizer() if along.blocks else torch.nn.Identity()

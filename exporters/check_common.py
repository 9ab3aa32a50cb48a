"""What the checks of all formats share: their errors, and sizes that cannot run away."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from edgessl.core.errors import FileInvalid

HINT = "export it again with edgessl export; do not open a file whose origin you do not know"

# no tensor of a small image net comes near: one of this many float32 takes 1 GiB
MAX_ELEMENTS = 1 << 28


def refuse(path: Path, reason: str) -> NoReturn:
    """Raise the error of a file that must not reach a runtime."""
    raise FileInvalid(f"{path}: {reason}", hint=HINT)


def elements(path: Path, what: str, shape: Iterable[int]) -> int:
    """Return the number of elements of a shape.

    Raises:
        FileInvalid: A negative length, or more than :data:`MAX_ELEMENTS`.
    """
    count, largest = 1, 1
    for n in shape:
        if n < 0:
            refuse(path, f"{what} has a side of {n}")
        count *= n
        # zero times a huge number is zero, and its other sides still overflow in C++
        largest *= max(n, 1)
        if largest > MAX_ELEMENTS:
            refuse(path, f"{what} promises more than {MAX_ELEMENTS} elements")
    return count


def data_bytes(count: int, bits: int) -> int:
    """Return the bytes of ``count`` elements, packed when one takes less than a byte."""
    return (count * bits + 7) // 8

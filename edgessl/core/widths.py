"""Width multipliers as people write them: ``1x``, ``1.5x-1x``, ``1.5x-1x-0.5x``."""

from __future__ import annotations

import re
from itertools import pairwise


def parse_width(text: str) -> tuple[float, ...]:
    """Read ``1.5x-1x-0.5x`` as the multipliers of the host and of its slim nets, widest first.

    ``1x`` is a dense net: host and slim net are the same, (1.0, 1.0).

    Raises:
        ValueError: Not of that form, not positive, a slim net wider than the host, or slim nets
            that do not become narrower.
    """
    number = r"(?:\d+\.?\d*|\.\d+)x?"
    if not re.fullmatch(rf"\s*{number}(?:\s*-\s*{number})*\s*", str(text)):
        raise ValueError(
            f"{text!r} is no width; write 1x, host and slim as 1.5x-1x, or several slim nets as "
            "1.5x-1x-0.5x"
        )
    host, *slims = (float(part.strip().removesuffix("x")) for part in str(text).split("-"))
    slims = slims or [host]
    if not 0 < slims[-1] <= slims[0] <= host:
        raise ValueError(f"{text!r}: want 0 < slim <= host")
    if any(narrow >= wide for wide, narrow in pairwise(slims)):
        raise ValueError(f"{text!r}: name the slim widths from the widest to the narrowest")
    return host, *slims


def width_label(width: float) -> str:
    """Return the name of a width as in folders and the ledger, for example ``0.5x``."""
    return f"{width:g}x"


def width_text(text: str) -> str:
    """Return a width in its usual spelling; see :func:`parse_width`."""
    host, *slims = parse_width(text)
    return "-".join(map(width_label, [host] if slims == [host] else [host, *slims]))

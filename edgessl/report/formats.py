"""How figures are written for people: one place, so that every figure looks the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

MISSING = "–"
NBSP = "\u00a0"  # keeps a figure and its unit on one line
DEPTH = 8  # of nested objects that are written out: a file may nest as deep as it likes


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether ``value`` is a finite number (booleans are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(value: float | None) -> str:
    """Write a proportion in [0, 1] as a percentage with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f}%"


def percent_range(low: float | None, high: float | None) -> str:
    """Write an interval of a proportion as ``[low, high]``; empty when it is not known."""
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def points(difference: float | None) -> str:
    """Write a difference of proportions in percentage points, with its sign."""
    if difference is None:
        return MISSING
    shown = f"{100 * difference:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def points_range(low: float | None, high: float | None) -> str:
    """Write an interval of a difference in percentage points; empty when it is not known."""
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"


def milliseconds(value: float | None) -> str:
    """Write milliseconds with three significant digits, without the unit."""
    if value is None:
        return MISSING
    return significant(value)


def significant(value: float, digits: int = 3) -> str:
    """Write a number with ``digits`` significant digits; tiny and huge ones with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if size < -4 or size > 7:
        return f"{value:.{digits}g}".replace("-", "−")
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "−")


def tiny(value: float) -> str:
    """Write an error or a tolerance: ``0`` or two digits with an exponent."""
    return f"{value:.2g}" if value == 0 or value >= 0.01 else f"{value:.1e}".replace("-", "−")


def count(value: int) -> str:
    """Write a whole number with thousands apart."""
    return f"{value:,}"


def plural(number: int, one: str, many: str = "") -> str:
    """Write ``1 image`` or ``3 images``."""
    return f"{count(number)}{NBSP}{one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Write bytes in KB or MB (powers of 1000, as shops and flash chips count)."""
    if number < 1000:
        return f"{number}{NBSP}B"
    if number < 1_000_000:
        return f"{number / 1e3:.1f}{NBSP}KB"
    return f"{number / 1e6:.2f}{NBSP}MB"


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``8.2 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}{NBSP}min {int(seconds % 60)}{NBSP}s"
    return f"{int(seconds // 3600)}{NBSP}h {int(seconds % 3600 // 60)}{NBSP}min"


def budget(labels_per_class: int | None) -> str:
    """Write a label budget."""
    if labels_per_class is None:
        return "all labels"
    return plural(labels_per_class, "label") + " per class"


def plain(value: Any, depth: int = DEPTH) -> str:
    """Write any JSON value on one line; what is nested deeper than ``depth`` as an ellipsis."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value) if abs(value) >= 100_000 else str(value)
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, str):
        return value
    if not depth:
        return "…"
    if isinstance(value, Mapping):
        inner = (f"{key} {plain(inner, depth - 1)}" for key, inner in value.items())
        return ", ".join(inner) or MISSING
    if isinstance(value, Sequence):
        return ", ".join(plain(inner, depth - 1) for inner in value) or MISSING
    return str(value)


def flatten(
    document: Mapping[str, Any], prefix: str = "", depth: int = DEPTH
) -> list[tuple[str, str]]:
    """Turn nested JSON objects into ``(dotted key, text)`` pairs, in order."""
    pairs: list[tuple[str, str]] = []
    for key, value in document.items():
        if isinstance(value, Mapping) and value and depth:
            pairs += flatten(value, f"{prefix}{key}.", depth - 1)
        else:
            pairs.append((f"{prefix}{key}", plain(value, depth)))
    return pairs


def shortened(text: str, most: int) -> str:
    """Cut a text to ``most`` characters; an ellipsis says that something is missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def joules(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write an energy, and its interval in the same unit where it is known."""
    if value is None:
        return MISSING
    size = abs(value)
    unit, factor = ("J", 1.0) if size >= 1 else ("mJ", 1e3) if size >= 1e-3 else ("µJ", 1e6)
    reach = ""
    if low is not None and high is not None:
        reach = f" [{significant(low * factor)}, {significant(high * factor)}]"
    return f"{significant(value * factor)}{NBSP}{unit}{reach}"

"""Small text files of the kernel, read without ever blocking."""

from __future__ import annotations

import os

LIMIT = 1 << 20


def read(path: str, limit: int = LIMIT) -> str:
    """Return a text file up to ``limit`` bytes, no NUL or outer blanks; "" when unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    data = b""
    try:
        while len(data) < limit:
            part = os.read(descriptor, min(65536, limit - len(data)))
            if not part:
                break
            data += part
    except OSError:  # some sensors fail in the middle; half a text is worth nothing
        return ""
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "replace").replace("\0", "").strip()


def number(path: str) -> float | None:
    """Return the number in a file, None when there is none."""
    try:
        return float(read(path))
    except ValueError:
        return None


def colon_table(path: str) -> dict[str, str]:
    """Read ``key : value`` lines; the first of equal keys counts."""
    table: dict[str, str] = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(":")
        table.setdefault(key.strip(), value.strip())
    return table

"""Text from a board, made fit to print."""

from __future__ import annotations

import re

TAIL_LINES = 20
LONGEST = 500
SHOWN_LIMIT = 80
# terminals obey these, or show what follows in another order
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(data: bytes) -> str:
    """Return the last lines of what a board wrote, without what could move a terminal's cursor."""
    lines = data.decode("utf-8", "replace").replace("\r\n", "\n").splitlines()
    kept = [CONTROLS.sub("", line).rstrip()[:LONGEST] for line in lines]
    return "\n".join([line for line in kept if line][-TAIL_LINES:])


def shown(text: str, limit: int = SHOWN_LIMIT) -> str:
    """Return a board's text as it may be printed: one line, short, no control characters."""
    printed = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printed.split())[:limit]


def last_words(*texts: str) -> str:
    """Return the last line of each text, for a message."""
    lines = [text.splitlines()[-1].strip() for text in texts if text.strip()]
    return "; ".join(lines) or "nothing was said"


def slug(text: str, limit: int) -> str:
    """Return small letters and digits with ``-`` between words: a safe name of a folder.

    Args:
        text: What a board calls itself, for instance.
        limit: Characters at most.
    """
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:limit].strip("-")

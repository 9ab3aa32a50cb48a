"""The one JSON document on stdout; whatever else prints there goes to stderr instead."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

_document: TextIO | None = None


def keep_stdout_clean() -> None:
    """Send what libraries print, in Python or on descriptor 1, to stderr."""
    global _document
    if _document is None:
        sys.stdout.flush()
        _document = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)


def write_document(document: Any, indent: int | None = None) -> None:
    """Write JSON values to the real stdout, whole."""
    stream = _document or sys.stdout
    stream.write(json.dumps(document, ensure_ascii=False, indent=indent) + "\n")
    stream.flush()

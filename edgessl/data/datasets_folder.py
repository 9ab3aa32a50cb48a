"""Where datasets lie that are neither part of a package nor of the system."""

from __future__ import annotations

import os
from pathlib import Path

from edgessl.core.errors import DataInvalid

VARIABLE = "EDGESSL_DATA"


def datasets_folder() -> Path:
    """Return ``$EDGESSL_DATA``, by default ``~/.cache/edgessl/data``; it may not exist."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else Path.home() / ".cache/edgessl/data"


def not_there(name: str, detail: str, hint: str) -> DataInvalid:
    """Build the error for a dataset that is not on this computer, or damaged."""
    return DataInvalid(f"the dataset '{name}' is not in {datasets_folder()}{detail}", hint=hint)

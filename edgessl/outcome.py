"""What a command of the Python API returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgessl.core.errors import EdgeSSLError


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        command: Its name.
        run: Run folder.
        result: JSON values: paths, figures, verdicts.
        next: The command to call next.
        errors: Errors of branches that failed while others finished.
    """

    command: str
    run: Path
    result: dict[str, Any]
    next: str
    errors: tuple[EdgeSSLError, ...] = field(default=())

"""What the page of the kind ``browser`` needs on this machine."""

from __future__ import annotations

from typing import Any

from edgessl.core.console import Reporter
from edgessl.devices.browser import packages


def look() -> dict[str, Any]:
    """Say which runtimes can be served to a browser; no page is opened."""
    rows = []
    for runtime in packages.RUNTIMES:
        absent = packages.missing(runtime)
        rows.append(
            {"runtime": runtime, "runs": not absent,
             "version": None if absent else packages.label(runtime),
             "fix": packages.SETUP if absent else None}
        )  # fmt: skip
    return {"folder": str(packages.cache_folder()), "runtimes": rows}


def bring(reporter: Reporter) -> dict[str, Any]:
    """Fetch the packages of the page, checked by hash."""
    folder = packages.setup(reporter.say)
    return look() | {"folder": str(folder)}

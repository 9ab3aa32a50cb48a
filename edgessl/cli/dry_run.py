"""What ``--dry-run`` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgessl.cli.show import size, table

MB = 1e6
STEP = {"views": "making views", "model": "forward and backward", "optimizer": "the update"}


def text(result: Mapping[str, Any]) -> str:
    """Return the table of a dry run, what it needs, and the bottleneck."""
    rows = [
        (part["name"], "-" if part["seconds"] is None else duration(part["seconds"]), part["note"])
        for part in result["parts"]
    ]
    rows.append(("together", duration(result["seconds"]), "what is estimated above"))
    threads = result["threads"]
    shown = table(("part", "time", ""), rows, right="1")
    memory, disk = result["memory_mb"], result["disk_mb"]
    gpu = "" if memory["gpu"] is None else f", {size(memory['gpu'] * MB)} on the GPU"
    shown += (
        f"\nmemory: {size(memory['process'] * MB)}{gpu}\n"
        f"disk: {size(disk['total'] * MB)} in the run folder, {size(disk['free'] * MB)} free\n"
    )
    if (step := result["step_ms"]) is not None:
        slowest = result["bottleneck"]
        listed = ", ".join(f"{STEP[name]} {ms:.1f}" for name, ms in step.items())
        shown += (
            f"a step of pretraining in ms: {listed}\n"
            f"most of it, {slowest['share']:.0%}, is {STEP[slowest['part']]}; "
            f"to be faster: {slowest['suggestion']}\n"
        )
    steps = result["measured_steps"]
    measured = ", ".join(f"{n} of {name}" for name, n in steps.items() if n)
    return shown + (
        f"measured on {result['device']} with {threads} thread(s): {measured or 'no'} steps; "
        "the rest is counted\n"
    )


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"

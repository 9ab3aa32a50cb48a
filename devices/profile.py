"""The per-layer profile: what each operation of a file took, by the PyTorch module it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.devices import events
from edgessl.devices.events import Run

# what ONNX Runtime appends to the tensor that its own kernels for blocks of channels make
BLOCKED = re.compile(r"_nchwc(_token_\d+)?$")


def write_profile(path: Path, runs: Sequence[Run], modules: Mapping[str, str], seal: str) -> None:
    """Write ``profile.json`` from the ``layers`` event of the pass that was profiled.

    Args:
        path: The file to write.
        runs: Events of all processes; at most one has such an event.
        modules: From names of operations and tensors in the file to PyTorch modules.
        seal: Of the artifact.
    """
    told = next(iter(events.all_of(runs, "layers")), {})
    body = {
        "seal": seal,
        "unit": told.get("unit", "us"),
        "runs": told.get("runs", 0),
        "note": told.get("note", "") if told else "the device sent no profile",
        "rows": profile_rows(told.get("rows", ()), modules),
    }
    files.write_json(path, "layer-profile", body)


def profile_rows(
    rows: Iterable[Mapping[str, Any]], modules: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of a profile with ``module``, in the order they ran.

    Runtimes fuse operations and name what they make after one or several of them, so a row
    belongs to the module whose operation or tensor it is called like, or whose name it contains.
    What a runtime adds for itself, such as a change of layout, has none.

    Args:
        rows: ``name``, ``op``, ``p50``, ``share`` of each operation, as the agent sent them.
        modules: From names in the file to PyTorch modules.
    """
    return [
        {"module": module_of(str(row["name"]), modules)}
        | {key: row[key] for key in ("name", "op", "p50", "share")}
        for row in rows
    ]


def module_of(name: str, modules: Mapping[str, str]) -> str | None:
    """Return the module of one operation of a runtime; None for what it added itself."""
    for known in (name, BLOCKED.sub("", name)):
        if known in modules:
            return modules[known]
    inside = [node for node in modules if _contains(name, node)]
    return modules[max(inside, key=len)] if inside else None


def _contains(name: str, node: str) -> bool:
    """Whether ``node`` stands in ``name`` as a whole word of it."""
    at = name.find(node)
    if at < 0 or not node:
        return False
    around = (name[at - 1 : at], name[at + len(node) : at + len(node) + 1])
    return not any(c.isalnum() or c in "._" for c in around)

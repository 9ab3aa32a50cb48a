"""The per-layer profile: what each operation of a file took, by the PyTorch module it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl.core import files
from edgessl.core.errors import FileInvalid
from edgessl.devices import events
from edgessl.devices.events import Run


def write_profile(path: Path, runs: Sequence[Run], folder: Path, seal: str) -> None:
    """Write ``profile.json`` from the ``layers`` event of the pass that was profiled.

    Args:
        path: The file to write.
        runs: Events of all processes; at most one has such an event.
        folder: Export stage folder, whose ``layers.json`` names the modules.
        seal: Of the artifact.
    """
    told = next(iter(events.all_of(runs, "layers")), {})
    body = {
        "seal": seal,
        "unit": told.get("unit", "us"),
        "runs": told.get("runs", 0),
        "note": told.get("note", "") if told else "the device sent no profile",
        "rows": profile_rows(told.get("rows", ()), _modules(folder)),
    }
    files.write_json(path, "layer-profile", body)


def profile_rows(
    rows: Iterable[Mapping[str, Any]], modules: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the rows of a profile with ``module``, in the order they ran.

    Runtimes fuse operations and name what they make after one or several of them, so a row
    belongs to the module whose operation it is called like, or whose name it contains.

    Args:
        rows: ``name``, ``op``, ``p50``, ``share`` of each operation, as the agent sent them.
        modules: From names in the file to PyTorch modules.
    """
    found = []
    for row in rows:
        module = modules.get(str(row["name"]))
        if module is None:
            inside = [node for node in modules if _contains(str(row["name"]), node)]
            module = modules[max(inside, key=len)] if inside else None
        found.append({"module": module} | {k: row[k] for k in ("name", "op", "p50", "share")})
    return found


def _contains(name: str, node: str) -> bool:
    """Whether ``node`` stands in ``name`` as a whole word of it."""
    at = name.find(node)
    if at < 0 or not node:
        return False
    around = (name[at - 1 : at], name[at + len(node) : at + len(node) + 1])
    return not any(c.isalnum() or c in "._" for c in around)


def _modules(folder: Path) -> dict[str, str]:
    path = folder / "layers.json"
    if not path.is_file():
        return {}
    rows = files.read_json(path, "layers").get("layers")
    if not isinstance(rows, list):
        raise FileInvalid(f"{path} holds no list of layers", hint="export the model again")
    return {str(row["node"]): str(row["module"]) for row in rows if row.get("node")}

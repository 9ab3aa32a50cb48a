"""Which finished bench may stand for the one that is asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.core.measurement import BenchResult
from edgessl.devices.agent_file import agent_sha256
from edgessl.devices.base import Device
from edgessl.devices.choice import Asked, asked_values, runtime_for
from edgessl.devices.runtimes import RUNTIMES


def kept_bench(
    place: Path, stem: str, artifact: Artifact, device: Device, asked: Asked, data_sha256: str,
    allow: bool,
) -> tuple[BenchResult, Path] | None:  # fmt: skip
    """Return the newest finished bench of the same file, device, software and question.

    A figure that is not valid is taken again, unless such figures are accepted, and so is one
    with the log of an external meter, which belongs to its moment.

    Args:
        place: Folder of the device in the run.
        stem: Begin of the names of the benches that count.
        artifact: The file.
        device: The device as it is now.
        asked: What is asked for.
        data_sha256: Identity of the images.
        allow: Whether figures that are not VALID are accepted.

    Returns:
        The result and its folder.
    """
    if asked.power_csv is not None:
        return None
    runtime, provider = runtime_for(artifact, asked, device.traits, device.facts())
    for path in sorted(place.glob(f"{stem}*/result.json"), reverse=True):
        try:
            found = BenchResult.model_validate(files.read_json(path, "bench-result"))
        except (FileInvalid, ValidationError):
            continue  # of another version, or damaged: it is taken again
        same = (
            found.model.get("seal") == artifact.seal
            and found.device.get("kind") == device.kind
            and found.data.get("data_sha256") == data_sha256
            and found.run.get("agent_sha256") == agent_sha256()
            and found.protocol.get("preset", {}).get("name") == asked.preset.name
            and found.protocol.get("asked") == asked_values(asked)
            and found.runtime.get("asked", {}).get("provider") == provider
            and _installed(str(found.runtime.get("version")), runtime, device.facts())
        )
        if same and acceptable(found, allow):
            return found, path.parent
    return None


def acceptable(result: BenchResult, allow: bool) -> bool:
    """Whether a figure may stand: valid (on a stand-in, too), or accepted as it is."""
    if result.verdict == "WRONG_ANSWERS":
        return False
    return allow or set(result.verdicts) <= {"VALID", "EMULATED"}


def _installed(version: str, runtime: str, facts: Mapping[str, Any]) -> bool:
    """Whether a runtime of that version is on the device; ``version`` names the package, too."""
    packages = facts.get("runtimes", {})
    names = [*RUNTIMES[runtime].packages, RUNTIMES[runtime].page]
    return version in {f"{name} {packages[name]}" for name in names if name in packages}

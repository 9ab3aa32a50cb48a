"""Which packages import here, each tried in a process of its own: a crash is a finding.

python -m edgessl.stages.imports JOB.json      see ``edgessl.stages.child``
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from edgessl.core.errors import EdgeSSLError
from edgessl.stages.child import run_child, serve

PROGRAM = ("-m", "edgessl.stages.imports")
TIMEOUT_S = 120.0
# one imports the other, so they share a process until one of them fails
TOGETHER = (("torch", "torchvision"), ("onnx", "onnxscript"))
DISTRIBUTIONS = {
    "sklearn": "scikit-learn", "litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert",
    "PIL": "pillow",
}  # fmt: skip
# what shows that a package works, where its own name imports nothing native
PROBES = {"ai_edge_litert": "ai_edge_litert.interpreter"}
QUIET = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclass(frozen=True, slots=True)
class Package:
    """A package as it was found.

    Attributes:
        name: As it is imported.
        version: None when it is not installed.
        imports: None when that was not tried.
        problem: Why it does not import.
        seconds: What the import took.
        facts: What it tells about the machine.
    """

    name: str
    version: str | None
    imports: bool | None
    problem: str = ""
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def distribution(self) -> str:
        """Its name for pip."""
        return DISTRIBUTIONS.get(self.name, self.name)

    @property
    def usable(self) -> bool:
        """Whether it is installed and nothing is known against it."""
        return self.version is not None and self.imports is not False


def look_for(names: Iterable[str], *, untried: Sequence[str] = ()) -> dict[str, Package]:
    """Find packages and import those that are installed, in parallel.

    Args:
        names: As they are imported.
        untried: Those that are only looked for, because they take long.
    """
    names = list(dict.fromkeys(names))
    found = {name: Package(name, _version(name), None) for name in names}
    present = [n for n in names if n not in untried and found[n].version is not None]
    groups = [[n for n in group if n in present] for group in TOGETHER]
    groups += [[n] for n in present if not any(n in group for group in groups)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for packages in pool.map(_tried, filter(None, groups)):
            found |= {package.name: package for package in packages}
    return found


def _version(name: str) -> str | None:
    if find_spec(name) is None:
        return None
    try:
        return metadata.version(DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return "unknown version"


def _tried(names: Sequence[str]) -> list[Package]:
    """Import packages one after the other in one child; alone, if it dies."""
    try:
        answers = run_child("import", {"names": list(names)}, timeout_s=TIMEOUT_S, program=PROGRAM)[
            "packages"
        ]
    except EdgeSSLError as error:
        if len(names) > 1:
            return [package for name in names for package in _tried([name])]
        answers = {names[0]: {"problem": error.message, "seconds": 0.0, "facts": {}}}
    return [
        Package(name, _version(name), not answers[name]["problem"], **answers[name])
        for name in names
    ]


def import_all(job: dict[str, Any]) -> dict[str, Any]:
    """Import ``names`` and say for each what it took, or why it failed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # openvino imports its telemetry inside try; None makes that fail before any of it runs
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime has one, too, from 1.29 on
    answers, names = {}, [str(name) for name in job["names"]]
    for name in names:
        start, problem, facts = time.monotonic(), "", {}
        try:
            importlib.import_module(PROBES.get(name, name))
            facts = _gpu() if name == "torch" else {}
        except Exception as error:  # noqa: BLE001  a broken package fails in any way
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        seconds = round(time.monotonic() - start, 2)
        answers[name] = {"problem": problem, "seconds": seconds, "facts": facts}
    return {"packages": answers}


def _gpu() -> dict[str, Any]:
    import torch

    available = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name(0) if available else None,
        "threads": torch.get_num_threads(),
        "cuda_build": torch.version.cuda,
    }


if __name__ == "__main__":
    sys.exit(serve({"import": import_all}, sys.argv))

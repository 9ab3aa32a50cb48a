"""What works on this machine, and the command that mends what does not."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgessl import __version__
from edgessl.core.errors import EdgeSSLError
from edgessl.core.runs import machine_facts
from edgessl.devices import DEVICES
from edgessl.devices.runtimes import RUNTIMES
from edgessl.devices.ways import way_to
from edgessl.exporters import EXPORTERS
from edgessl.stages.imports import Package, look_for

TRAINING = ("torch", "torchvision", "sklearn")
SLOW = ("litert_torch", "nncf")  # up to ten seconds; tried when their target is asked for
EXTRAS: Mapping[str, str] = {package: "train" for package in TRAINING}
# what the agent on a device can time a file with, by the names they are imported by
DEVICE_RUNTIMES = {r.package.replace("-", "_"): r.extra for r in RUNTIMES.values() if r.extra}
# releases that are known not to work, and what to install instead
BROKEN = {("torch", "2.13.0"): "pip install 'torch!=2.13.0' torchvision"}


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that edgessl can do here, or not.

    Attributes:
        kind: ``training``, ``target`` or ``device``.
        name: Of the target or device.
        works: Whether it does.
        detail: What it works with, or why it does not.
        fix: The command that mends it.
        optional: Whether it is a way to other machines, which most users set up only for one.
    """

    kind: str
    name: str
    works: bool
    detail: str
    fix: str = ""
    optional: bool = False


def examine(target: str | None = None, device: str | None = None) -> dict[str, Any]:
    """Look at the machine and try the packages, each in a process of its own.

    Args:
        target: Try only what this target needs.
        device: Try only what this device needs.

    Returns:
        ``system``, ``packages``, ``abilities``, ``settings``, ``works`` (of what was asked for;
        if nothing was, whether all that is installed can be imported) and ``problems``.

    Raises:
        UsageProblem: No such target or device.
    """
    chosen = [("target", target)] if target else []
    chosen += [("device", device)] if device else []
    for kind, name in chosen:
        (EXPORTERS if kind == "target" else DEVICES)[str(name)]
    targets = [target] if target else [] if chosen else list(EXPORTERS)
    devices = [device] if device else [] if chosen else list(DEVICES)
    needs = {name: _packages_of(name) for name in targets}
    wanted = [] if chosen else [*TRAINING]
    wanted += [package for names in needs.values() for package in names]
    wanted += [package for package in DEVICE_RUNTIMES if devices]
    packages = look_for(wanted, untried=() if target else SLOW)
    abilities = [] if chosen else [_ability("training", "", TRAINING, packages)]
    abilities += [_ability("target", name, needs[name], packages) for name in targets]
    abilities += [_device(name, packages) for name in devices]
    broken = [p for p in packages.values() if p.imports is False]
    failing = [a for a in abilities if not a.works] if chosen else []
    return {
        "edgessl": __version__,
        "system": _system(packages.get("torch")),
        "packages": [asdict(p) | {"fix": _fix(p)} for p in packages.values()],
        "abilities": [asdict(a) for a in abilities],
        "settings": _settings(),
        "works": not (failing or (broken and not chosen)),
        "problems": [f"{a.kind} {a.name}: {a.detail}" for a in failing]
        or ([] if chosen else [f"{p.name} does not import: {p.problem}" for p in broken]),
    }


def _packages_of(target: str) -> tuple[str, ...]:
    """Return what a target imports in all of its precisions, by top-level name."""
    exporter = EXPORTERS.load(target)
    further = [package for names in exporter.quantizes.values() for package in names]
    return tuple(dict.fromkeys(p.split(".")[0] for p in (*exporter.needs, *further)))


def _runtimes() -> dict[str, str]:
    """Return the package that runs the files of each target, where the entry says so."""
    facts = {name: entry.facts.get("runtime") for name, entry in EXPORTERS.entries.items()}
    return {name: str(runtime) for name, runtime in facts.items() if runtime}


def _ability(
    kind: str, name: str, needs: Iterable[str], packages: Mapping[str, Package]
) -> Ability:
    bad = [packages[n] for n in needs if not packages[n].usable]
    if not bad:
        used = ", ".join(f"{n} {packages[n].version}" for n in needs)
        return Ability(kind, name, True, used)
    detail = ", ".join(_state(package) for package in bad)
    runtime = packages.get(_runtimes().get(name, ""))
    if kind == "target" and runtime is not None and runtime.usable:
        detail += "; files that exist run here"
    return Ability(kind, name, False, detail, "; ".join(dict.fromkeys(map(_fix, bad))))


def _device(name: str, packages: Mapping[str, Package]) -> Ability:
    try:
        DEVICES.load(name)
    except EdgeSSLError as error:
        return Ability("device", name, False, error.message, error.hint)
    if name != "local":  # what runs there is a question to the board: edgessl devices check
        return Ability("device", name, *way_to(name), optional=True)
    usable = [packages[p] for p in DEVICE_RUNTIMES if packages[p].usable]
    if usable:
        return Ability("device", name, True, ", ".join(f"{p.name} {p.version}" for p in usable))
    extra = next(iter(DEVICE_RUNTIMES.values()))
    return Ability(
        "device", name, False, "no runtime works here", f"pip install 'edgessl[{extra}]'"
    )


def _state(package: Package) -> str:
    if package.version is None:
        return f"{package.name} is not installed"
    return f"{package.name} {package.version} does not import: {package.problem}"


def _fix(package: Package) -> str:
    """Return the pip command for a package that is missing or broken; '' when it is fine."""
    if package.usable:
        return ""
    extra = EXTRAS.get(package.name) or next(
        (e.extra for n, e in EXPORTERS.entries.items() if package.name in _packages_of(n)),
        "",
    )
    if package.version is None:
        return f"pip install 'edgessl[{extra}]'" if extra else f"pip install {package.distribution}"
    known = BROKEN.get((package.name, package.version.partition("+")[0]))
    if known:
        return known
    if package.name in ("torch", "torchvision"):  # most often the two do not fit each other
        return "pip install --force-reinstall torch torchvision"
    return f"pip install --force-reinstall {package.distribution}"


def _system(torch: Package | None) -> dict[str, Any]:
    here, scratch = Path.cwd(), Path(tempfile.gettempdir())
    gpu = torch.facts.get("gpu") if torch else None
    nvidia = shutil.which("nvidia-smi") is not None
    note = None
    if nvidia and torch is not None and torch.usable and gpu is None:
        note = "an NVIDIA driver is here, but this torch cannot use it"
    return machine_facts() | {
        "platform": platform.platform(),
        "memory_free_mb": _free_memory_mb(),
        "disk_free_mb": shutil.disk_usage(here).free >> 20,
        "scratch": str(scratch),
        "scratch_free_mb": shutil.disk_usage(scratch).free >> 20,
        "gpu": gpu,
        "gpu_note": note,
        "torch_threads": torch.facts.get("threads") if torch else None,
    }


def _free_memory_mb() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(number) // 1024 for number in kilobytes), None)


def _settings() -> list[dict[str, str]]:
    """Say which settings of the environment matter, and what they do."""
    threads, policy = os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY")
    rows: Sequence[tuple[str, str, str]] = (
        ("OMP_NUM_THREADS", threads or "not set", "threads of training; not set: all cores"),
        (
            "OMP_WAIT_POLICY",
            policy or "not set",
            "edgessl sets PASSIVE: threads that spin slow a busy machine down",
        ),
        (
            "telemetry",
            "off",
            "openvino's is kept from being imported in every process of edgessl; your own "
            "opt-in or opt-out file is neither read nor written",
        ),
    )
    return [{"name": name, "value": value, "note": note} for name, value, note in rows]

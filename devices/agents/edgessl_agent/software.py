"""The Python of the board, what wheels it takes, and the runtimes installed for it."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
import platform
import sys
from typing import Any

from .channel import Failed

# what a user installs, by the module that is imported; the first that is there is used
RUNTIMES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
    "tensorrt": ("tensorrt",),
}
PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "ai-edge-litert", "tflite-runtime", "tensorrt",
    "numpy",
)  # fmt: skip


def libc() -> tuple[str, str]:
    """Return name and version of the C library: ``("glibc", "2.36")``, ``("musl", "")``."""
    name, version = platform.libc_ver()
    if not name and glob.glob("/lib/ld-musl-*"):
        name = "musl"
    return name, version


def wheels() -> dict[str, Any]:
    """Return what decides which wheels run here."""
    name, version = libc()
    return {
        "implementation": platform.python_implementation().lower(),
        "python": "%d.%d" % sys.version_info[:2],
        "machine": platform.machine(),
        # a 32-bit userland can run on a 64-bit kernel, which then names the machine aarch64
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": name,
        "libc_version": version,
    }


def versions() -> dict[str, str]:
    """Versions of the runtimes installed here, found without importing them."""
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "tensorrt" and is_there(package):  # of JetPack, without metadata
                found[package] = "of unknown version"
    return found


def is_there(runtime: str) -> bool:
    """Return whether a package for the runtime is installed, whether it works or not."""
    tops = [module.split(".")[0] for module in RUNTIMES[runtime]]
    return any(importlib.util.find_spec(top) is not None for top in tops)


def import_runtime(name: str) -> tuple[Any, str]:
    """Import the runtime and return it with ``package version``.

    Raises:
        Failed: ``MissingRuntime``, or ``BrokenRuntime``: it is there and does not load.
    """
    # neither of them phones home; ONNX Runtime would from 1.29 on
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    broken = []
    for module in RUNTIMES[name]:
        top = module.split(".")[0]
        if importlib.util.find_spec(top) is None:
            continue
        found, package = versions(), top.replace("_", "-")
        version = found.get(package) or found.get(package + "-gpu", "of unknown version")
        try:
            return importlib.import_module(module), "%s %s" % (package, version)
        except Exception as error:
            broken.append("%s %s does not load: %s" % (package, version, error))
            if top == "tflite_runtime" and not found.get("numpy", "1.").startswith("1."):
                broken[-1] += "; it needs numpy < 2, here is %s" % found["numpy"]
    if broken:
        raise Failed("BrokenRuntime", "; ".join(broken))
    raise Failed("MissingRuntime", "no package for the runtime '%s' is installed" % name)

"""What the board is, by what the system shows without root and without importing a runtime."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import shutil
from typing import Any

from . import software
from .emulation import emulator, virtual_machine
from .processor import board_model, processor
from .reading import colon_table, number, read
from .telemetry import clocks, snapshot


def facts(*, metered: bool = False) -> dict[str, Any]:
    """Describe the board; what cannot be seen from here is named under ``not_observable``.

    Args:
        metered: Whether a power sensor is read.
    """
    cpu, machine, now = colon_table("/proc/cpuinfo"), platform.machine(), snapshot("facts")
    policies, emulated_by = clocks(), emulator(cpu, machine)
    missing = {
        "temperature": not now["temp_c"],
        "clock frequency and governor": not now["freq_mhz"],
        "CPU time of other processes": now["busy_s"] is None,
        "waiting for a core": now["wait_s"] is None,
        "swap traffic": now["swap_pages"] is None,
        "power draw": not metered,
    }
    usable = getattr(os, "sched_getaffinity", None)
    release = dict(p.split("=", 1) for p in read("/etc/os-release").splitlines() if "=" in p)
    return {
        "board": board_model(),
        "compatible": _words("/proc/device-tree/compatible"),
        "l4t": read("/etc/nv_tegra_release").split("\n")[0] or None,
        "product": read("/sys/class/dmi/id/product_name") or None,
        "cpu": processor(machine),
        "machine": machine,
        "cores": os.cpu_count(),
        "affinity": sorted(usable(0)) if usable else None,
        "policies": policies,
        "clusters": _clusters(policies),
        "temp_c": now["temp_c"],
        "fans": fans(),
        "memory_mb": memory_mb(),
        "disk_free_mb": _free_mb(),
        "load": list(os.getloadavg()),
        "uptime_s": float((read("/proc/uptime") or "0").split()[0]),
        "os": release.get("PRETTY_NAME", platform.system()).strip('"'),
        "kernel": platform.release(),
        "libc": " ".join(software.libc()).strip(),
        "python": platform.python_version(),
        "wheels": software.wheels(),
        "virtual_machine": virtual_machine(cpu),
        "emulated": emulated_by is not None,
        "emulator": emulated_by,
        "power_supplies": power_supplies(),
        "runtimes": software.versions(),
        "host_hash": hashlib.sha256(platform.node().encode()).hexdigest()[:6],
        "not_observable": [name for name, absent in missing.items() if absent],
    }


def memory_mb() -> dict[str, float]:
    """Total and available memory and swap, MiB."""
    table = colon_table("/proc/meminfo")
    names = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    return {n: round(int(table[n].split()[0]) / 1024, 1) for n in names if n in table}


def fans() -> dict[str, float]:
    """Revolutions a minute, or the drive of a fan without a counter (0 to 255), by its file."""
    found = {}
    for kind in ("fan*_input", "pwm[0-9]"):
        for path in sorted(glob.glob("/sys/class/hwmon/hwmon*/" + kind)):
            folder, file = path.rsplit("/", 1)
            value = number(path)
            if value is not None:
                found["%s %s" % (read(folder + "/name") or "fan", file)] = value
    return found


def power_supplies() -> dict[str, str]:
    """State of each supply in words: ``Discharging, 87 %`` of a battery, ``online 1`` of a plug."""
    found = {}
    for path in sorted(glob.glob("/sys/class/power_supply/*")):
        state, level = read(path + "/status"), read(path + "/capacity")
        text = state or "online " + read(path + "/online")
        found[os.path.basename(path)] = text + (", %s %%" % level if state and level else "")
    return found


def _clusters(policies: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Cores that share a clock, with the most it can be: fast and slow cores are told apart."""
    return [
        {"cores": entry["cores"], "max_mhz": entry["hardware_max_mhz"] or entry["max_mhz"]}
        for entry in policies.values()
    ]


def _words(path: str) -> list[str]:
    """Return the strings of a device-tree property: each ends in NUL."""
    try:
        with open(path, "rb") as stream:
            return [w.decode("utf-8", "replace") for w in stream.read(4096).split(b"\0") if w]
    except OSError:
        return []


def _free_mb() -> float | None:
    try:
        return round(shutil.disk_usage(os.getcwd()).free / 2**20, 1)
    except OSError:
        return None


def runtimes() -> dict[str, Any]:
    """Return what the runtimes themselves say, by name; imports each of them.

    ``providers`` that a session may ask for, or the ``error`` with which the import ended.
    """
    found = {}
    for name in software.RUNTIMES:
        try:
            module, version = software.import_runtime(name)
            found[name] = {"version": version, "providers": _providers(name, module)}
        except Exception as error:
            if software.is_there(name):
                found[name] = {"error": "%s: %s" % (type(error).__name__, error)}
    return found


def _providers(name: str, module: Any) -> list[str]:
    if name == "onnxruntime":
        return list(module.get_available_providers())
    if name == "openvino":
        return list(module.Core().available_devices)
    return ["XNNPACK", "builtin"] if name == "litert" else ["TensorRT"]

"""The few things that change during a run: heat, clocks, who used the cores."""

from __future__ import annotations

import glob
import os
import time
from typing import Any

from .reading import colon_table, number, read

CPUFREQ = "/sys/devices/system/cpu/cpufreq/policy*"


def temperatures() -> dict[str, float]:
    """Degrees Celsius by thermal zone; unpowered sensors and the constant PMIC are left out."""
    found = {}
    for zone in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        value, name = number(zone + "/temp"), read(zone + "/type") or "zone"
        if value is None or "pmic" in name.lower():
            continue
        celsius = value / 1000 if abs(value) >= 1000 else value
        if -40 < celsius < 150:
            found[name + zone.rsplit("zone", 1)[1]] = round(celsius, 1)
    return found


def clocks() -> dict[str, dict[str, Any]]:
    """Governor, cores and MHz (now, least, most, by the hardware) by cpufreq policy."""
    found = {}
    names = {"cur": "scaling_cur_freq", "min": "scaling_min_freq", "max": "scaling_max_freq",
             "hardware_max": "cpuinfo_max_freq"}  # fmt: skip
    for policy in sorted(glob.glob(CPUFREQ)):
        entry: dict[str, Any] = {
            "governor": read(policy + "/scaling_governor") or None,
            "cores": read(policy + "/related_cpus") or None,
        }
        for name, file in names.items():
            khz = number(policy + "/" + file)
            entry[name + "_mhz"] = None if khz is None else round(khz / 1000)
        found[os.path.basename(policy)] = entry
    return found


def status_mb(field: str) -> float | None:
    """Return VmRSS or VmHWM of this process, MiB (not ru_maxrss: that inherits the parent's)."""
    words = colon_table("/proc/self/status").get(field, "").split()
    return round(int(words[0]) / 1024, 2) if words else None


def busy_seconds() -> float | None:
    """CPU seconds that all processes, interrupts and the hypervisor have used since boot."""
    words = read("/proc/stat").split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(w) for w in words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def waiting_seconds() -> float | None:
    """Seconds that the threads of this process were ready but had no core."""
    found = [read(p).split() for p in glob.glob("/proc/self/task/*/schedstat")]
    waits = [int(words[1]) for words in found if len(words) == 3]
    return sum(waits) / 1e9 if waits else None


def swapped_pages() -> int | None:
    """Pages swapped in and out since boot."""
    table = dict(line.split() for line in read("/proc/vmstat").splitlines() if line)
    if "pswpin" not in table:
        return None
    return int(table["pswpin"]) + int(table["pswpout"])


def slept_seconds() -> float | None:
    """Seconds that the board was suspended since boot: the monotonic clock leaves them out."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    # one after the other: what lies between two readings only makes the difference smaller
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() for _ in range(3))


def snapshot(phase: str) -> dict[str, Any]:
    """Read all of it; counters are cumulative."""
    return {
        "phase": phase,
        "temp_c": temperatures(),
        "freq_mhz": {name: entry["cur_mhz"] for name, entry in clocks().items()},
        "load1": round(os.getloadavg()[0], 2),
        "busy_s": busy_seconds(),
        "own_s": time.process_time(),
        "wait_s": waiting_seconds(),
        "swap_pages": swapped_pages(),
        "slept_s": slept_seconds(),
        "rss_mb": status_mb("VmRSS"),
    }

"""Whether the processor is a real one: a figure from an emulator says nothing about a board."""

from __future__ import annotations

import os
import threading

from .reading import read

VENDORS = ("QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Amazon EC2", "Google", "Virtual")
VIRT = "linux,dummy-virt"  # the device tree of QEMU's machine without a board


def emulator(cpu: dict[str, str], machine: str) -> str | None:
    """Name what emulates the processor, None when nothing shows.

    Args:
        cpu: ``/proc/cpuinfo``.
        machine: What the kernel calls the architecture.
    """
    if _user_mode() or (machine.startswith(("arm", "aarch")) and "vendor_id" in cpu):
        return "qemu-user"
    if VIRT in read("/proc/device-tree/compatible") or VIRT in read("/proc/device-tree/model"):
        # with a hypervisor its processor can be real; from inside that cannot be told
        return "qemu-system"
    return None


def _user_mode() -> bool:
    """Look at the own program by a path that user-mode emulation does not disguise.

    QEMU rewrites ``/proc/self/exe`` to the program it emulates, but not the same link of a thread.
    """
    thread = "/proc/self/task/%d/exe" % threading.get_native_id()
    try:
        return os.path.basename(os.readlink(thread)).startswith("qemu-")
    except OSError:
        return False


def virtual_machine(cpu: dict[str, str]) -> str | None:
    """Name the hypervisor, where one shows."""
    maker = " ".join(read("/sys/class/dmi/id/" + n) for n in ("sys_vendor", "product_name"))
    for word in VENDORS:
        if word.lower() in maker.lower():
            return word
    if VIRT in read("/proc/device-tree/compatible") or VIRT in read("/proc/device-tree/model"):
        return "QEMU"
    named = read("/sys/hypervisor/type")
    return named or ("unnamed" if "hypervisor" in cpu.get("flags", "").split() else None)

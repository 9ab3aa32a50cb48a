"""What the processor is called: Arm kernels give numbers where others give names."""

from __future__ import annotations

from .reading import colon_table, read

# implementer 0x41 (Arm), as in lscpu of util-linux
PARTS = {
    "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9", "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE", "0xd44": "Cortex-X1", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2", "0xd49": "Neoverse-N2", "0xd4d": "Cortex-A715", "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2", "0xd80": "Cortex-A520", "0xd81": "Cortex-A720", "0xd82": "Cortex-X4",
}  # fmt: skip
CPUINFO = "/proc/cpuinfo"


def processor(machine: str) -> str:
    """Return the model of the processor, of every kind of core that it has.

    Args:
        machine: What the kernel calls the architecture; the answer where nothing else is known.
    """
    table = colon_table(CPUINFO)
    if table.get("CPU implementer") == "0x41":
        lines = [line.partition(":") for line in read(CPUINFO).splitlines()]
        seen = [value.strip() for key, _, value in lines if key.strip() == "CPU part"]
        names = [PARTS.get(part, "") for part in dict.fromkeys(seen)]
        if names and all(names):
            return " + ".join(names)
    for key in ("model name", "Hardware", "Processor"):
        if table.get(key):
            return table[key]
    return machine


def board_model() -> str | None:
    """Return what the device tree calls the board."""
    for folder in ("/proc/device-tree", "/sys/firmware/devicetree/base"):
        if read(folder + "/model"):
            return read(folder + "/model")
    return None

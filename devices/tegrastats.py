"""One line of ``tegrastats``, in any of its shapes from JetPack 4 to JetPack 7.

The line is taken apart into words and never matched as a whole, as names, order, units and
brackets change from board to board and from release to release.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST = 4096  # characters of a line; true ones have less than a thousand
COLDEST_C = -40.0  # an unpowered sensor says -256
CONSTANT = "pmic"  # always 50 or 100
UNUSED = "nc"


@dataclass(frozen=True, slots=True)
class Core:
    """Load in percent and clock of one core."""

    load: int
    mhz: int


@dataclass(slots=True)
class Line:
    """What one line says; what it does not say is None or missing.

    Attributes:
        ram_mb: Used and total.
        swap_mb: Used and total.
        cores: One entry a core; None for one that is switched off.
        gpu_load: Percent.
        gpu_mhz: The highest, where clusters have their own.
        emc_load: Percent of the memory's bandwidth.
        emc_mhz: Clock of the memory.
        celsius: By sensor, names in lower case.
        rails_mw: By rail, at the moment (not the average behind it).
    """

    ram_mb: tuple[int, int] | None = None
    swap_mb: tuple[int, int] | None = None
    cores: list[Core | None] = field(default_factory=list)
    gpu_load: int | None = None
    gpu_mhz: int | None = None
    emc_load: int | None = None
    emc_mhz: int | None = None
    celsius: dict[str, float] = field(default_factory=dict)
    rails_mw: dict[str, float] = field(default_factory=dict)


def parse(text: str) -> Line:
    """Return what a line of tegrastats says; a text that is none gives an empty line."""
    line = Line()
    name = ""
    for word in _words(text):
        if "@" in word and _temperature(word, line.celsius):
            continue
        if not _is_value(word):
            name = word
        elif name:
            _take(line, name, word)
            name = ""
    return line


def _words(text: str) -> Iterator[str]:
    """Yield names and values; what stands in round brackets is left out."""
    for word in re.sub(r"\([^)]*\)", " ", text[:LONGEST]).split():
        if not re.fullmatch(r"\d{2}-\d{2}-\d{4}|\d{2}:\d{2}:\d{2}", word):
            yield word


def _is_value(word: str) -> bool:
    return word[0] in "0123456789[@-" or word == "off"


def _temperature(word: str, celsius: dict[str, float]) -> bool:
    found = re.fullmatch(r"([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C(?:/.*)?", word)
    if found is None:
        return False
    value = float(found[2])
    if value > COLDEST_C and found[1].lower() != CONSTANT:
        celsius[found[1].lower()] = value
    return True


def _take(line: Line, name: str, value: str) -> None:
    if name == "CPU" and value.startswith("["):
        line.cores = _cores(value)
    elif name in ("RAM", "SWAP", "IRAM"):
        found = re.fullmatch(r"(\d+)/(\d+)MB", value)
        if found and name != "IRAM":
            setattr(line, f"{name.lower()}_mb", (int(found[1]), int(found[2])))
    elif name in ("GR3D_FREQ", "GR3D"):
        line.gpu_load, line.gpu_mhz = _engine(value)
    elif name in ("EMC_FREQ", "EMC"):
        line.emc_load, line.emc_mhz = _engine(value)
    elif name.lower() != UNUSED and (
        mw := re.fullmatch(r"(-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)+", value)
    ):
        line.rails_mw[name] = float(mw[1])


def _engine(value: str) -> tuple[int | None, int | None]:
    """Return load and clock of ``0%``, ``0%@76``, ``0%@[114]``, ``0%@[1300,1300]``, ``@[1000]``."""
    load, _, clock = value.partition("@")
    clocks = [int(n) for n in re.findall(r"\d+", clock)]
    return int(load[:-1]) if re.fullmatch(r"\d+%", load) else None, max(clocks, default=None)


def _cores(value: str) -> list[Core | None]:
    """Return cores of ``[5%@1224,off]``, and of ``[5%,off]@1224`` of older releases."""
    inside, _, common = value[1:].partition("]")
    cores: list[Core | None] = []
    for word in inside.split(","):
        found = re.fullmatch(r"(\d+)%@?(\d*)", word)
        mhz = (found[2] if found else "") or common.lstrip("@")
        cores.append(Core(int(found[1]), int(mhz)) if found and mhz.isdigit() else None)
    return cores

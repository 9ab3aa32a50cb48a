"""What decides which wheels run on a board: its Python, C library and processor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgessl.core.errors import EdgeSSLError
from edgessl.devices.l4t import release

OLDEST_MINOR = {"x86_64": 5, "i686": 5}  # of glibc 2 that a wheel can be made for; others: 17
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
MUSL_MINORS = (2, 1)


@dataclass(frozen=True, slots=True)
class Target:
    """What decides which wheels run on a board.

    Attributes:
        python: Major and minor version.
        machine: As in the names of wheels, of the Python there and not of the kernel.
        libc: ``glibc`` or ``musl``.
        libc_version: Major and minor version; (0, 0) if unknown.
        jetpack: Major version; None on other boards.
        numpy: Version that is installed on the board; empty for none.
        implementation: ``cpython``, ``pypy``, ...
    """

    python: tuple[int, int]
    machine: str
    libc: str = "glibc"
    libc_version: tuple[int, int] = (0, 0)
    jetpack: int | None = None
    numpy: str = ""
    implementation: str = "cpython"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Target:
        """Read it from the agent's facts.

        Raises:
            EdgeSSLError: The board told something else.
        """
        told = facts.get("wheels")
        told = told if isinstance(told, Mapping) else {}
        machine = str(told.get("machine", "")).lower()
        if told.get("bits") == 32:
            machine = {"aarch64": "armv7l", "arm64": "armv7l", "x86_64": "i686"}.get(
                machine, machine
            )
        python, libc = two_numbers(told.get("python")), str(told.get("libc", ""))
        if python == (0, 0) or not re.fullmatch(r"\w{2,20}", machine):
            raise EdgeSSLError(f"the board does not tell its Python and processor: {told!r:.200}")
        found = release(str(facts.get("l4t") or ""))
        runtimes = facts.get("runtimes")
        return cls(
            python, "aarch64" if machine == "arm64" else machine, libc,
            two_numbers(told.get("libc_version")), found.jetpack if found else None,
            str(runtimes.get("numpy", "")) if isinstance(runtimes, Mapping) else "",
            str(told.get("implementation", "")),
        )  # fmt: skip

    @property
    def words(self) -> str:
        """As in ``Python 3.11, aarch64, glibc 2.36``."""
        version = ".".join(map(str, self.libc_version)) if any(self.libc_version) else ""
        jetpack = f", JetPack {self.jetpack}" if self.jetpack else ""
        libc = f"{self.libc or 'unknown C library'} {version}".strip()
        return f"Python {self.python_text}, {self.machine}, {libc}{jetpack}"

    @property
    def python_text(self) -> str:
        """As in ``3.11``."""
        return ".".join(map(str, self.python))

    def tags(self) -> list[str]:
        """Return the platform tags of wheels that run here, the newest C library first.

        Source: PEP 600 and 656.
        """
        tags = []
        if self.libc == "musl":
            tags = [f"musllinux_1_{minor}_{self.machine}" for minor in MUSL_MINORS]
        elif self.libc_version[0] == 2:
            for minor in range(self.libc_version[1], OLDEST_MINOR.get(self.machine, 17) - 1, -1):
                tags.append(f"manylinux_2_{minor}_{self.machine}")
                if minor in OLD_NAMES:
                    tags.append(f"{OLD_NAMES[minor]}_{self.machine}")
        return [*tags, f"linux_{self.machine}"]

    def options(self, python: str = "") -> list[str]:
        """Return the options with which pip takes the wheels of this board.

        Args:
            python: Another version than the board's.
        """
        version = python or self.python_text
        platforms = [part for tag in self.tags() for part in ("--platform", tag)]
        abi = "cp" + version.replace(".", "")
        return ["--only-binary=:all:", "--python-version", version, "--implementation", "cp",
                "--abi", abi, *platforms]  # fmt: skip


def two_numbers(text: object) -> tuple[int, int]:
    """Return the first two numbers of a version; (0, 0) if there are none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", str(text or ""))
    return (int(found[1]), int(found[2])) if found else (0, 0)

"""Which release a Jetson runs, and in which power mode: identity files and ``nvpmodel -q``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgessl.devices.plain import shown

# major release of Linux for Tegra -> JetPack
JETPACKS = {"32": 4, "34": 5, "35": 5, "36": 6, "38": 7, "39": 7}


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Linux for Tegra.

    Attributes:
        version: As in ``36.4.7``.
        jetpack: Major version of the JetPack that it belongs to; None for one not known here.
    """

    version: str
    jetpack: int | None


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A power mode; what a number means differs from board to board.

    Attributes:
        name: As in ``MAXN``, ``25W``, ``MODE_15W_6CORE``.
        number: None where it was not printed.
    """

    name: str
    number: int | None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name} (mode {self.number})"


def release(text: str) -> Release | None:
    """Return what ``/etc/nv_tegra_release`` says: ``# R36 (release), REVISION: 4.7, ...``."""
    found = re.search(r"#\s*R(\d{1,3})\s*\(release\),\s*REVISION:\s*([\d.]{1,12})", text)
    if found is None:
        return None
    return Release(f"{found[1]}.{found[2]}", JETPACKS.get(found[1]))


def power_mode(text: str) -> PowerMode | None:
    """Return what ``nvpmodel -q`` says: ``NV Power Mode: 25W``, and the number on a line alone.

    Warnings before it and, without root, errors behind it are common and mean nothing here.
    """
    found = re.search(r"NV Power Mode:[ \t]*(\S[^\n]*)(?:\n[ \t]*(\d{1,3})[ \t]*(?:\n|$))?", text)
    if found is None:
        return None
    return PowerMode(shown(found[1], 40), int(found[2]) if found[2] else None)


def fan_mode(text: str) -> str:
    """Return the fan mode that ``nvpmodel -q`` names (``NV Fan Mode:quiet``); empty for none."""
    found = re.search(r"NV Fan Mode:[ \t]*(\w{1,20})", text)
    return found[1] if found else ""


def packages(text: str) -> dict[str, str]:
    """Return versions by package of ``dpkg-query -W``: ``name<TAB>version`` lines."""
    found = {}
    for line in text.splitlines():
        name, _, version = line.partition("\t")
        if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,60}", name) and version.strip():
            found[name] = shown(version, 40)
    return found


def versions(text: str) -> dict[str, str]:
    """Return the versions of JetPack, CUDA, cuDNN and TensorRT from the installed packages.

    TensorRT is told by its library, as the package ``tensorrt`` itself is often left out.
    """
    forms = {
        "JetPack": r"nvidia-jetpack",
        "CUDA": r"cuda-cudart-\d+-\d+",
        "cuDNN": r"libcudnn\d+(?:-cuda-\d+)?",
        "TensorRT": r"libnvinfer\d+",
    }
    found = {}
    for title, form in forms.items():
        names = sorted(n for n in packages(text) if re.fullmatch(form, n))
        if names:
            found[title] = re.split(r"[+-]", packages(text)[names[-1]], maxsplit=1)[0]
    return found

"""What this machine needs to reach a kind of board, and whether it is here."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import NamedTuple

from edgessl.core.errors import EdgeSSLError


class Way(NamedTuple):
    """Whether a kind of board can be reached, with what, and the command that mends it."""

    works: bool
    detail: str
    fix: str = ""


def way_to(kind: str) -> Way:
    """Return how boards of a kind are reached from here; no board is asked."""
    if kind == "local":
        return Way(True, "this machine")
    if kind == "android":
        return _adb()
    if kind == "browser":
        return _browser()
    return _ssh()


def _ssh() -> Way:
    if (program := shutil.which("ssh")) is not None:
        return Way(True, f"through {program}")
    if find_spec("asyncssh") is not None:
        return Way(True, "through asyncssh, as no ssh program is here")
    return Way(False, "neither an ssh program nor asyncssh is here", "pip install 'edgessl[ssh]'")


def _adb() -> Way:
    from edgessl.devices.adb_client import find_adb

    try:
        return Way(True, f"through {find_adb()}")
    except EdgeSSLError as error:
        return Way(False, error.message, error.hint)


def _browser() -> Way:
    from edgessl.devices.browser import packages

    lacking = sorted({name for runtime in ("onnxruntime", "litert")
                      for name in packages.missing(runtime)})  # fmt: skip
    if lacking:
        return Way(False, f"not set up: {', '.join(lacking)}", "edgessl devices setup browser")
    return Way(True, ", ".join(packages.label(runtime) for runtime in ("onnxruntime", "litert")))

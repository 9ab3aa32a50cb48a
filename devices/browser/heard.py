"""What the browser says, in the words of the agent, so that one house judges both."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from edgessl.core.errors import DataInvalid, EdgeSSLError, FileInvalid, OutOfMemory
from edgessl.core.files import sha256_bytes
from edgessl.devices.browser.packages import PACKAGES
from edgessl.devices.plain import shown

TEXT = 400
# what a browser does not tell about the machine below it
HIDDEN = (
    "temperature", "clock frequency and governor", "CPU time of other processes",
    "waiting for a core", "swap traffic", "memory of the model", "power draw", "processor model",
)  # fmt: skip
NAMES = ("Edg", "OPR", "SamsungBrowser", "Firefox", "FxiOS", "CriOS", "Chrome", "Version")
NAMED = {
    "Edg": "Edge", "OPR": "Opera", "SamsungBrowser": "Samsung Internet", "FxiOS": "Firefox",
    "CriOS": "Chrome", "Version": "Safari",
}  # fmt: skip


def text_of(value: object, limit: int = TEXT) -> str:
    """Return a text of the browser as one printable line; empty if it is none."""
    return shown(value[: 4 * limit], limit) if isinstance(value, str) else ""


def facts_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a board from what the page tells about its browser.

    Raises:
        EdgeSSLError: What it tells has other types or sizes.
    """
    agent, model = text_of(told.get("user_agent")), text_of(told.get("model"), 60)
    platform = " ".join(
        filter(None, (text_of(told.get(n), 40) for n in ("platform", "platform_version")))
    )
    cores, memory, screen = (told.get(n) for n in ("cores", "memory_gb", "screen"))
    if not agent or not (cores is None or _whole(cores, 1, 4096)):
        raise EdgeSSLError("the page told no browser that can be known", hint="open it again")
    sizes = (
        screen if isinstance(screen, list) and all(_whole(n, 0, 1 << 16) for n in screen) else []
    )
    browser = browser_of(agent, told.get("brands"))
    what = json.dumps([agent, model, platform, cores, sizes])
    return {
        "board": model or None,
        "browser": browser,
        "user_agent": agent,
        "cpu": platform or platform_of(agent),
        "machine": "browser",
        "cores": cores or 0,
        "memory_gb": memory if isinstance(memory, int | float) else None,
        "secure_context": told.get("secure") is True,
        "cross_origin_isolated": told.get("isolated") is True,
        "webassembly": told.get("wasm") is True,
        "policies": {},
        "temp_c": {},
        "emulated": False,
        "virtual_machine": None,
        "power_supplies": _battery(told.get("battery")),
        "runtimes": {package.name: package.version for package in PACKAGES},
        "host_hash": sha256_bytes(what.encode())[:6],
        "not_observable": list(HIDDEN),
    }


def browser_of(agent: str, brands: object) -> str:
    """Return name and main version of a browser."""
    told = brands if isinstance(brands, list) else []
    pairs = [p for p in told if isinstance(p, list) and len(p) == 2]
    named = {text_of(name, 40): text_of(version, 20).partition(".")[0] for name, version in pairs}
    # one of the brands is made up, to keep pages from relying on the list
    real = [name for name in named if name and "brand" not in name.lower()]
    if real:
        best = min(real, key=lambda name: name == "Chromium")
        return f"{best} {named[best]}"
    for name in NAMES:
        if found := re.search(rf"{name}/(\d+)", agent):
            return f"{NAMED.get(name, name)} {found[1]}"
    return "unknown browser"


def platform_of(agent: str) -> str:
    """Return what stands in the first brackets of a user agent: the system."""
    found = re.search(r"\(([^)]{1,60})", agent)
    return found[1] if found else "unknown system"


def as_agent(event: Mapping[str, Any]) -> dict[str, Any]:
    """Complete an event of the page with what the agent's has and a browser cannot know."""
    if event["k"] == "tel":
        unseen = dict.fromkeys(
            ("load1", "own_s", "busy_s", "wait_s", "swap_pages", "slept_s", "rss_mb")
        )
        return {**unseen, "temp_c": {}, "freq_mhz": {}, "probes": {}} | {
            "k": "tel", "t": event.get("t"), "phase": event.get("phase"),
        }  # fmt: skip
    if event["k"] == "done":
        return dict(event) | {"max_rss_mb": None}
    return {name: value for name, value in event.items() if name != "job"}


def check_run(run: Sequence[Mapping[str, Any]], classes: int) -> None:
    """Check what only a page says, and that its answers are classes there are.

    Args:
        run: Its events, which the agent's listener has checked.
        classes: C of the golden record.

    Raises:
        EdgeSSLError: It says what it cannot have.
    """
    for event in run:
        if event["k"] == "timed" and not _whole(event.get("block"), 1, 10**9):
            raise EdgeSSLError("the page did not say how many inferences make a sample")
        step = event.get("clock_step_us")
        if event["k"] == "loaded" and not (isinstance(step, int | float) and 0 < step < 1e8):
            raise EdgeSSLError("the page did not say how fine its clock is")
        if event["k"] == "acc":
            named = chain(event["rows"]["predicted"], *event["rows"]["top5"])
            if any(place >= classes for place in named):
                raise EdgeSSLError(f"the page answered with a class beyond the {classes} there are")


def explained(told: Mapping[str, Any], where: str) -> EdgeSSLError:
    """Return the error that a page's event of kind ``error`` stands for.

    Args:
        told: The event.
        where: How messages call the browser.
    """
    kind, text = text_of(told.get("type"), 60) or "Error", text_of(told.get("msg"))
    message = f"{where} failed: {kind}: {text or 'it did not say why'}"
    if kind == "NoWebAssembly":
        return EdgeSSLError(f"{where} has no WebAssembly", hint="use another browser")
    if kind == "MemoryError":
        return OutOfMemory(message, hint="close other tabs, or use a smaller model")
    known = {"InputMismatch": FileInvalid, "PackInvalid": DataInvalid}
    return known.get(kind, EdgeSSLError)(message)


def _battery(told: object) -> dict[str, str]:
    if not isinstance(told, dict) or not isinstance(level := told.get("level"), int | float):
        return {}
    # a desktop without one says that it is full and charging
    if not 0 <= level <= 1 or (level == 1 and told.get("charging") is True):
        return {}
    state = "charging" if told.get("charging") is True else "discharging"
    return {"battery": f"{state}, {level:.0%}"}


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

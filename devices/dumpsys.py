"""What Android's services print for ``dumpsys``: read by its first match, never trusted.

Shapes as phones of several makers printed them; a newer version may add lines, and its battery
service appends a log that repeats the keys.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

THERMAL_WORDS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
SENSOR_KINDS = {0: "CPU", 1: "GPU", 2: "battery", 3: "skin"}
NO_TEMPERATURE = (-1, 6, 7, 8)  # unknown, and the limits of battery voltage, current and level
BATTERY_WORDS = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
PLUGS = ("AC", "USB", "Wireless", "Dock")


@dataclass(frozen=True, slots=True)
class Battery:
    """``dumpsys battery``; None for what it does not say.

    Attributes:
        plugs: Supplies that are connected, empty on battery.
        status: As in ``discharging``; empty if unknown.
        level: Per cent.
        celsius: Of the battery.
    """

    plugs: tuple[str, ...] = ()
    status: str = ""
    level: float | None = None
    celsius: float | None = None

    @property
    def words(self) -> str:
        """As in ``83 %, discharging, 27.4 C``; empty when nothing is known."""
        parts = [f"{self.level:.0f} %"] if self.level is not None else []
        parts += [self.status] if self.status else []
        parts += [f"plugged in ({', '.join(self.plugs)})"] if self.plugs else []
        parts += [f"{self.celsius:.1f} C"] if self.celsius is not None else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Thermal:
    """``dumpsys thermalservice``.

    Attributes:
        status: 0 (none) to 6 (shutdown); None where the service is not there.
        celsius: By sensor, as ``skin`` or ``CPU CPU0``; empty where the hardware does not tell.
    """

    status: int | None = None
    celsius: dict[str, float] | None = None

    @property
    def words(self) -> str:
        """As in ``1 (light)``; empty when nothing is known."""
        if self.status is None:
            return ""
        known = self.status < len(THERMAL_WORDS)
        return f"{self.status} ({THERMAL_WORDS[self.status] if known else 'unknown'})"

    @property
    def hottest(self) -> tuple[str, float] | None:
        """The hottest sensor and its degrees Celsius."""
        if not self.celsius:
            return None
        return max(self.celsius.items(), key=lambda item: item[1])


def battery(text: str) -> Battery:
    """Read ``dumpsys battery``."""
    level, scale, tenths = (_number(text, name) for name in ("level", "scale", "temperature"))
    if level is not None and scale:
        level = 100 * level / scale
    return Battery(
        tuple(plug.lower() if plug == "Wireless" else plug for plug in PLUGS
              if _first(text, f"{plug} powered") == "true"),
        BATTERY_WORDS.get(int(_number(text, "status") or 0), ""),
        level if level is not None and 0 <= level <= 100 else None,
        tenths / 10 if tenths is not None and -400 < tenths < 1500 else None,
    )  # fmt: skip


def thermal(text: str) -> Thermal:
    """Read ``dumpsys thermalservice``: what the hardware says now, not what was cached."""
    status = _number(text, "Thermal Status")
    found = {}
    _, _, current = text.partition("Current temperatures from HAL:")
    # the block ends where the next one begins: a line that does not hold a temperature
    for line in current.splitlines()[1:]:
        match = re.search(
            r"\bTemperature\{mValue=([^,}]+), mType=(-?\d+), mName=([^,}]*), mStatus=-?\d+\}", line
        )
        if match is None:
            break
        number, name, value = int(match[2]), match[3].strip()[:40], _float(match[1])
        kind = SENSOR_KINDS.get(number, "")
        # exactly 0 is a sensor that is not fitted
        if number not in NO_TEMPERATURE and value and -40 < value < 150:
            found[name if kind.lower() in name.lower() else f"{kind} {name}"] = value
    return Thermal(int(status) if status is not None and 0 <= status <= 9 else None, found)


def awake(text: str) -> bool | None:
    """Whether ``dumpsys power`` says that the screen is on; None if it does not say."""
    found = re.search(r"^\s*mWakefulness=(\w+)", text, re.MULTILINE)
    return None if found is None else found[1] == "Awake"


def properties(text: str) -> dict[str, str]:
    """Read ``getprop``: lines ``[name]: [value]``; a value may go over several lines."""
    pairs = re.findall(r"^\[([\w.:-]+)\]: \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    return dict(reversed(pairs))


def _first(text: str, name: str) -> str:
    found = re.search(rf"^[ \t]*{re.escape(name)}:[ \t]*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _number(text: str, name: str) -> float | None:
    return _float(_first(text, name))


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

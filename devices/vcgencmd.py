"""What ``vcgencmd`` of a Raspberry Pi prints, understood; every parser says None for the rest.

The program ends with status 0 for many errors (``error=1 error_msg="Command not registered"``,
``bad argument``), so only the form that is expected counts. Forms: firmware of 2012 to 2026.
"""

from __future__ import annotations

import math
import re

# get_throttled: bit -> what it says; bit + 16 says the same "since boot"
BITS = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_BOOT = 16
RAILS = 12  # of a Raspberry Pi 5 with both a voltage and a current
CORE = "VDD_CORE"


def throttled(text: str) -> int | None:
    """Return the bits of ``throttled=0x50005``."""
    found = re.search(r"\bthrottled=0x([0-9a-fA-F]{1,8})\b", text)
    return int(found[1], 16) if found else None


def celsius(text: str) -> float | None:
    """Return the temperature of ``temp=55.8'C``."""
    found = re.search(r"\btemp=(-?\d{1,3}(?:\.\d{1,6})?)'C", text)
    return float(found[1]) if found else None


def megahertz(text: str) -> int | None:
    """Return the clock of ``frequency(48)=1500345728``; the number in brackets varies."""
    found = re.search(r"\bfrequency\(\d+\)=(\d{1,12})\b", text)
    return round(int(found[1]) / 1e6) if found else None


def rails(text: str) -> dict[str, tuple[float, float]]:
    """Return volts and amperes by rail of ``pmic_read_adc``, rails with both only.

    Voltage and current of a rail stand in lines of their own, with numbers that are not the same;
    only the name joins them. ``EXT5V`` and ``BATT`` have no current, and so no power.
    """
    read: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    form = r"^[ \t]*(\w{1,40})_([AV]) (?:current|volt)\(\d+\)=(-?[0-9.]{1,20})([AV])[ \t\r]*$"
    for name, kind, number, unit in re.findall(form, text, re.MULTILINE):
        try:
            value = float(number)
        except ValueError:
            continue
        if kind == unit and math.isfinite(value):
            read[kind][name] = value
    return {
        name: (volts, read["A"][name]) for name, volts in read["V"].items() if name in read["A"]
    }


def rail_watts(text: str) -> float | None:
    """Return the sum over all rails; None unless the reading is whole."""
    pairs = rails(text)
    if len(pairs) < RAILS or CORE not in pairs:
        return None
    return sum(volts * amperes for volts, amperes in pairs.values())


def during(before: int, after: int, seen: list[int]) -> tuple[list[str], list[str]]:
    """Return what happened while samples were taken, and what cannot be told.

    The bits since boot stay set, so only one that is newly set proves something; where it was set
    before, the bits of the moment, looked at now and then, may still prove it.

    Args:
        before: Bits when the timed part began.
        after: Bits when it had ended.
        seen: Bits at moments in between.
    """
    happened, unknown = [], []
    for bit, name in BITS.items():
        sticky = 1 << (bit + SINCE_BOOT)
        newly = after & sticky and not before & sticky
        if newly or any(bits >> bit & 1 for bits in (before, after, *seen)):
            happened.append(name)
        elif before & sticky:
            unknown.append(name)
    return happened, unknown

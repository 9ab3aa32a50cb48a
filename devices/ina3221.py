"""Power rails of a Jetson: the INA3221 (and, on Thor, INA238) sensors through their drivers.

Two drivers exist: hwmon (JetPack 5 and later: millivolts and milliamperes by channel) and iio
(JetPack 4: milliwatts). Both name a channel after its rail. A channel that is switched off answers
with an error, and is then missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgessl.devices import probed
from edgessl.devices.base import Probe

HWMON = "/sys/class/hwmon/hwmon*/"
IIO = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/"
# channels 4 to 6 are shunt voltages and 7 is their sum: no rails
PROBES = (
    Probe("rail_label", file=HWMON + "in[1-3]_label"),
    Probe("rail_mv", file=HWMON + "in[1-3]_input"),
    Probe("rail_ma", file=HWMON + "curr[1-3]_input"),
    Probe("chip", file=HWMON + "name"),
    Probe("rail_uw", file=HWMON + "power1_input"),
    Probe("old_label", file=IIO + "rail_name_[0-2]"),
    Probe("old_mw", file=IIO + "in_power[0-2]_input"),
)
# What the whole module draws, by the rails that a board has; the first that fits counts. The
# AGX boards have no input rail: theirs are summed, without those that another one feeds.
TOTALS = (
    ("POM_5V_IN",),  # Nano, TX1
    ("VDD_IN",),  # TX2, Xavier NX, Orin Nano, Orin NX
    ("VIN",),  # Thor
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; VDDQ_VDD2_1V8AO hangs on VIN_SYS_5V0
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
UNUSED = "NC"
LARGEST_W = 500.0  # the largest Jetson draws 130 W; more is no reading


def rails_mw(texts: Mapping[str, str]) -> dict[str, float]:
    """Return milliwatts by rail from one reading of :data:`PROBES`.

    Currents may be a little below zero where a rail draws nothing; they are kept as they are.
    """
    found: dict[str, float] = {}
    volts, amperes = (probed.numbers(texts.get(name, "")) for name in ("rail_mv", "rail_ma"))
    for path, label in probed.files(texts.get("rail_label", "")).items():
        folder, channel = probed.folder(path), path.rsplit("/in", 1)[-1].partition("_")[0]
        mv, ma = (
            volts.get(f"{folder}/in{channel}_input"),
            amperes.get(f"{folder}/curr{channel}_input"),
        )
        if mv is not None and ma is not None and _is_rail(label):
            found[label] = mv * ma / 1000
    for path, chip in probed.files(texts.get("chip", "")).items():
        # on Thor's carrier board, at its input; the driver gives no label, and microwatts
        uw = probed.numbers(texts.get("rail_uw", "")).get(f"{probed.folder(path)}/power1_input")
        if chip == "ina238" and uw is not None:
            found["VIN"] = uw / 1000
    old = probed.numbers(texts.get("old_mw", ""))
    for path, label in probed.files(texts.get("old_label", "")).items():
        mw = old.get(f"{probed.folder(path)}/in_power{path[-1:]}_input")
        if mw is not None and _is_rail(label):
            found[label] = mw
    return found


def total(rails: Mapping[str, float]) -> tuple[float, tuple[str, ...]] | None:
    """Return the watts of the whole module and the rails that they were read from.

    Args:
        rails: Milliwatts by rail, of sensors or of tegrastats.
    """
    for names in TOTALS:
        if all(name in rails for name in names):
            watts = sum(rails[name] for name in names) / 1000
            return (watts, names) if 0 < watts < LARGEST_W else None
    return None


def total_watts(texts: Mapping[str, str]) -> float | None:
    """Return the watts of the whole module from one reading; None where no rule fits."""
    found = total(rails_mw(texts))
    return None if found is None else found[0]


def _is_rail(label: str) -> bool:
    return bool(re.fullmatch(r"\w{1,40}", label)) and label != UNUSED

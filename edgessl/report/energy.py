"""Energy as it is shown: never without what the sensor sees, an estimate never among meters."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgessl.report.board_records import Energy, Estimate
from edgessl.report.formats import MISSING, NBSP, count, joules, shortened, significant

SEES = {
    "wall": "all behind the wall plug, losses of the power supply included",
    "usb": "all that the board draws at its supply plug",
    "battery": "all that the device draws from its battery, its screen included",
    "module": "the compute module, without the carrier board and what is plugged into it",
    "soc": "the rails of the processor, without USB devices, fan and converter losses",
    "estimate": "nothing: it is computed, not measured",
}
LONGEST = 300  # characters of a note


@dataclass(frozen=True, slots=True)
class EnergyView:
    """The energy of one inference, written out; without ``net`` the sentence says why."""

    sentence: str
    net: str = ""
    gross: str = ""
    per_correct: str = MISSING
    per_hour: str = MISSING
    rate: str = ""
    battery: str = MISSING
    scope: str = ""
    sees: str = ""
    rows: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    estimate: list[tuple[str, str]] = field(default_factory=list)
    estimate_source: str = ""


def energy_view(energy: Energy | None) -> EnergyView | None:
    """Write out the energy of a bench; None where it was not asked for."""
    if energy is None:
        return None
    notes = [shortened(note, LONGEST) for note in energy.notes]
    scope = energy.scope
    if scope is None or energy.net_j is None or scope == "estimate":
        why = "; ".join(notes) or "not measurable here: the record does not say why"
        return EnergyView(sentence=f"{why[0].upper()}{why[1:]}.", notes=[])
    net = joules(energy.net_j, energy.net_low, energy.net_high)
    gross, sees = joules(energy.gross_j), SEES.get(scope, f"scope {shortened(scope, 40)}")
    rate = f"at {energy.fps:g} images a second" if energy.fps else "one after the other"
    hour = MISSING
    if energy.wh_per_hour is not None:
        hour = f"{significant(energy.wh_per_hour)}{NBSP}Wh"
    battery = MISSING
    if energy.hours_on_battery is not None and energy.battery_wh is not None:
        lasts = f"{significant(energy.hours_on_battery)}{NBSP}h"
        battery = f"{lasts} on {energy.battery_wh:g}{NBSP}Wh"
    rows = [
        ("Net, above idle", f"{net} per inference"),
        ("Gross, idle included", f"{gross} per inference"),
        ("Per correct answer, gross", joules(energy.j_per_correct)),
        ("Power", f"{_watts(energy.busy_w)} running, {_watts(energy.idle_w)} idle"),
        ("Per hour", MISSING if hour == MISSING else f"{hour}, {rate}"),
        ("On a battery", battery),
        ("The sensor sees", sees),
        ("Sensor", _sensor(energy)),
    ]
    return EnergyView(
        sentence=f"{net} net per inference, {gross} gross. The sensor sees {sees}.",
        net=net,
        gross=gross,
        per_correct=joules(energy.j_per_correct),
        per_hour=hour,
        rate=rate,
        battery=battery,
        scope=scope,
        sees=sees,
        rows=[(name, text) for name, text in rows if text not in ("", MISSING)],
        notes=notes,
        estimate=_estimated(energy.estimate),
        estimate_source=shortened(energy.estimate.source, LONGEST) if energy.estimate else "",
    )


def _sensor(energy: Energy) -> str:
    source = shortened(energy.source or "", LONGEST)
    readings = f"{count(energy.n_readings)} readings" if energy.n_readings is not None else ""
    often = f"{significant(energy.hz)} a second" if energy.hz is not None else ""
    return "; ".join(text for text in (source, readings, often) if text)


def _estimated(estimate: Estimate | None) -> list[tuple[str, str]]:
    if estimate is None or estimate.gross_j is None:
        return []
    return [
        ("Net, estimated", f"{joules(estimate.net_j)} per inference"),
        ("Gross, estimated", f"{joules(estimate.gross_j)} per inference"),
        ("Power, estimated", f"{_watts(estimate.busy_w)} running, {_watts(estimate.idle_w)} idle"),
    ]


def _watts(value: float | None) -> str:
    return MISSING if value is None else f"{significant(value)}{NBSP}W"

"""A bench in words: the latency with its verdict, the energy with its scope."""

from __future__ import annotations

from typing import Any

from edgessl.core.measurement import BenchResult


def figure(result: BenchResult) -> str:
    """Say the latency with its verdict; a wrong file has no latency to say."""
    infer = result.latency_ms.get("infer")
    verdict = "; ".join(result.reasons) or ", ".join(result.verdicts)
    if infer is None or infer.p50 is None:
        return f"no figure  [{verdict}]"
    p90 = f", p90 {infer.p90:.3f}" if infer.p90 is not None else ""
    return f"infer p50 {infer.p50:.3f} ms{p90} (n {infer.n})  [{verdict}]"


def energy_line(energy: dict[str, Any]) -> str:
    """Say the energy of an inference, or why there is none."""
    notes = "; ".join(energy.get("notes", ()))
    if energy.get("scope") is None or energy.get("net_j") is None:
        return f"energy: {notes or 'not measurable here'}"
    hours = energy.get("hours_on_battery")
    lasts = f", {hours:.1f} h on {energy['battery_wh']:g} Wh" if hours is not None else ""
    return (
        f"energy ({energy['scope']}, {energy['source']}): net {1000 * energy['net_j']:.2f} mJ per "
        f"inference [{1000 * energy['net_low']:.2f}, {1000 * energy['net_high']:.2f}], gross "
        f"{1000 * energy['gross_j']:.2f} mJ{lasts}" + (f"; {notes}" if notes else "")
    )

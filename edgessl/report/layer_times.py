"""Where the time of a file goes, by PyTorch module: the slowest in sight, the others folded."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from edgessl.report.board_records import LayerProfile, LayerTime
from edgessl.report.formats import percent, plural, shortened, significant
from edgessl.report.plot_cells import bar_cell

SHOWN = 8  # modules in sight
MOST = 400  # modules in all
LONGEST = 80  # characters of a name
UNITS = {"us": "µs", "ms": "ms"}


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """One module and the operations that came from it, written out."""

    module: str
    known: bool
    operations: str
    time: str
    share: str
    bar: Markup


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """The modules of one file, the slowest first; without them ``note`` says why."""

    note: str
    unit: str = ""
    about: str = ""
    worst: str = ""
    shown: list[ModuleTime] = field(default_factory=list)
    others: list[ModuleTime] = field(default_factory=list)


def layer_times(profile: LayerProfile | None) -> LayerTimes | None:
    """Write out a per-layer profile; None where none was asked for."""
    if profile is None:
        return None
    note = shortened(profile.note, 300)
    total = sum(row.p50 for row in profile.rows)
    if not total:
        return LayerTimes(note or "no layer of this file was timed")
    unit = UNITS.get(profile.unit, shortened(profile.unit, 12))
    by_module: dict[str, list[LayerTime]] = {}
    for row in profile.rows:
        by_module.setdefault(row.module or "", []).append(row)
    # what has no module is not one thing: each operation stands for itself
    groups = [(name, rows) for name, rows in by_module.items() if name]
    groups += [("", [row]) for row in by_module.get("", [])]
    groups.sort(key=lambda group: -sum(row.p50 for row in group[1]))
    slowest = sum(row.p50 for row in groups[0][1])
    written = [_module(name, rows, total, slowest) for name, rows in groups[:MOST]]
    first = written[: min(3, len(written))]
    about = (
        f"Medians of {plural(profile.runs, 'run')} under the runtime's own profiler, in a pass of "
        f"its own: {significant(total)} {unit} in all. A profiler slows down what it watches; the "
        "shares count, not the sum."
    )
    if len(groups) > MOST:
        about += f" The {len(groups) - MOST:,} fastest are not shown."
    return LayerTimes(
        note=note,
        unit=unit,
        about=about,
        worst=", ".join(f"{m.module} ({m.share})" for m in first),
        shown=written[:SHOWN],
        others=written[SHOWN:],
    )


def _module(name: str, rows: list[LayerTime], total: float, slowest: float) -> ModuleTime:
    own = sum(row.p50 for row in rows)
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row.op or "not named"] = kinds.get(row.op or "not named", 0) + 1
    named = (f"{number} x {kind}" if number > 1 else kind for kind, number in kinds.items())
    return ModuleTime(
        module=shortened(name or rows[0].name or "not named", LONGEST),
        known=bool(name),
        operations=shortened(", ".join(named), LONGEST),
        time=significant(own),
        share=percent(own / total),
        bar=bar_cell(own / slowest),
    )

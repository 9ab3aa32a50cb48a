"""A grid of untrained nets as it is shown: what a shape costs on a device, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgessl.report.board_facts import Pairs, board_facts, device_name
from edgessl.report.board_records import Grid, GridRow
from edgessl.report.energy import energy_view
from edgessl.report.formats import MISSING, NBSP, milliseconds, plural, shortened, significant, size
from edgessl.report.found import FoundBench
from edgessl.report.latency import SYMBOLS, Sort, times_of
from edgessl.report.layer_times import layer_times
from edgessl.report.plots import Mark, letter, scatter
from edgessl.report.read import Run
from edgessl.report.svg import SHAPES
from edgessl.report.variants import NAMES

MOST = 400  # rows that are shown
SAME_SHAPE = "the times are those of trained nets of the same shape, "
WORTHLESS = "The weights are random: {}the answers are worth nothing, and the accuracy is unknown."
# what stands beside times that are not those of a board
NOTES: dict[Sort, str] = {
    "emulated": "On a stand-in (emulated): these times say nothing about a board.",
    "browser": "In a browser: its runtime is another one than a program on the device has, and "
    "its clock is coarse.",
    "estimated": "Estimated: nothing was timed.",
}


@dataclass(frozen=True, slots=True)
class GridLine:
    """One configuration, written out; no figures where its answers were wrong."""

    row: GridRow
    name: str
    file: str
    point: str
    p50: str
    interval: str
    p90: str
    whole: str
    macs: str
    parameters: str
    size: str
    memory: str
    why: list[str]

    @property
    def withheld(self) -> bool:
        """Whether the device did not give the net's answers."""
        return self.row.verdict == "WRONG_ANSWERS"

    @property
    def symbol(self) -> str:
        """The mark before the verdict."""
        return SYMBOLS.get(self.row.verdict, "!")


@dataclass(frozen=True, slots=True)
class GridView:
    """The nets in the order of the grid, and the plot of time against work."""

    device: str
    sort: Sort
    lines: list[GridLine]
    lead: str
    how: str
    picture: Markup | None
    note: str
    board: Pairs
    ends: list[GridLine]  # the fastest and the slowest; none where no time is that of a device
    folders: frozenset[str]

    @property
    def worth(self) -> str:
        """What times and answers of random weights are worth."""
        return WORTHLESS.format("" if self.sort == "emulated" else SAME_SHAPE)

    @property
    def valid(self) -> int:
        """How many figures may be quoted."""
        return sum(line.row.verdict == "VALID" for line in self.lines)


def grid_view(run: Run) -> GridView | None:
    """Write out the grid of a run; None where there is none."""
    if run.grid is None:
        return None
    rows = _own(run.grid, run)[:MOST]
    if not rows:
        return None
    found = {f"{bench.folder}/result.json": bench for bench in run.benches}
    benches = [found[row.result] for row in rows if row.result in found]
    sort = _sort_of(rows, benches)
    picture, points, shapes = _picture(rows, sort)
    first = benches[0].result.device if benches else {}
    device = device_name(first, shortened(run.grid.device, 60))
    files = list(dict.fromkeys(_file(row) for row in rows))
    one = len(files) == 1
    lines = [_line(row, found.get(row.result), points, "" if one else _file(row)) for row in rows]
    ends = _ends(lines) if sort in ("native", "browser") else []
    return GridView(
        device=device,
        sort=sort,
        lines=lines,
        lead=_lead(device, sort, lines, ends),
        how=f"{files[0]}; " if one else "",
        picture=picture,
        note=shapes,
        board=board_facts(first),
        ends=ends,
        folders=frozenset(bench.folder for bench in benches),
    )


def only_grid(run: Run, view: GridView | None) -> bool:
    """Whether a run holds nothing but a grid, so that sections on training have no place."""
    trained = [a for a in run.artifacts if not a.untrained]
    benches = [bench for bench in run.benches if not bench.untrained]
    return view is not None and not (run.rows or trained or benches or run.pretrainings)


def unmeasured_by_grid(view: GridView) -> list[str]:
    """Return what a grid leaves open."""
    found = [
        "Accuracy: nothing was trained. A narrower net on smaller images is faster and usually "
        "less accurate; by how much, only training tells.",
    ]
    if view.sort != "native":
        found.append("Latency on a board: the grid was not timed on one.")
    if view.valid < len(view.lines):
        found.append(
            f"A quotable latency of {len(view.lines) - view.valid} of "
            f"{plural(len(view.lines), 'net')}: the verdict is not VALID."
        )
    return found


def _own(grid: Grid, run: Run) -> list[GridRow]:
    """Return the rows of the grid's own device; figures of several are not comparable."""
    own = [row for row in grid.rows if row.result.split("/")[1:2] in ([], [grid.device])]
    if len(own) < len(grid.rows):
        left = plural(len(grid.rows) - len(own), "row")
        run.notes.add(f"grid.json: {left} of another device left out")
    return own


def _sort_of(rows: Sequence[GridRow], benches: Sequence[FoundBench]) -> Sort:
    kinds = {times_of(bench) for bench in benches}
    if any(row.verdict == "EMULATED" for row in rows):
        kinds.add("emulated")
    order: tuple[Sort, ...] = ("emulated", "estimated", "browser", "native")
    return next(kind for kind in order if kind in kinds or kind == "native")


def _name(row: GridRow) -> str:
    return f"{shortened(row.encoder, 60)} {row.width:g}x, {row.imgsz}{NBSP}px"


def _file(row: GridRow) -> str:
    target = NAMES.get(row.target, shortened(row.target, 40))
    precision = "" if row.quantize in ("", "none") else f" {shortened(row.quantize, 20)}"
    threads = plural(row.threads, "thread") if row.threads else ""
    words = (f"{target}{precision}", shortened(row.runtime, 60), threads)
    return ", ".join(word for word in words if word)


def _line(
    row: GridRow, bench: FoundBench | None, points: Mapping[GridRow, str], file: str
) -> GridLine:
    shown = row.verdict != "WRONG_ANSWERS"
    low, high = row.ci_low, row.ci_high
    known = shown and row.p50 is not None and low is not None and high is not None
    why = _why(bench) if bench else []
    return GridLine(
        row=row,
        name=_name(row),
        file=file,
        point=points.get(row, ""),
        p50=milliseconds(row.p50) if shown else "",
        interval=f"[{milliseconds(low)}, {milliseconds(high)}]" if known else "",
        p90=milliseconds(row.p90) if shown else "",
        whole=milliseconds(row.e2e_p50) if shown else "",
        macs=MISSING if row.macs is None else significant(row.macs / 1e6),
        parameters=MISSING if row.parameters is None else significant(row.parameters / 1e6),
        size=MISSING if row.bytes is None else size(row.bytes),
        memory=MISSING if row.max_rss_mb is None else significant(row.max_rss_mb),
        why=[shortened(text, 300) for text in why[:20]],
    )


def _why(bench: FoundBench) -> list[str]:
    """Return what stands beside a figure: reasons, conditions, energy and slowest layers."""
    found = [*bench.result.reasons, *bench.result.conditions]
    if bench.result.verdict == "WRONG_ANSWERS":
        return found
    if energy := energy_view(bench.energy):
        found.append(f"energy: {energy.sentence}")
    if layers := layer_times(bench.layers):
        found.append(f"slowest layers: {layers.worst or layers.note}")
    return found


def _picture(rows: Sequence[GridRow], sort: Sort) -> tuple[Markup | None, dict[GridRow, str], str]:
    """Draw p50 against MACs; returns the plot, the letter of each row and what the shapes say."""
    drawn = [r for r in rows if r.p50 and r.macs and r.verdict != "WRONG_ANSWERS"]
    if len(drawn) < 2:
        return None, {}, ""
    encoders = list(dict.fromkeys(row.encoder for row in drawn))
    shapes = list(SHAPES)
    marks = [
        Mark(
            label=f"{_name(row)} ({row.verdict})",
            x=(row.macs or 0) / 1e6,
            y=row.p50 or 0.0,
            y_low=row.ci_low,
            y_high=row.ci_high,
            solid=row.verdict == "VALID" and sort == "native",
            shape=shapes[encoders.index(row.encoder) % len(shapes)],
        )
        for row in drawn
    ]
    picture, _ = scatter(
        "Median inference against work", marks, "million multiply-accumulates (MACs)",
        "p50, ms", from_zero=True, letters=True,
    )  # fmt: skip
    words = [f"{_shape(i)} {shortened(name, 60)}" for i, name in enumerate(encoders)]
    note = f"Shapes: {', '.join(words)}." if len(encoders) > 1 else ""
    return picture, {row: letter(index) for index, row in enumerate(drawn)}, note


def _shape(index: int) -> str:
    names = {"round": "disc", "plus": "cross"}
    shape = list(SHAPES)[index % len(SHAPES)]
    return names.get(shape, shape)


def _ends(lines: Sequence[GridLine]) -> list[GridLine]:
    """Return the fastest and the slowest, of the VALID ones where there are several."""
    timed = [line for line in lines if line.row.p50 is not None and not line.withheld]
    valid = [line for line in timed if line.row.verdict == "VALID"]
    timed = valid if len(valid) > 1 else timed
    timed.sort(key=lambda line: line.row.p50 or 0.0)
    return [timed[0], timed[-1]] if timed else []


def _lead(device: str, sort: Sort, lines: Sequence[GridLine], ends: Sequence[GridLine]) -> str:
    parts = [f"{plural(len(lines), 'net')} with random weights timed on {device}."]
    if ends:
        low, high = (line.p50 for line in ends)
        valid = sum(line.row.verdict == "VALID" for line in lines)
        doubt = "" if valid == len(lines) else f"; {valid} of {len(lines)} figures are VALID"
        reach = low if low == high else f"{low} to {high}"
        parts.append(f"The median inference takes {reach}{NBSP}ms{doubt}.")
    return " ".join([*parts, NOTES.get(sort, "")]).strip()

"""Readings of an external power meter, from the CSV file that it or its program writes."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import IO, Literal

from edgessl.core.errors import FileInvalid
from edgessl.devices.plain import shown
from edgessl.devices.power import Trace

Scope = Literal["wall", "usb", "module", "soc", "battery"]

LARGEST_BYTES = 512 << 20
LARGEST_ROWS = 5_000_000
PREAMBLE_LINES = 60  # what a meter writes about itself before its columns
LONGEST_LINE = 4096
# more than any board draws; a socket may also feed what runs one
LARGEST_W = {"wall": 10_000.0, "usb": 300.0, "module": 300.0, "soc": 300.0, "battery": 300.0}
UNREADABLE = 0.05  # more of the rows than this, and it is not the file that it seems to be
DAY_S = 86_400.0
LONGEST_S = 7 * DAY_S
CLOCK = re.compile(r"(\d{1,3}):(\d{2}):(\d{2}(?:[.,]\d{1,9})?)")
DISORDER_S = 1.0  # meters send packets out of order; a jump back is another log
FORMATS = "times: seconds, epoch seconds or milliseconds, ISO 8601, or hours:minutes:seconds"
HINT = (
    "columns that are understood: time and watts, or time, volts and amperes, e.g. "
    "'time_s,watts'; " + FORMATS + " (docs/energy.md)"
)
# by quantity: words that name a column, and what its unit is worth in s, W, V and A
NAMES = {
    "time": ("time", "timestamp", "times", "t", "elapsed", "elapsedtime", "datetime", "seconds",
             "epoch", "relativetime", "sampletime"),
    "watts": ("power", "watts", "watt", "w", "p", "activepower", "mainpower", "realpower"),
    "volts": ("voltage", "volts", "volt", "v", "u", "vbus", "busvoltage", "mainvoltage"),
    "amperes": ("current", "amperes", "ampere", "amps", "amp", "a", "i", "ibus", "maincurrent"),
}  # fmt: skip
UNITS = {
    "time": {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9},
    "watts": {"w": 1.0, "mw": 1e-3, "kw": 1e3, "uw": 1e-6, "µw": 1e-6},
    "volts": {"v": 1.0, "mv": 1e-3},
    "amperes": {"a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6},
}


@dataclass(frozen=True, slots=True)
class PowerLog:
    """What an external meter saw.

    Attributes:
        trace: Seconds of the meter's own clock, from its first reading, and watts.
        scope: What the meter sees, as the user says.
        source: Name of the file and of the columns.
        notes: Rows that could not be read, readings that came out of order.
    """

    trace: Trace
    scope: Scope
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """Where a quantity stands, and what one of its unit is worth; None where none is named."""

    index: int
    title: str
    factor: float | None


def read_power_csv(path: Path, scope: Scope = "wall") -> PowerLog:
    """Read the log of a power meter.

    Args:
        path: CSV, also with semicolons, tabs or blanks, and decimal commas beside semicolons.
        scope: What the meter sees.

    Raises:
        FileInvalid: No such file, too large, no columns that are understood, or readings that
            cannot be power over time.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileInvalid(f"cannot read {path}: {error.strerror}", hint=HINT) from error
    if size > LARGEST_BYTES:
        raise FileInvalid(
            f"{path} has {size >> 20} MiB, more than the {LARGEST_BYTES >> 20} MiB that are read",
            hint="cut the log to the minutes of the bench",
        )
    with path.open(encoding=_encoding(path), errors="replace", newline="") as stream:
        columns, separator, number = _header(stream, path)
        times, watts, bad, rows = _body(stream, columns, separator, path, number)
    return _checked(path, scope, columns, (times, watts), (bad, rows))


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        return "utf-16" if stream.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _lines(stream: IO[str]) -> Iterator[str]:
    while line := stream.readline(LONGEST_LINE):
        yield line.strip()


def _header(stream: IO[str], path: Path) -> tuple[dict[str, Column], str, int]:
    seen = ""
    for number, line in enumerate(_lines(stream), 1):
        if number > PREAMBLE_LINES:
            break
        for separator in ("\t", ";", ",", " "):
            columns = _columns(_cells(line.lstrip("# "), separator))
            if columns:
                return columns, separator, number
        seen = seen or line
    raise FileInvalid(f"{path} has no columns of time and power: '{shown(seen)}'", hint=HINT)


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    if '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _columns(cells: Sequence[str]) -> dict[str, Column] | None:
    found: dict[str, Column] = {}
    for index, cell in enumerate(cells):
        for quantity, names in NAMES.items():
            name, unit = _title(cell, UNITS[quantity])
            if quantity not in found and name in names:
                found[quantity] = Column(index, shown(cell, 40), UNITS[quantity].get(unit))
                break
    enough = "time" in found and ("watts" in found or {"volts", "amperes"} <= set(found))
    return found if enough else None


def _title(cell: str, units: dict[str, float]) -> tuple[str, str]:
    """Split ``Power (mW)``, ``power_mw``, ``Power/mW`` or ``power [mW]`` into name and unit."""
    words = [word for word in re.split(r"[^0-9a-zµ]+", cell.lower()) if word]
    if len(words) > 1 and words[-1] in units:
        return "".join(words[:-1]), words[-1]
    return "".join(words), ""


def _body(
    stream: IO[str], columns: dict[str, Column], separator: str, path: Path, header: int
) -> tuple[list[float], list[float], int, int]:
    times: list[float] = []
    watts: list[float] = []
    bad = rows = 0
    decimal_comma = separator in (";", "\t")
    for number, line in enumerate(_lines(stream), header + 1):
        if not line or line.startswith("#"):
            continue
        rows += 1
        if rows > LARGEST_ROWS:
            raise FileInvalid(
                f"{path} has more than {LARGEST_ROWS:,} readings",
                hint="cut the log to the minutes of the bench, or let the meter log less often",
            )
        cells = _cells(line, separator)
        try:
            moment = _seconds(cells[columns["time"].index], columns["time"].factor, decimal_comma)
            power = _watts(cells, columns, decimal_comma)
        except (ValueError, IndexError, OverflowError):
            bad += 1
            continue
        if not (math.isfinite(moment) and math.isfinite(power)):
            bad += 1
            continue
        if times and CLOCK.fullmatch(cells[columns["time"].index].strip().strip('"')):
            while moment < times[-1] - DAY_S / 2:
                moment += DAY_S  # the clock passed midnight, and the log has no date
        if times and moment < times[-1] - DISORDER_S:
            raise FileInvalid(
                f"{path}, line {number}: time runs back by {times[-1] - moment:.0f} s",
                hint="two logs in one file, or the meter's clock was set: cut it to one",
            )
        times.append(moment)
        watts.append(power)
    return times, watts, bad, rows


def _number(cell: str, decimal_comma: bool) -> float:
    text = cell.strip().strip('"')
    return float(text.replace(",", ".") if decimal_comma else text)


def _watts(cells: Sequence[str], columns: dict[str, Column], decimal_comma: bool) -> float:
    def value(quantity: str) -> float:
        column = columns[quantity]
        return _number(cells[column.index], decimal_comma) * (column.factor or 1.0)

    return value("watts") if "watts" in columns else value("volts") * value("amperes")


def _seconds(cell: str, factor: float | None, decimal_comma: bool) -> float:
    text = cell.strip().strip('"')
    if clock := CLOCK.fullmatch(text):
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3].replace(",", "."))
    try:
        value = _number(text, decimal_comma)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if factor is not None:
        return value * factor
    # no unit: epochs of 2001 and later give themselves away by their size
    for least, worth in ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3)):
        if abs(value) >= least:
            return value * worth
    return value


def _checked(
    path: Path,
    scope: Scope,
    columns: dict[str, Column],
    readings: tuple[list[float], list[float]],
    counts: tuple[int, int],
) -> PowerLog:
    times, watts = readings
    bad, rows = counts
    if len(times) < 2 or bad > UNREADABLE * rows:
        raise FileInvalid(f"{path}: {bad} of {rows} rows cannot be read", hint=HINT)
    if max(times) - min(times) > LONGEST_S:
        raise FileInvalid(
            f"{path} spans {(max(times) - min(times)) / DAY_S:.0f} days",
            hint="cut the log to the minutes of the bench; " + FORMATS,
        )
    typical = sorted(watts)[len(watts) // 2]
    if typical < 0:
        raise FileInvalid(
            f"{path}: power is negative ({typical:.2f} W at the median)",
            hint="the meter stands the wrong way round, or shows what is fed back",
        )
    if max(watts) > LARGEST_W[scope]:
        raise FileInvalid(
            f"{path}: power of {max(watts):,.0f} W at scope {scope}, more than the "
            f"{LARGEST_W[scope]:,.0f} W that are believed there; a column that is not in watts "
            "names its unit in its title, as in 'power_mw'",
            hint="name the unit in the header (power_mw, current_ma), or what the meter sees: "
            "--power-scope wall",
        )
    notes = [f"{bad} of {rows} rows of {path.name} cannot be read"] if bad else []
    if any(b < a for a, b in pairwise(times)):
        notes.append(f"readings of {path.name} came out of order and were sorted")
    first = min(times)
    trace = Trace.of([t - first for t in times], watts)
    used = ("watts",) if "watts" in columns else ("volts", "amperes")
    titles = " x ".join(f"'{columns[name].title}'" for name in used)
    return PowerLog(trace, scope, f"{shown(path.name)}, column {titles}", tuple(notes))

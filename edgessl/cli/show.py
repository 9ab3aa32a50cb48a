"""Results as text for people: tables and bars; programs take ``--json``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

ONE_LINE_FROM = 9  # pictures: from here on, one line each
EIGHTHS = " ▏▎▍▌▋▊▉█"
ASCII = "#"


def write(text: str) -> None:
    """Write text to stdout, with escapes for what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> str:
    """Return columns, aligned; ``right`` holds the column numbers that are set right."""
    lines = [[*map(str, line)] for line in (head, *rows)]
    widths = [max(columns(line[i]) for line in lines) for i in range(len(head))]
    shown = []
    for line in lines:
        cells = [
            " " * (w - columns(cell)) + cell if str(i) in right else padded(cell, w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown) + "\n"


def columns(text: str) -> int:
    """Return the columns that a terminal needs for a text; wide characters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """Return a text filled up to a number of columns."""
    return text + " " * (width - columns(text))


def size(n: float) -> str:
    """Return bytes with a unit, for example ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            break
        n, unit = n / 1000, {"B": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{n:.0f} {unit}" if n >= 100 or unit == "B" else f"{n:.1f} {unit}"


def millions(n: float) -> str:
    """Return a number in millions."""
    return f"{n / 1e6:,.1f} M"


def name(text: str) -> str:
    """Return a file name on one line, whatever is in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def bar(share: float, width: int) -> str:
    """Return a horizontal bar of ``width`` characters for a share in [0, 1]."""
    if "utf" not in (sys.stdout.encoding or "").lower():
        return ASCII * round(share * width)
    whole, part = divmod(round(share * width * 8), 8)
    return EIGHTHS[8] * whole + (EIGHTHS[part] if part else "")


def predictions(result: Mapping[str, Any]) -> str:
    """Return the answers: bars for a few pictures, a line each for many."""
    entries = result["images"]
    if "features" in entries[0]:
        head = f"{len(entries)} picture(s), {len(entries[0]['features'])} features each\n"
        if result["csv"]:
            return head
        rows = [(name(e["path"]), f"{e['norm']:.3f}") for e in entries]
        return head + table(("picture", "norm"), rows, right="1")
    if result["csv"] and len(entries) >= ONE_LINE_FROM:
        return _counts(entries)
    if len(entries) >= ONE_LINE_FROM:
        rows = [(name(e["path"]), name(e["predicted"]), _percent(e["score"])) for e in entries]
        return table(("picture", "class", "probability"), rows, right="2") + _counts(entries)
    longest = max(columns(name(best["label"])) for e in entries for best in e["top"])
    room = max(10, min(50, shutil.get_terminal_size().columns - longest - 14))
    blocks = []
    for entry in entries:
        lines = [name(entry["path"])]
        for best in entry["top"]:
            label, score = name(best["label"]), best["score"]
            line = f"  {padded(label, longest)}  {_percent(score)}  {bar(score, room)}"
            lines.append(line.rstrip())
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _counts(entries: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for entry in entries:
        counts[entry["predicted"]] = counts.get(entry["predicted"], 0) + 1
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    told = ", ".join(f"{name(label)} {n}" for label, n in ranked)
    return f"{len(entries)} pictures: {told}\n"


def runs(result: Mapping[str, Any], verbose: bool = False) -> str:
    """Return one line per run; with ``verbose``, every stage by name."""
    if not result["runs"]:
        return "no runs here\n"
    rows = []
    for run in result["runs"]:
        started = run["started"].replace("T", " ").removesuffix("Z")[:16] or "-"
        best, problem = _figure(run["best"]), run["problem"]
        status = f"{run['status']}: {_stages(run, verbose)}" if run["stages"] else run["status"]
        rows.append(
            (name(run["name"]), started, status, name(problem) if problem else best,
             run["verdict"] or "-", size(run["bytes"]))
        )  # fmt: skip
    head = ("run", "started (UTC)", "stages", "best figure", "bench", "size")
    return table(head, rows, right="5")


def _stages(run: Mapping[str, Any], verbose: bool) -> str:
    """Return the stages that ended well, and those that did not by name."""
    if verbose:
        return ", ".join(
            stage if status == "done" else f"{stage} {status}"
            for stage, status in run["stages"].items()
        )
    bad = [f"{stage} {status}" for stage, status in run["stages"].items() if status != "done"]
    done = list(run["stages"].values()).count("done")
    last = next((s for s, status in reversed(run["stages"].items()) if status == "done"), "")
    told = f"{done} done, last {last}" if last else "none done"
    return ", ".join([told, *bad])


def _figure(best: Mapping[str, Any] | None) -> str:
    if best is None:
        return "-"
    low, high = best["ci_low"], best["ci_high"]
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low is not None else ""
    where = " ".join(filter(None, (best["width"], best["variant"], best["target"])))
    return f"{best['metric']} {100 * best['value']:.1f} %{interval} {best['stage']}: {where}"


def doctor(result: Mapping[str, Any]) -> str:
    """Return what works, what is missing, and the command that mends it."""
    s = result["system"]
    memory = f"{(s['memory_mb'] or 0) / 1024:.1f} GiB memory"
    if s["memory_free_mb"] is not None:
        memory += f" ({s['memory_free_mb'] / 1024:.1f} free)"
    gpu = s["gpu"] or s["gpu_note"] or "no GPU that torch can use"
    lines = [
        f"EdgeSSL {result['edgessl']}, Python {s['python']}, {s['platform']}",
        f"{s['cpu'] or s['architecture']}, {s['cores']} cores, {memory}",
        f"disk: {s['disk_free_mb'] / 1024:.1f} GiB free here, "
        f"{s['scratch_free_mb'] / 1024:.1f} GiB in {s['scratch']}",
        f"{gpu}" if s["torch_threads"] else "",
        "",
    ]
    for ability in result["abilities"]:
        what = f"{ability['kind']} {ability['name']}".strip()
        lines.append(f"{'works ' if ability['works'] else 'FAILS '} {what:<16} {ability['detail']}")
        if ability["fix"]:
            lines.append(f"       {'':<16} {ability['fix']}")
    lines.append("")
    rows = []
    for package in result["packages"]:
        state = {True: f"imports in {package['seconds']:.1f} s", False: "does not import"}.get(
            package["imports"], "not installed" if package["version"] is None else "not tried"
        )
        problem = package["problem"]
        rows.append((package["name"], package["version"] or "-", state, problem))
    lines.append(table(("package", "version", "", ""), rows))
    lines += [f"{s['name']}: {s['value']} ({s['note']})" for s in result["settings"]]
    return "\n".join(line for i, line in enumerate(lines) if line or i > 3) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"

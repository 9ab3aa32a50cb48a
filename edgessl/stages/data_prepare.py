"""``edgessl data prepare``: fetch a dataset when asked to, and decode images once for all runs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, UsageProblem
from edgessl.data import SOURCES
from edgessl.data.cache import PIXELS, write_cache
from edgessl.data.sources import open_source


def prepare_data(
    where: str, *, side: int, out: Path | None, download: bool, reporter: Reporter
) -> dict[str, Any]:
    """Fetch a dataset, or write a cache of a source, or both.

    Args:
        where: The source.
        side: Short side that larger images are reduced to, in pixels.
        out: Folder of the cache; None writes none.
        download: Fetch the dataset if it is not on this computer.
        reporter: Shows progress.

    Returns:
        JSON values: where the dataset lies (``dataset``), and of the cache ``folder``,
        ``images``, ``skipped``, ``bytes`` and ``side``; null for what was not made.

    Raises:
        UsageProblem: Nothing was asked for, or the source cannot be downloaded.
        EdgeSSLError: The network or the disk failed; nothing half-made is left.
    """
    if out is None and not download:
        raise UsageProblem(
            "say where the cache goes, or ask for a download",
            hint=f"edgessl data prepare {where} --side {side} --out FOLDER"
            + (", or --download" if _can_be_fetched(where) else ""),
        )
    result: dict[str, Any] = {"dataset": None, "folder": None}
    if download:
        result["dataset"] = _fetch(where, reporter)
    if out is None:
        return result
    source = open_source(where)
    with reporter.bar(f"decoding {source.name}", total=len(source)) as bar:
        made = write_cache(source, side, out, bar.update)
    size = (out / PIXELS).stat().st_size
    reporter.say(
        f"{out}: {len(made)} images with a short side of at most {side} pixels, "
        f"{size / 1e6:,.0f} MB"
    )
    if made.skipped:
        first = made.skipped[0]
        reporter.warn(
            f"{where}: {len(made.skipped)} file(s) skipped, first {first.item!r}: {first.reason}"
        )
    skipped = [{"item": s.item, "reason": s.reason} for s in made.skipped]
    return result | {
        "folder": str(out), "images": len(made), "skipped": skipped, "bytes": size, "side": side,
    }  # fmt: skip


def _fetch(where: str, reporter: Reporter) -> str | None:
    name = _dataset(where)
    if name is None:
        raise UsageProblem(
            f"'{where}' is no dataset that can be downloaded",
            hint="see: edgessl list datasets; leave out --download for your own images",
        )
    with suppress(DataInvalid):
        open_source(name)
        reporter.say(f"{name}: already on this computer")
        return None
    from edgessl.data.torchvision_sets import download

    return str(download(name, reporter.say))


def _dataset(where: str) -> str | None:
    name = where.partition(":")[0]
    return name if name in SOURCES.entries else None


def _can_be_fetched(where: str) -> bool:
    name = _dataset(where)
    return name is not None and bool(SOURCES[name].facts.get("download"))

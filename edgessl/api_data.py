"""The Python API of ``edgessl data``; part of :mod:`edgessl.api`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgessl.api_light import Finding
from edgessl.core.console import Reporter
from edgessl.core.errors import UsageProblem

__all__ = ["data_check", "data_prepare"]


def data_check(
    sources: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    out: Path | None = None,
    group_list: Path | None = None,
    reporter: Reporter | None = None,
) -> Finding:
    """Look at every image: counts, sizes, classes, damaged files, copies and look-alikes.

    Args:
        sources: Sources without a role.
        settings: Dotted recipe values: ``data.labels``, ``data.unlabeled``, ``data.test`` name
            sources with a role; ``data.group_by``, ``data.imgsz``, ``data.folds`` and the
            shares say how they would be used. With no source at all, those of ``edgessl.yaml``.
        out: HTML page; None writes ``data-check.html`` if there is something to show.
        group_list: A ``.csv`` list to write, of the first source, with a column ``group`` that
            holds near-duplicates together under ``data.group_by: column:group``.
        reporter: Speaks to the user.

    Returns:
        ``errors`` holds a DataInvalid for two sources that share an image, and for labels that
        cannot be split.

    Raises:
        UsageProblem: No source, or ``group_list`` cannot be written.
        DataInvalid: A source cannot be opened, or none of its images decoded.
    """
    from edgessl.core.recipe_text import override, read_recipe_values
    from edgessl.stages.data_check import ROLES, check_data
    from edgessl.stages.opening import DEFAULTS_FILE
    from edgessl.stages.recipes import validated

    reporter = reporter or Reporter()
    changes = dict(settings or {})
    values = read_recipe_values(DEFAULTS_FILE) if DEFAULTS_FILE.is_file() else {}
    if sources or any(changes.get(f"data.{role}") for role in ROLES):
        values = override(values, {f"data.{role}": None for role in ROLES})
    elif values:
        reporter.say(f"sources: those of {DEFAULTS_FILE}")
    recipe = validated(values, changes)
    named = [(role, getattr(recipe.data, role)) for role in ROLES]
    pairs = [("images", source) for source in sources]
    pairs = [(role, source) for role, source in named if source is not None] + pairs
    if not pairs:
        raise UsageProblem(
            "no images were named",
            hint="edgessl data check FOLDER, or --labels FOLDER --test FOLDER",
        )
    told = "data.imgsz" in changes or "imgsz" in (values.get("data") or {})
    body, errors = check_data(
        pairs, recipe.data, recipe.seed, imgsz=recipe.data.imgsz if told else None, out=out,
        group_list=group_list, reporter=reporter,
    )  # fmt: skip
    flags = " ".join(f"--{role} {source}" for role, source in pairs if role in ROLES)
    after = f"edgessl pretrain {flags}" if flags else f"edgessl init --unlabeled {pairs[0][1]}"
    if body["page"]:
        after = f"open {body['page']} in a browser; then {after}"
    return Finding("data check", body, after, tuple(errors))


def data_prepare(
    source: str,
    *,
    side: int = 256,
    out: Path | None = None,
    download: bool = False,
    reporter: Reporter | None = None,
) -> Finding:
    """Fetch a dataset when asked to, and write a cache of decoded images.

    The cache is a folder that can be given wherever images are. Its images keep the identity of
    the originals; they are resized a second time where a smaller side is used.

    Args:
        source: The images.
        side: Short side that larger images are reduced to, in pixels.
        out: Folder of the cache; None writes none.
        download: Fetch the dataset if it is not on this computer; nothing else uses the network.
        reporter: Speaks to the user.

    Raises:
        UsageProblem: Neither ``out`` nor ``download``, or the dataset cannot be fetched.
        DataInvalid: The source cannot be opened, or none of its images decoded.
        DiskFull: No space is left; nothing half-made remains.
    """
    from edgessl.stages.data_prepare import prepare_data

    result = prepare_data(
        source, side=side, out=out, download=download, reporter=reporter or Reporter()
    )
    where = source if out is None else out
    return Finding("data prepare", result, f"edgessl data check {where}")

"""The commands about images alone: data check, data prepare."""

# ruff: noqa: PLR0913  (a command has one parameter per option)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgessl.cli import options as o
from edgessl.cli import show
from edgessl.cli.app import START, app, tell
from edgessl.core.errors import UsageProblem

SKIPPED_TOLD = 10

data = typer.Typer(no_args_is_help=True, help="Check images, cache them, fetch datasets.")
app.add_typer(data, name="data", rich_help_panel=START)


@data.command()
def check(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SRC]...", help="Images without a role; default: edgessl.yaml."),
    ] = None,
    unlabeled: Annotated[
        str | None, typer.Option("--unlabeled", metavar="SRC", help="Images to pretrain on.")
    ] = None,
    labels: o.Labels = None,
    test: o.Test = None,
    group_by: o.GroupBy = None,
    imgsz: o.Imgsz = None,
    group_list: Annotated[
        Path | None,
        typer.Option(
            "--group-near-duplicates",
            metavar="CSV",
            help="Write a list that keeps near-duplicates together (group_by column:group).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="HTML page; default data-check.html if needed."),
    ] = None,
    set_: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Look at every image: sizes, classes, damaged files, copies and near-duplicates.

    Images that two sources share are an error; near-duplicates are shown, never fatal.

    Examples:
    edgessl data check photos

    edgessl data check --labels labelled --test measured --unlabeled photos
    """  # fmt: skip
    from edgessl import api_data

    values = {
        "data.unlabeled": unlabeled, "data.labels": labels, "data.test": test,
        "data.group_by": group_by, "data.imgsz": imgsz,
    }  # fmt: skip
    finding = api_data.data_check(
        sources or (), settings=o.settings(set_, values), out=out, group_list=group_list,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    tell(finding, "" if as_json else findings_text(finding.result, verbose), as_json, quiet)


@data.command()
def prepare(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder, list, dataset ...")],
    side: Annotated[
        int, typer.Option("--side", min=8, max=4096, help="Short side of the cache in pixels.")
    ] = 256,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the cache; must not exist.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the dataset if it is not here.")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Decode images once into a cache that every run can use; fetch a dataset.

    Cached images are resized a second time where a smaller side is used.

    Examples:
    edgessl data prepare photos --side 256 --out photos-256

    edgessl data prepare cifar10 --download
    """
    from edgessl import api_data

    if not source.strip():
        raise UsageProblem("no images were named", hint="edgessl data prepare photos --out cache")
    finding = api_data.data_prepare(
        source, side=side, out=out, download=download,
        reporter=o.reporter(quiet, verbose, as_json),
    )  # fmt: skip
    tell(finding, "", as_json, quiet)


def findings_text(result: Mapping[str, Any], verbose: bool) -> str:
    """Return what was found as text: a table of sources, then what is worth knowing."""
    head = ("role", "source", "images", "classes", "median size", "aspect", "stored as",
            "copies", "skipped")  # fmt: skip
    rows = [
        (
            s["role"], show.name(s["name"]), s["images"],
            "-" if s["classes"] is None else len(s["classes"]),
            " x ".join(map(str, s["sizes"]["median"])), f"{s['aspect']['median']:.2f}",
            ", ".join(f"{mode} {n}" for mode, n in list(s["modes"].items())[:4]),
            s["duplicates"], s["skipped_count"],
        )
        for s in result["sources"]
    ]  # fmt: skip
    lines = [show.table(head, rows, right="2378")]
    for s in result["sources"]:
        low, high = s["sizes"]["min"], s["sizes"]["max"]
        lines.append(
            f"{s['role']}: width {low[0]} to {high[0]}, height {low[1]} to {high[1]}, "
            f"aspect {s['aspect']['min']:g} to {s['aspect']['max']:g}\n"
        )
        if s["classes"] is not None:
            lines.append(f"  {_classes(s['classes'], verbose)}\n")
        told = s["skipped"] if verbose else s["skipped"][:SKIPPED_TOLD]
        lines += [f"  skipped {show.name(x['item'])}: {x['reason']}\n" for x in told]
        if len(told) < s["skipped_count"]:
            lines.append(f"  ... and {s['skipped_count'] - len(told)} more files skipped\n")
    lines.append(_use(result))
    if result["near_groups"]:
        lines.append(
            f"near-duplicates: {result['near_images']} images in {result['near_groups']} "
            f"group(s), {result['near_across']} pair(s) across sides\n"
        )
    elif result["near_groups"] == 0:
        lines.append("near-duplicates: none\n")
    lines += [f"note: {text}\n" for text in result["remarks"]]
    lines += [f"written: {result[key]}\n" for key in ("page", "list") if result[key]]
    # the last error is told like that of any command
    lines += [f"error: {text}\n" for text in result["errors"][1:]]
    return "".join(lines)


def _classes(counts: Mapping[str, int], verbose: bool) -> str:
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ranked if verbose or len(ranked) <= 12 else [*ranked[:6], *ranked[-5:]]
    parts = [f"{show.name(name)} {n}" for name, n in shown]
    if len(shown) < len(ranked):
        parts.insert(6, "...")
    return "classes: " + ", ".join(parts)


def _use(result: Mapping[str, Any]) -> str:
    kept = "" if result["groups"] is None else f", {result['groups']} groups kept together"
    if result["splits"] is not None:
        parts = ", ".join(f"{name} {n}" for name, n in result["splits"].items())
        return f"a run would split the labels: {parts}{kept}\n"
    if result["folds"] is not None:
        return f"too few labels for a test split: a run would use {result['folds']} folds{kept}\n"
    return ""

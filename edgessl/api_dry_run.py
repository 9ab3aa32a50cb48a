"""The Python API of ``--dry-run``; part of :mod:`edgessl.api`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgessl.api_light import Finding
from edgessl.core.console import Reporter
from edgessl.core.errors import UsageProblem
from edgessl.core.registry import require_training
from edgessl.core.runs import ROOT

__all__ = ["dry_run"]


def dry_run(
    recipe: str | Path | Mapping[str, Any] | None = None,
    *,
    command: str = "run",
    settings: Mapping[str, Any] | None = None,
    out: Path | None = None,
    start: str | None = None,
    until: str | None = None,
    reporter: Reporter | None = None,
) -> Finding:
    """Measure a few steps of ``run`` or ``pretrain`` and say what the whole would take.

    Nothing is written.

    Args:
        recipe: As for ``run``; ``pretrain`` takes none.
        command: ``run`` or ``pretrain``.
        settings: Dotted changes, for example ``{"pretrain.epochs": 5}``.
        out: Where the run folder would be; its disk is asked for free space.
        start: First stage of ``run``.
        until: Last stage of ``run``.
        reporter: Speaks to the user.

    Returns:
        ``result`` holds ``parts`` (name, seconds or None, note), ``seconds`` (of the parts that
        are estimated), ``step_ms``, ``memory_mb``, ``disk_mb``, ``bottleneck``, ``warnings``.

    Raises:
        RecipeInvalid, DataInvalid, UsageProblem: Bad input, as the command would.
    """
    require_training(command)
    from edgessl.stages.chain import selected
    from edgessl.stages.dry_run import DryRun
    from edgessl.stages.opening import DEFAULTS_FILE, lone_recipe
    from edgessl.stages.recipes import recipe_values, validated
    from edgessl.stages.roles import check_sources

    reporter = reporter or Reporter()
    if command == "pretrain":
        made, stages = lone_recipe(command, None, settings, reporter), ("pretrain",)
    else:
        if recipe is None and not DEFAULTS_FILE.is_file():
            raise UsageProblem(
                f"no recipe given and no {DEFAULTS_FILE} here",
                hint="try the shipped one: edgessl run quickstart",
            )
        values = recipe_values(recipe if recipe is not None else DEFAULTS_FILE)
        made, stages = validated(values, settings), selected(start, until)
    check_sources(made)
    result = DryRun(made, stages, out or ROOT, reporter).result()
    return Finding(command, result, "the same command without --dry-run")

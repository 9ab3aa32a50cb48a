"""The chain: every stage in order; every branch that can finish finishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgessl.core.errors import EdgeSSLError, Interrupted, UsageProblem, nearest
from edgessl.core.runs import STAGES
from edgessl.stages.bench import run_bench
from edgessl.stages.context import Context
from edgessl.stages.conversion import check_installed
from edgessl.stages.evaluate import evaluate, label_draws
from edgessl.stages.export import Source, export_folder, run_export
from edgessl.stages.extract import run_extract
from edgessl.stages.finetune import run_finetune
from edgessl.stages.networks import net_spec
from edgessl.stages.pretrain import build_method, make_plan, pretrain
from edgessl.training.loop import check_plan

# without these the later stages have nothing to work on
TRUNK = {"pretrain", "finetune", "extract"}


def selected(start: str | None, until: str | None) -> tuple[str, ...]:
    """Return the stages from ``start`` to ``until``, both included.

    Raises:
        UsageProblem: No such stage, or in the wrong order.
    """
    for name in (start, until):
        if name is not None and name not in STAGES:
            raise UsageProblem(f"unknown stage '{name}'", hint=nearest(name, STAGES))
    first = STAGES.index(start) if start else 0
    last = STAGES.index(until) if until else len(STAGES) - 1
    if first > last:
        raise UsageProblem(f"stage {start} comes after {until}")
    return STAGES[first : last + 1]


def run_chain(context: Context, stages: tuple[str, ...]) -> list[EdgeSSLError]:
    """Run the chosen stages and return the errors of the branches that failed.

    Args:
        context: The run; earlier stages that are not chosen must have left their results there.
        stages: See :func:`selected`.

    Raises:
        Interrupted: At once, without going on.
    """
    preflight(context, stages)
    chain = _Chain(context)
    steps: dict[str, Callable[[], object]] = {
        "pretrain": lambda: pretrain(context),
        "evaluate": lambda: evaluate(context, context.folder("pretrain")),
        "finetune": lambda: run_finetune(context, context.folder("pretrain")),
        "extract": lambda: run_extract(context, context.folder("finetune")),
        "export": chain.export,
        "bench": chain.bench,
        "report": lambda: write_reports(context),
    }
    broken = False
    for name in stages:
        if broken and name != "report":
            continue
        try:
            steps[name]()
        except Interrupted:
            raise
        except EdgeSSLError as error:
            chain.failed(name, error)
            broken |= name in TRUNK
    return chain.errors


def preflight(context: Context, stages: tuple[str, ...]) -> None:
    """Find what is wrong with images, labels and settings before anything long starts.

    Raises:
        DataInvalid, RecipeInvalid, InvalidInput: As the stages would, hours later.
        MissingExtra: A target's converter or runtime is not installed.
    """
    recipe = context.recipe
    label_draws(context)
    if "pretrain" in stages:
        build_method(recipe)
        check_plan(make_plan(recipe, len(context.images.pool.images)))
    for target in recipe.export.targets if "export" in stages else ():
        check_installed(target)


def write_reports(context: Context) -> Path:
    """Write ``report.html`` and ``MODEL_CARD.md`` into the run folder."""
    from edgessl.report.html import write_report
    from edgessl.report.model_card import write_model_card

    path = context.folder("report.html")
    write_report([context.run.path], path)
    write_model_card(context.run.path, context.folder("MODEL_CARD.md"))
    context.run.finish_stage("report", 0.0)
    context.reporter.say(f"report: {path}")
    return path


class _Chain:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.errors: list[EdgeSSLError] = []
        self._source: Source | None = None

    @property
    def source(self) -> Source:
        if self._source is None:
            width = net_spec(self.context.recipe).label
            self._source = Source.load(self.context, self.context.folder("extract", width))
        return self._source

    def export(self) -> None:
        for target in self.context.recipe.export.targets:
            try:
                run_export(self.context, self.source, target)
            except Interrupted:
                raise
            except EdgeSSLError as error:
                self.failed(f"export {target}", error)

    def bench(self) -> None:
        folders = [
            folder
            for target in self.context.recipe.export.targets
            if (folder := export_folder(self.context, self.source.artifact, target)).is_dir()
            and (folder / "stage.json").is_file()
        ]
        if folders:
            _, problems = run_bench(self.context, self.source, folders)
            for error in problems:
                self.failed("bench", error)

    def failed(self, stage: str, error: EdgeSSLError) -> None:
        self.errors.append(error)
        self.context.reporter.warn(f"{stage} failed: {error.message}")
        if error.hint:
            self.context.reporter.warn(f"  {error.hint}")

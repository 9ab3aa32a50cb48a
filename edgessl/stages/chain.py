"""The chain: every stage in order; every branch that can finish finishes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgessl.core.artifact import Artifact
from edgessl.core.errors import EdgeSSLError, FileInvalid, Interrupted, UsageProblem, nearest
from edgessl.core.runs import STAGES
from edgessl.stages.bench import measurable, run_bench
from edgessl.stages.board_opening import board_of
from edgessl.stages.context import STAGE_FILE, Context
from edgessl.stages.conversion import check_installed
from edgessl.stages.evaluate import evaluate
from edgessl.stages.export import Source, export_folder
from edgessl.stages.extract import run_extract
from edgessl.stages.finetune import finetune_folder, run_finetune
from edgessl.stages.inference import outcome_of
from edgessl.stages.networks import stock_net
from edgessl.stages.pretrain import (
    build_method,
    is_finished,
    make_plan,
    number_of_classes,
    pool_of,
    pretrain,
    pretrain_folder,
)  # fmt: skip
from edgessl.stages.resizes import measure_resizes
from edgessl.stages.rounds import rounds_of
from edgessl.stages.targets import run_export
from edgessl.training.plan import check_plan


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
        "pretrain": chain.pretrain,
        "evaluate": lambda: evaluate(context, chain.checkpoints),
        "finetune": chain.finetune,
        "extract": chain.extract,
        "export": chain.export,
        "bench": chain.bench,
        "report": lambda: write_reports(context),
    }
    for name in stages:
        if chain.labels or name == "report":
            try:
                steps[name]()
            except Interrupted:
                raise
            except EdgeSSLError as error:
                chain.failed(name, error)
    return chain.errors


def preflight(context: Context, stages: tuple[str, ...]) -> None:
    """Find what is wrong with images, labels and settings before anything long starts.

    Raises:
        DataInvalid, RecipeInvalid, InvalidInput: As the stages would, hours later.
        MissingExtra: A target's converter or runtime is not installed.
    """
    recipe = context.recipe
    rounds_of(context, recipe.labels.per_class)
    stock_net(recipe, recipe.slim_labels[0])
    if "pretrain" in stages:
        pool = pool_of(context)
        n = len(pool.images)
        build_method(recipe, classes=number_of_classes(context, pool), images=n)
        check_plan(make_plan(recipe, len(pool.images)))
    for target in recipe.export.targets if "export" in stages else ():
        check_installed(target, recipe.export.quantize)


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
    """The branches of a run: one per slim width, and below it one per target."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.errors: list[EdgeSSLError] = []
        self.labels = list(context.recipe.slim_labels)  # branches that can still go on
        self._sources: dict[str, Source] = {}

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the finished pretrainings.

        Raises:
            FileInvalid: There is none.
        """
        finished = [
            pretrain_folder(self.context, start)
            for start in self.context.recipe.starts
            if is_finished(self.context, start)
        ]
        if not finished:
            raise FileInvalid(
                f"{self.context.run.path} has no finished pretraining of this recipe",
                hint="start with that stage: leave --from out",
            )
        return finished

    def pretrain(self) -> None:
        starts = self.context.recipe.starts
        done = [self._try("pretrain", partial(pretrain, self.context, s)) for s in starts]
        if not any(done):
            self.labels.clear()  # nothing is left to work on

    def finetune(self) -> None:
        self._each("finetune", lambda label: run_finetune(self.context, self.checkpoints, label))

    def extract(self) -> None:
        self._each(
            "extract",
            lambda label: run_extract(self.context, finetune_folder(self.context, label), label),
        )

    def export(self) -> None:
        for label in self.labels:
            for target in self.context.recipe.export.targets:
                work = partial(self._export, label, target)
                self._try(f"export {label} {target}", work)
        for label in self.labels[:1]:  # the widest stands for all
            self._try("resizes", partial(self._resizes, label))

    def _resizes(self, label: str) -> None:
        measure_resizes(self.context, self._source(label))

    def bench(self) -> None:
        for label in self.labels:
            self._try(f"bench {label}", partial(self._bench, label))

    def _bench(self, label: str) -> None:
        source, section = self._source(label), self.context.recipe.export
        folders = [
            export_folder(self.context, source.artifact, target, precision)
            for target in section.targets
            for precision in dict.fromkeys(("none", section.quantize))
        ]
        kind = board_of(self.context.recipe.bench).kind
        finished = [folder for folder in folders if (folder / STAGE_FILE).is_file()]
        finished = [
            folder
            for folder in finished
            if outcome_of(folder) != "FAIL"
            and measurable(Artifact.load(folder, verify=False), kind)
        ]
        if finished:
            for error in run_bench(self.context, source, finished)[1]:
                self.failed(f"bench {label}", error)

    def _export(self, label: str, target: str) -> None:
        run_export(self.context, self._source(label), target)

    def _source(self, label: str) -> Source:
        if label not in self._sources:
            folder = self.context.folder("extract", label)
            self._sources[label] = Source.load(self.context, folder)
        return self._sources[label]

    def _each(self, stage: str, work: Callable[[str], object]) -> None:
        """Do a stage for every width; a width that fails is left out from here on."""
        for label in tuple(self.labels):
            if not self._try(f"{stage} {label}", partial(work, label)):
                self.labels.remove(label)

    def _try(self, name: str, work: Callable[[], object]) -> bool:
        try:
            work()
        except Interrupted:
            raise
        except EdgeSSLError as error:
            self.failed(name, error)
            return False
        return True

    def failed(self, stage: str, error: EdgeSSLError) -> None:
        self.errors.append(error)
        self.context.reporter.warn(f"{stage} failed: {error.message}")
        if error.hint:
            self.context.reporter.warn(f"  {error.hint}")

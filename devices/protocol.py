"""How long a figure is taken, and when it is what it claims to be.

The presets and the rules behind them: floors per percentile from MLPerf's early-stopping rule
(``core.measurement``), 5 % steadiness over repeats from MLPerf Mobile. A verdict judges the
figure; a condition describes the state of the board and invalidates nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from edgessl.core.errors import UsageProblem, nearest
from edgessl.core.measurement import PERCENTILE_FLOORS, Verdict, worst_first
from edgessl.core.statistics import percentile_interval
from edgessl.devices import events
from edgessl.devices.base import Traits
from edgessl.devices.conditions import (
    CPU_PROVIDER,
    FEW_PAGES,
    conditions,
    swapped_a_second,
    usable_cores,
)
from edgessl.devices.events import Run

Finding = tuple[Verdict, str]

# Parts that must be steady: the two headline figures.
HEADLINE = ("infer", "e2e_from_uint8")
DRIFT_LIMIT = 0.05
REPEAT_LIMIT = 0.05
# Others may use up to this share of the cores. Work that takes a share s of the time of a core
# can stretch what runs there by about s, so 5 % is where interference alone could break the 5 %
# that repeats must agree within; below it, it cannot be told from ordinary spread.
BUSY_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Preset:
    """Floors and caps of one bench; counts are inferences at batch 1, times seconds.

    Attributes:
        settle_window_s: Warm-up goes on until two windows of this length have medians within
            ``settle_within``; 0 turns that off.
        timed_cap_s: The timed part ends here even if its floors are not met.
        repeats: Fresh processes; from the second on each waits until the hottest zone is within
            ``cooldown_within_c`` of where the first began, at most ``cooldown_cap_s``.
        bin_s: Length of a bin of a sustained run; 0 for none.
        shown: Percentiles that are claimed.
    """

    name: str
    warmup_runs: int
    warmup_s: float
    timed_runs: int
    timed_s: float
    shown: tuple[str, ...]
    settle_window_s: float = 0.0
    settle_within: float = 0.02
    warmup_cap_s: float = 60.0
    timed_cap_s: float = 600.0
    repeats: int = 1
    cooldown_within_c: float = 3.0
    cooldown_cap_s: float = 300.0
    bin_s: float = 0.0


PRESETS = {
    "quick": Preset("quick", 10, 2.0, 130, 10.0, ("p50", "p90")),
    "standard": Preset(
        "standard", 20, 5.0, 1024, 60.0, ("p50", "p90", "p95", "p99"),
        settle_window_s=2.0, repeats=3,
    ),
    "sustained": Preset(
        "sustained", 20, 5.0, 11, 600.0, ("p50",), settle_window_s=2.0, bin_s=10.0
    ),
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """Return a preset.

    Raises:
        UsageProblem: There is no such preset.
    """
    if name not in PRESETS:
        raise UsageProblem(f"unknown preset '{name}'", hint=nearest(name, PRESETS))
    return PRESETS[name]


def expected_seconds(preset: Preset, fps: float | None = None) -> float:
    """Return the seconds that a bench takes at least, without cooldown and slow models.

    Counts the floors, two settling windows and about 3 s to start each process.

    Args:
        preset: Floors, caps and repeats.
        fps: Inferences a second at most; None for one after the other.
    """
    warm, timed = preset.warmup_s, preset.timed_s
    if fps:
        warm = min(max(warm, preset.warmup_runs / fps), preset.warmup_cap_s)
        timed = min(max(timed, preset.timed_runs / fps), preset.timed_cap_s)
    return preset.repeats * (warm + 2 * preset.settle_window_s + timed + 3.0)


class Judgement(NamedTuple):
    """Verdicts, worst first; reasons for each that is not VALID; conditions of the run.

    A reason begins with its verdict and a colon, as several verdicts can hold at once.
    """

    verdicts: tuple[Verdict, ...]
    reasons: tuple[str, ...]
    conditions: tuple[str, ...]


def judge(
    runs: Sequence[Run],
    preset: Preset,
    *,
    provider: str,
    precision: str | None = None,
    traits: Traits | None = None,
) -> Judgement:
    """Judge what the agent said; nothing is dropped and nothing is measured here.

    Args:
        runs: The events of each process, in the order they came.
        preset: What was asked for.
        provider: The execution provider, device or delegate that was asked for.
        precision: The compute precision that was asked for, where the runtime reports one.
        traits: What is special about the kind of board: verdicts and conditions of its own.
    """
    traits = traits or Traits()
    findings = [*_wrong_answers(runs), *_wrong_backend(runs, provider, precision)]
    if not any(verdict == "WRONG_ANSWERS" for verdict, _ in findings):
        findings += [*_too_short(runs, preset), *_unstable(runs, preset), *_slept(runs)]
        findings += _busy(runs)
    told = [[*run, {"k": "asked", "provider": provider}] for run in runs]
    findings += traits.findings(told)
    if any(facts.get("emulated") for facts in events.all_of(runs, "facts")):
        findings.append(("EMULATED", "the processor is emulated; times say nothing about a board"))
    verdicts = worst_first([verdict for verdict, _ in findings])
    ordered = sorted(findings, key=lambda finding: verdicts.index(finding[0]))
    reasons = tuple(dict.fromkeys(f"{verdict}: {text}" for verdict, text in ordered))
    seen = dict.fromkeys([*conditions(runs, preset), *traits.conditions(runs)])
    return Judgement(verdicts, reasons, tuple(seen))


def _wrong_answers(runs: Sequence[Run]) -> Iterable[Finding]:
    for golden in events.all_of(runs, "golden"):
        if golden["ok"]:
            continue
        own, torch = golden["expected"], golden["reference"]
        yield (
            "WRONG_ANSWERS",
            f"on {golden['n']} golden images the logits are {own['max_abs']:.1e} from this file "
            f"on the workstation and {torch['max_abs']:.1e} from PyTorch, relative to the largest"
            f" logit; allowed {golden['tolerance']:.0e}; {own['agreement']:.0%} same answers",
        )


def _wrong_backend(runs: Sequence[Run], provider: str, precision: str | None) -> Iterable[Finding]:
    for loaded in events.all_of(runs, "loaded"):
        used = loaded["providers"]
        if used is not None and (not used or used[0] != provider):
            yield "WRONG_BACKEND", f"asked for {provider}, ran on {', '.join(used) or 'nothing'}"
        ran = loaded["precision"]
        if precision is not None and ran is not None and ran != precision:
            yield "WRONG_BACKEND", f"asked for {precision} arithmetic, ran in {ran}"
        placed = loaded.get("placement") or {"nodes": {}, "on_cpu": []}
        nodes, names = placed["nodes"], placed["on_cpu"]
        if not used or used[0] != provider or not sum(nodes.values()):
            continue
        if not nodes.get(provider):
            ran_on = ", ".join(f"{n} on {name}" for name, n in nodes.items() if n)
            yield "WRONG_BACKEND", f"no node ran on {provider}: {ran_on}"
        elif fallen := nodes.get(CPU_PROVIDER, 0):
            text = f"{fallen} of {sum(nodes.values())} nodes fell back to the CPU: "
            yield "WRONG_BACKEND", text + ", ".join(names)


def _too_short(runs: Sequence[Run], preset: Preset) -> Iterable[Finding]:
    if len(runs) < preset.repeats:
        yield "TOO_SHORT", f"{len(runs)} of {preset.repeats} repeats"
    pooled = 0
    for run in runs:
        n, seconds = (
            len(events.samples_ms(run).get("infer", [])),
            events.last(run, "timed").get("s", 0.0),
        )
        pooled += n
        if n < preset.timed_runs or seconds < preset.timed_s:
            yield (
                "TOO_SHORT",
                f"{n} samples in {seconds:.1f} s, '{preset.name}' needs {preset.timed_runs} and "
                f"{preset.timed_s:g} s",
            )
    for name in preset.shown:
        if pooled < PERCENTILE_FLOORS[name]:
            yield "TOO_SHORT", f"{name} needs {PERCENTILE_FLOORS[name]} samples, got {pooled}"


def _unstable(runs: Sequence[Run], preset: Preset) -> Iterable[Finding]:
    for part in HEADLINE:
        series = [values for run in runs if (values := events.samples_ms(run).get(part))]
        for values in series:
            # a sustained run may throttle, and is steady once its second half is
            if (change := drift(values, sustained=bool(preset.bin_s))) is not None:
                which = "third" if preset.bin_s else "first"
                text = f"{part} drifted by {change:+.1%} from the {which} to the last quarter"
                yield "UNSTABLE", text
        medians = [median(values) for values in series]
        if len(medians) > 1 and (spread := max(medians) / min(medians) - 1) > REPEAT_LIMIT:
            yield "UNSTABLE", f"medians of {part} in {len(medians)} repeats spread by {spread:.1%}"


def drift(values: Sequence[float], *, sustained: bool = False) -> float | None:
    """Return by how much the median moved from one quarter to the last; None where it did not.

    It has moved when the medians are more than 5 % apart and their 95 % intervals do not touch:
    with a quick preset a quarter may have 32 samples, and where single samples spread by 10 % two
    such medians of a steady board are more than 5 % apart in one run of ten.

    Args:
        values: Samples in time order.
        sustained: Compare the third quarter with the last, not the first.
    """
    quarter = len(values) // 4
    if quarter < 3:
        return None
    begin = 2 * quarter if sustained else 0
    early, late = values[begin : begin + quarter], values[-quarter:]
    change = median(late) / median(early) - 1
    if abs(change) <= DRIFT_LIMIT:
        return None
    before, after = percentile_interval(early, 0.5), percentile_interval(late, 0.5)
    if before and after and before[0] <= after[1] and after[0] <= before[1]:
        return None
    return change


def _slept(runs: Sequence[Run]) -> Iterable[Finding]:
    for run in runs:
        if seconds := events.slept_s(run):
            yield "UNSTABLE", f"the board slept for {seconds:.1f} s while samples were taken"


def _busy(runs: Sequence[Run]) -> Iterable[Finding]:
    for run in runs:
        others, waited = events.interference(run)
        if others is not None and others > BUSY_LIMIT:
            yield "BUSY", f"other work used {others:.0%} of the cores (limit {BUSY_LIMIT:.0%})"
        if waited is not None and waited > BUSY_LIMIT and not _crowded(run):
            text = f"the model waited for a core {waited:.0%} of the time (limit {BUSY_LIMIT:.0%})"
            yield "BUSY", text
        pages = swapped_a_second(run)
        if pages and pages > FEW_PAGES:
            yield "BUSY", f"{pages:.1f} pages a second were swapped while samples were taken"


def _crowded(run: Run) -> bool:
    """Whether the model's own threads are more than the cores, and so wait for each other."""
    threads, cores = events.last(run, "loaded").get("threads"), usable_cores(run)
    return bool(threads and cores and threads > cores)

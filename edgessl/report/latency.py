"""Benches as they are shown: no latency without its verdict, none at all for wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from edgessl.core.measurement import PERCENTILE_FLOORS, VERDICT_ORDER, Latency
from edgessl.core.statistics import percentile_interval
from edgessl.report.bench_pictures import PART_NAMES, bench_pictures
from edgessl.report.board_facts import Pairs, all_facts, board_facts, device_name, protocol_facts
from edgessl.report.energy import EnergyView, energy_view
from edgessl.report.exports import file_title
from edgessl.report.formats import count, milliseconds, percent, percent_range
from edgessl.report.found import HEADLINE_PARTS, FoundBench
from edgessl.report.layer_times import LayerTimes, layer_times
from edgessl.report.proofs import Proof
from edgessl.report.read import Run
from edgessl.report.same_answers import AnswerCheck, answer_checks
from edgessl.report.tolerant import first_text, width_number, width_text
from edgessl.report.variants import NAMES

MEANINGS = {
    "VALID": "all checks passed; the figure may be quoted",
    "WRONG_ANSWERS": "the device does not give the model's answers; no latency is shown",
    "WRONG_BACKEND": "something else ran than was asked for",
    "TOO_SHORT": "too few samples or too little time for what was asked",
    "UNSTABLE": "clocks, heat or drift moved the figure while it was taken",
    "BUSY": "other work was running on the device",
    "EMULATED": "taken on a stand-in, not on the device itself",
}
SYMBOLS = {"VALID": "✓", "WRONG_ANSWERS": "✕", "WRONG_BACKEND": "✕"}
Sort = Literal["native", "browser", "emulated", "estimated", "untrained"]
PLACES: dict[Sort, str] = {
    "browser": "in a browser", "emulated": "on a stand-in (emulated)",
    "estimated": "on paper (estimated)", "untrained": "with random weights",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartView:
    """One timed part, written out; empty figures where answers were wrong."""

    key: str
    name: str
    n: str
    p50: str
    interval: str
    p90: str
    p90_interval: str
    least: str
    most: str
    floor: str


@dataclass(frozen=True, slots=True)
class BenchView:
    """One bench, written out for the page."""

    bench: FoundBench
    title: str
    width: str
    device: str
    runtime: str
    verdict: str
    withheld: bool
    parts: list[PartView]
    outcome: str = ""  # what is proven of the file; empty where this run does not hold it
    sort: Sort = "native"
    pictures: list[tuple[Markup, str]] = field(default_factory=list)
    board: Pairs = field(default_factory=list)
    facts: Pairs = field(default_factory=list)
    everything: Pairs = field(default_factory=list)  # that board and protocol recorded
    checks: list[AnswerCheck] = field(default_factory=list)
    energy: EnergyView | None = None
    layers: LayerTimes | None = None

    @property
    def other_answers(self) -> bool:
        """Whether the device surely answers otherwise than the workstation with the same file."""
        return self.bench.parity is not None and self.bench.parity.outcome == "FAIL"

    @property
    def proven(self) -> bool:
        """Whether nothing speaks against shipping the file."""
        return self.outcome in ("", "PASS") and not self.other_answers

    @property
    def symbol(self) -> str:
        """The mark before the verdict: a tick only where the file is proven, too."""
        mark = SYMBOLS.get(self.verdict, "!")
        return "" if mark == "✓" and not self.proven else mark

    @property
    def doubt(self) -> str:
        """What a reader must know beside a figure in a plot; empty for a sound one."""
        words = [
            "" if self.verdict == "VALID" else self.verdict,
            "" if self.outcome == "PASS" else self.outcome,
            "answers differ" if self.other_answers else "",
        ]
        return ", ".join(word for word in words if word)

    @property
    def reasons(self) -> list[str]:
        """Why the verdicts are what they are, to stand beside the worst of them.

        A reason begins with its verdict; that of the worst is there already.
        """
        return [text.removeprefix(f"{self.verdict}: ") for text in self.bench.result.reasons]

    @property
    def unexplained(self) -> list[str]:
        """The other verdicts that no reason names."""
        result = self.bench.result
        return [v for v in result.verdicts[1:] if not any(r.startswith(v) for r in result.reasons)]

    @property
    def quoted(self) -> list[PartView]:
        """The parts that a table of benches shows."""
        return [part for part in self.parts if part.key in HEADLINE_PARTS]

    @property
    def headline(self) -> PartView | None:
        """The part that is quoted: end to end where it was timed, else the inference."""
        by_key = {part.key: part for part in self.parts}
        return next((by_key[key] for key in HEADLINE_PARTS if key in by_key), None)


def bench_views(run: Run) -> list[BenchView]:
    """Write out every bench of a run, by device and width, best verdict first."""
    benches = sorted(
        run.benches,
        key=lambda b: (
            b.device,
            -width_number(width_text(b.model_fact("width"))),
            -VERDICT_ORDER.index(b.result.verdict),
            b.folder,
        ),
    )
    return [_view(bench, run.proof(bench.seal)) for bench in benches]


def best(views: Sequence[BenchView], width: str = "") -> BenchView | None:
    """Choose the bench for the headline: VALID, a board before the workstation.

    Benches of ``width`` come before others, and those of files that are proven. What ran in a
    browser, on a stand-in or with random weights is never chosen.
    """

    def rank(view: BenchView) -> tuple[bool, bool, bool, bool, float]:
        latency = headline_latency(view.bench)
        return (
            view.width != width,
            not view.proven,
            view.verdict != "VALID",
            view.bench.on_workstation,
            latency.p50 if latency and latency.p50 is not None else float("inf"),
        )

    return min((view for view in views if view.sort == "native"), key=rank, default=None)


def unquotable(views: Sequence[BenchView]) -> str:
    """Say why no bench can be quoted for a device where none ran on one natively."""
    sorts = {view.sort for view in views}
    places = [PLACES[sort] for sort in PLACES if sort in sorts]
    return f"benches ran only {' and '.join(places)}" if places else "no bench was run"


def times_of(bench: FoundBench) -> Sort:
    """Say what took the times of a bench; only like is shown beside like."""
    kind = bench.result.result_kind
    if kind == "emulated" or "EMULATED" in bench.result.verdicts:
        return "emulated"
    return "native" if kind == "measured" else kind


def _view(bench: FoundBench, proof: Proof | None) -> BenchView:
    result = bench.result
    withheld = result.verdict == "WRONG_ANSWERS"
    target = bench.model_fact("target") or bench.model_fact("format")
    precision, width = bench.model_fact("quantize"), width_text(bench.model_fact("width"))
    title = NAMES.get(target, target) or bench.folder.split("/")[-1]
    title += f" {precision}" if precision not in ("", "none") else ""
    device = device_name(result.device, bench.device)
    title = file_title(proof) if proof else title + (f", {width}" if width else "")
    parts = [
        _part(name, result.latency_ms[name], bench.samples.get(name, ()), withheld)
        for name in sorted(result.latency_ms, key=_part_order)
    ]
    return BenchView(
        bench=bench,
        title=title,
        width=width,
        device=device,
        runtime=_runtime(result.runtime),
        verdict=result.verdict,
        withheld=withheld,
        parts=parts,
        outcome=proof.outcome if proof else "" if precision in ("", "none") else "NOT PROVEN",
        sort="untrained" if bench.untrained else times_of(bench),
        pictures=[] if withheld else bench_pictures(bench, f"{title} on {device}"),
        board=board_facts(result.device),
        facts=[*_accuracy(bench), *protocol_facts(bench)],
        everything=all_facts(result.device, {"protocol": result.protocol, "data": result.data}),
        checks=answer_checks(bench),
        energy=None if withheld else energy_view(bench.energy),
        layers=None if withheld else layer_times(bench.layers),
    )


def _runtime(runtime: Mapping[str, Any]) -> str:
    """Say what ran: name, version, provider, threads; what was used before what was asked."""
    facts = dict(runtime)
    for group in ("asked", "used"):
        inner = runtime.get(group)
        facts |= inner if isinstance(inner, Mapping) else {}
    provider = facts.get("providers") or facts.get("provider")
    provider = provider[0] if isinstance(provider, list) and provider else provider
    name = first_text(facts, "name") or "runtime not named"
    version = first_text(facts, "version")
    name = version if " " in version else f"{name} {version}"  # some versions say the name too
    words = [name.strip(), str(provider or "")]
    threads = first_text(facts, "threads")
    count_of = f", {threads} thread{'' if threads == '1' else 's'}" if threads else ""
    return " ".join(word for word in words if word) + count_of


def _part(name: str, latency: Latency, samples: Sequence[float], withheld: bool) -> PartView:
    floor = [
        f"{key} needs {least} samples"
        for key, least in PERCENTILE_FLOORS.items()
        if key in ("p50", "p90") and getattr(latency, key) is None
    ]
    known = name in HEADLINE_PARTS and len(samples) == latency.n
    reach = percentile_interval(samples, 0.9) if known else None
    shown = not withheld
    return PartView(
        key=name,
        name=PART_NAMES.get(name, name),
        n=count(latency.n),
        p50=milliseconds(latency.p50) if shown else "",
        interval=_range(latency.ci_low, latency.ci_high) if shown and latency.p50 else "",
        p90=milliseconds(latency.p90) if shown else "",
        p90_interval=_range(*reach) if shown and reach and latency.p90 else "",
        least=milliseconds(latency.min) if shown else "",
        most=milliseconds(latency.max) if shown else "",
        floor="; ".join(floor) if shown else "",
    )


def _accuracy(bench: FoundBench) -> Pairs:
    a = bench.result.accuracy
    if a is None:
        return []
    reach = percent_range(a.ci_low, a.ci_high)
    return [("Top-1 on the device", f"{percent(a.top1)} {reach} on {count(a.n)} images")]


def headline_latency(bench: FoundBench) -> Latency | None:
    """Return the timing that is quoted: end to end where it was timed, else the inference."""
    found = (bench.result.latency_ms.get(key) for key in HEADLINE_PARTS)
    return next((latency for latency in found if latency is not None), None)


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{milliseconds(low)}, {milliseconds(high)}]"


def _part_order(name: str) -> tuple[int, str]:
    parts = list(PART_NAMES)
    if name in HEADLINE_PARTS:
        return HEADLINE_PARTS.index(name) - len(HEADLINE_PARTS), name
    return (parts.index(name) if name in parts else len(parts)), name

"""What a bench writes: raw samples in time order; percentiles are derived, never stored alone.

``result.json`` follows :class:`BenchResult`. Times are milliseconds, memory MiB, energy joules;
moments are UTC in ISO 8601.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgessl.core.artifact import Document
from edgessl.core.statistics import percentile, percentile_interval

# Fewest samples for which a percentile may be claimed: the early-stopping rule of MLPerf
# Inference (tolerance 0, confidence 99 %).
PERCENTILE_FLOORS = {"p50": 11, "p90": 64, "p95": 130, "p99": 662}

Verdict = Literal[
    "VALID", "WRONG_ANSWERS", "WRONG_BACKEND", "TOO_SHORT", "UNSTABLE", "BUSY", "EMULATED"
]
# the worst first
VERDICT_ORDER: tuple[Verdict, ...] = (
    "WRONG_ANSWERS", "WRONG_BACKEND", "TOO_SHORT", "UNSTABLE", "BUSY", "EMULATED", "VALID",
)  # fmt: skip


class Latency(Document):
    """Summary of one timed part; a percentile is None where ``n`` is below its floor."""

    n: int
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    ci_low: float | None = Field(default=None, description="95 % bounds of p50, order statistics")
    ci_high: float | None = None
    mean: float
    min: float
    max: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Latency:
        """Summarise samples in milliseconds; nothing is dropped.

        Raises:
            ValueError: No samples.
        """
        n = len(samples_ms)
        shown = {
            name: percentile(samples_ms, int(name[1:]) / 100)
            for name, floor in PERCENTILE_FLOORS.items()
            if n >= floor
        }
        bounds = percentile_interval(samples_ms, 0.5) or (None, None)
        return cls(
            n=n,
            **shown,
            ci_low=bounds[0],
            ci_high=bounds[1],
            mean=fmean(samples_ms),
            min=min(samples_ms),
            max=max(samples_ms),
        )


class Accuracy(Document):
    """Accuracy on the device, proportions in [0, 1]."""

    top1: float
    top5: float | None = None
    n: int
    ci_low: float
    ci_high: float
    agreement: float | None = Field(default=None, description="same answer as float32 PyTorch")
    ece_shift: float | None = None


class ParityCheck(Document):
    """One comparison with the float32 PyTorch logits."""

    level: str = Field(description="golden, tensors or answers")
    n: int
    max_abs: float = Field(description="relative to the largest absolute reference logit")
    cosine: float
    agreement: float
    tolerance: float
    passed: bool = Field(alias="pass")

    model_config = ConfigDict(populate_by_name=True, frozen=True, extra="ignore")


class BenchResult(Document):
    """The whole of ``result.json``."""

    run: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    device: dict[str, Any]
    runtime: dict[str, Any]
    protocol: dict[str, Any]
    latency_ms: dict[str, Latency]
    throughput_fps: float | None = None
    memory_mb: dict[str, float] = Field(default_factory=dict)
    energy: dict[str, Any] | None = None
    accuracy: Accuracy | None = None
    parity: tuple[ParityCheck, ...] = ()
    verdicts: tuple[Verdict, ...]
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    result_kind: Literal["measured", "browser", "emulated", "estimated"] = "measured"

    @property
    def verdict(self) -> Verdict:
        """The worst verdict, the one that is shown beside every figure."""
        return self.verdicts[0]


def worst_first(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Sort verdicts, worst first; an empty sequence means VALID."""
    return tuple(sorted(set(verdicts), key=VERDICT_ORDER.index)) or ("VALID",)

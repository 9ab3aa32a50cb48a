"""The search for a quantised file that gives the right answers: which are tried, which is kept.

Pure logic: how a candidate is written and run is the caller's. Figures are taken on a selection
split that is neither what calibration saw nor what the gate reports on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any

from edgessl.core.errors import DiskFull, EdgeSSLError, Interrupted
from edgessl.exporters.base import Calibration, Quantization, Scheme
from edgessl.quantization.criteria import Bounds
from edgessl.quantization.figures import Figures, holds, pointless

CALIBRATIONS: tuple[Calibration, ...] = ("minmax", "percentile", "moving_average")
MORE_IMAGES = 4  # times as many calibration images
SENSITIVE_LAYERS, SENSITIVE_SHARE = (1, 3), 0.1  # so many layers in float, then such a share
FALLBACKS: tuple[Quantization, ...] = ("w8a16", "dynamic")
FOLDERS = re.compile(r"(?<!\w)(?:/[^\s/:'\"]+)+/")  # of an absolute path; records leave them out


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to quantise.

    Attributes:
        name: For people and for ``search.json``; unique within a search.
        scheme: What the exporter is asked for.
        calibration_images: How many; 0 where none are used.
        aware: Fine-tune the weights first; see :mod:`edgessl.quantization.aware`.
    """

    name: str
    scheme: Scheme
    calibration_images: int
    aware: bool = False


@dataclass(frozen=True, slots=True)
class Try:
    """A candidate with its figures, or with the reason why there are none."""

    candidate: Candidate
    figures: Figures | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Which candidates are offered, cheap ones first.

    Attributes:
        asked: What the user wants; its own layers stay in float in all candidates.
        offered: What the target can do.
        sensitive: Gives the layers that may stay in float, the most sensitive first, each with
            all modules that must stay in float for it; called at most once, and only when the
            calibrations were not enough.
        calibration_images: To begin with.
        images: That are there to calibrate with.
        aware: Whether there are images to fine-tune with.
    """

    asked: Scheme
    offered: Sequence[Quantization]
    sensitive: Callable[[], Sequence[Sequence[str]]]
    calibration_images: int
    images: int
    aware: bool = True

    def candidates(self, tries: Sequence[Try]) -> Iterator[Candidate]:
        """Give one candidate after the other.

        Only precisions that have activations to calibrate have a ladder: ``fp16`` and
        ``dynamic`` are one candidate each.

        Args:
            tries: What was tried so far; the caller adds to it between two candidates.
        """
        precision = self.asked.precision
        if precision not in ("int8", "w8a16"):
            yield Candidate(precision, self.asked, 0)
            return
        usual = min(self.calibration_images, self.images)
        for name in CALIBRATIONS:
            yield Candidate(f"{precision}, {name}", replace(self.asked, calibration=name), usual)
        if (more := min(MORE_IMAGES * usual, self.images)) > usual:
            best = self._best(tries)
            yield replace(best, name=f"{best.name}, {more} images", calibration_images=more)
        best = self._best(tries)
        yield from self._partly_float(best)
        if self.aware:
            yield replace(best, name=f"{best.name}, quantisation-aware", aware=True)
        for other in FALLBACKS:
            if other in self.offered and other != precision:
                images = 0 if other == "dynamic" else usual
                yield Candidate(other, replace(self.asked, precision=other), images)

    def _partly_float(self, best: Candidate) -> Iterator[Candidate]:
        ranked = self.sensitive()
        for count in _counts(len(ranked)):
            modules = [*self.asked.float_layers, *(m for ms in ranked[:count] for m in ms)]
            scheme = replace(best.scheme, float_layers=tuple(dict.fromkeys(modules)))
            layers = "layer" if count == 1 else "layers"
            name = f"{best.name}, {count} sensitive {layers} in float"
            yield replace(best, name=name, scheme=scheme)

    def _best(self, tries: Sequence[Try]) -> Candidate:
        """Return the calibration with the lowest KL; the first one when none could be run."""
        done = [one for one in tries if one.figures is not None]
        return min(done or tries, key=_kl).candidate


def _counts(layers: int) -> list[int]:
    """Return how many layers stay in float, rung by rung; never all of them."""
    share = ceil(SENSITIVE_SHARE * layers)
    return sorted({count for count in (*SENSITIVE_LAYERS, share) if 0 < count < layers})


def _kl(one: Try) -> float:
    return one.figures.deviation.kl if one.figures is not None else inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found.

    Attributes:
        tries: In the order they were made.
        chosen: The candidate to go to the gate with; None when none could be run, or none is
            worth having.
        held: Whether it holds the bounds on the selection split.
        bounds: That they were held to.
        float_bytes: Size of the float file.
        proof: Labelled images that the gate has.
    """

    tries: list[Try]
    chosen: Candidate | None
    held: bool
    bounds: Bounds
    float_bytes: int
    proof: int = 0

    def record(
        self, *, seal: str, selection: Mapping[str, Any], float_ms: float | None
    ) -> dict[str, Any]:
        """Return the body of ``search.json``.

        Args:
            seal: Of the chosen file.
            selection: Which images, and how many.
            float_ms: Median latency of the float file; None where the target does not run here.
        """
        return {
            "seal": seal,
            "asked": self.tries[0].candidate.scheme.precision if self.tries else None,
            "chosen": self.chosen.name if self.chosen else None,
            "selection": dict(selection),
            "float": {"bytes": self.float_bytes, "ms": float_ms},
            "candidates": [self._row(one) for one in self.tries],
        }

    def _row(self, one: Try) -> dict[str, Any]:
        figures, candidate = one.figures, one.candidate
        seen = figures.deviation if figures else None
        scheme = asdict(candidate.scheme)
        return {
            "name": candidate.name,
            "scheme": scheme | {"float_layers": list(candidate.scheme.float_layers)},
            "calibration_images": candidate.calibration_images,
            "aware": candidate.aware,
            **{
                name: getattr(seen, name, None)
                for name in ("n", "agreement", "kl", "shift", "snr_db", "labelled", "drop")
            },
            **{name: getattr(figures, name, None) for name in ("bytes", "ms", "ratio")},
            "holds": figures is not None and holds(figures, self.bounds, self.proof),
            "pointless": figures is not None and pointless(figures, self.float_bytes),
            "seconds": one.seconds,
            "error": one.error and FOLDERS.sub("", one.error),
        }


def search(
    candidates: Callable[[Sequence[Try]], Iterable[Candidate]],
    try_one: Callable[[Candidate], Figures],
    *,
    bounds: Bounds,
    float_bytes: int,
    proof: int = 0,
    said: Callable[[Try], None] = lambda _: None,
) -> Outcome:
    """Try candidates until one holds its bounds; else choose the one with the lowest KL.

    A candidate that is slower and no smaller than float is never chosen. One that cannot be
    written or run is logged, and the search goes on.

    Args:
        candidates: Given what was tried so far, what to try; see :meth:`Ladder.candidates`.
        try_one: Writes and runs a candidate on the selection split.
        bounds: What a candidate may lose there.
        float_bytes: Size of the float file.
        proof: Labelled images that the gate has; see :func:`holds`.
        said: Told of every try as soon as it is over.

    Raises:
        Interrupted, DiskFull: Neither says anything about the candidate.
    """
    tries: list[Try] = []
    for candidate in candidates(tries):
        latest = _attempt(candidate, try_one)
        tries.append(latest)
        said(latest)
        seen = latest.figures
        if seen and holds(seen, bounds, proof) and not pointless(seen, float_bytes):
            return Outcome(tries, candidate, True, bounds, float_bytes, proof)
    worth = [one for one in tries if one.figures and not pointless(one.figures, float_bytes)]
    best = min(worth, key=_kl).candidate if worth else None
    return Outcome(tries, best, False, bounds, float_bytes, proof)


def _attempt(candidate: Candidate, try_one: Callable[[Candidate], Figures]) -> Try:
    start, figures, reason = time.monotonic(), None, None
    try:
        figures = try_one(candidate)
    except (Interrupted, DiskFull):
        raise
    except EdgeSSLError as error:
        reason = error.message
    return Try(candidate, figures, reason, round(time.monotonic() - start, 3))

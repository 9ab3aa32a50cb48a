"""What is known of a quantised file on the selection split, and whether that is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgessl.exporters.parity import BROKEN, compare
from edgessl.quantization.criteria import Bounds

MARGIN = 0.75  # of the bound that a candidate may be expected to use up
NOISE = 1.05  # latency ratios up to here cannot be told from 1


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far the answers of a file are from those of its float net; of n images.

    Attributes:
        n: Images compared.
        flips: Images with another argmax.
        kl: Mean Kullback-Leibler divergence KL(float || file) of the softmax, in nats; ``BROKEN``
            when the file gives something that is not finite.
        shift: Mean confidence (largest softmax) of the float net less that of the file: positive
            when the file is less confident.
        snr_db: Power of the float logits over power of the difference.
        labelled: Images whose label is known.
        drop: Top-1 of the float net less that of the file on those; 0 without labels.
    """

    n: int
    flips: int
    kl: float
    shift: float
    snr_db: float
    labelled: int = 0
    drop: float = 0.0

    @property
    def agreement(self) -> float:
        """Share of images with the same argmax, in [0, 1]."""
        return 1 - self.flips / self.n


def measure(
    reference_logits: ArrayLike, got_logits: ArrayLike, labels: ArrayLike | None = None
) -> Deviation:
    """Compare the logits (N, C) of a file with those of its float net, image by image.

    Args:
        reference_logits: Of the float net.
        got_logits: Of the file.
        labels: (N,) integers, -1 where unknown; None for none.

    Raises:
        GateFailed: The shapes differ, there is nothing to compare, or the reference itself is
            not finite.
    """
    parity = compare(reference_logits, got_logits)
    want, got = (np.asarray(logits, np.float64) for logits in (reference_logits, got_logits))
    whole = np.atleast_1d(np.isfinite(got).all(axis=1))
    log_p = _log_softmax(want)
    log_q = _log_softmax(np.where(whole[:, None], got, 0.0))
    p = np.exp(log_p)
    kl = (p * (log_p - log_q)).sum(axis=1).clip(min=0.0)
    confidence = np.where(whole, np.exp(log_q).max(axis=1), 0.0)  # nothing follows from a NaN
    known = np.full(parity.n, -1) if labels is None else np.asarray(labels)
    right = whole & (np.where(whole[:, None], got, 0.0).argmax(1) == known)
    lost = ((want.argmax(1) == known).astype(int) - right)[known >= 0]
    return Deviation(
        n=parity.n,
        flips=round((1 - parity.agreement) * parity.n),
        kl=float(kl.mean()) if whole.all() else BROKEN,
        shift=float(p.max(axis=1).mean() - confidence.mean()),
        snr_db=parity.snr_db,
        labelled=len(lost),
        drop=float(lost.mean()) if len(lost) else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a candidate that could be written.

    Attributes:
        deviation: Of its answers on the selection split.
        bytes: Size of its files.
        ms: Median latency on this machine, one thread; None where the target does not run here.
        ratio: ``ms`` over that of the float file, measured in turns with it; None like ``ms``.
    """

    deviation: Deviation
    bytes: int
    ms: float | None = None
    ratio: float | None = None


def holds(figures: Figures, bounds: Bounds, proof: int = 0) -> bool:
    """Return whether a candidate stays within the bounds on the selection split.

    Top-1 cannot drop by more than the share of answers that flip, so flips are held to its bound.
    With labels there is a second way: the upper bound that the gate would find on its labelled
    images, if these had the same rates, stays below with a margin. These are point estimates, for
    a choice; the gate decides, on other images.

    Args:
        figures: Of the candidate.
        bounds: What it may lose.
        proof: Labelled images that the gate has.
    """
    seen = figures.deviation
    rounding = 1e-9  # of a product such as 0.29 * 100
    if abs(seen.shift) > bounds.max_shift:
        return False
    if seen.flips <= bounds.max_drop * seen.n + rounding:
        return True
    if not (proof and seen.labelled):
        return False
    z = NormalDist().inv_cdf(bounds.confidence)
    expected = max(0.0, seen.drop) + z * math.sqrt(seen.flips / seen.n / proof)
    return expected <= MARGIN * bounds.max_drop


def pointless(figures: Figures, float_bytes: int) -> bool:
    """Return whether a candidate is slower here, beyond noise, and no smaller than float."""
    return figures.ratio is not None and figures.ratio > NOISE and figures.bytes >= float_bytes


def _log_softmax(logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    z = logits_NC - logits_NC.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

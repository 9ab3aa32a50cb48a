"""What is known of a quantised file on the selection split, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgessl.exporters.parity import BROKEN, compare

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
    """

    n: int
    flips: int
    kl: float
    shift: float
    snr_db: float

    @property
    def agreement(self) -> float:
        """Share of images with the same argmax, in [0, 1]."""
        return 1 - self.flips / self.n


def measure(reference_logits: ArrayLike, got_logits: ArrayLike) -> Deviation:
    """Compare the logits (N, C) of a file with those of its float net, image by image.

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
    return Deviation(
        n=parity.n,
        flips=round((1 - parity.agreement) * parity.n),
        kl=float(kl.mean()) if whole.all() else BROKEN,
        shift=float(p.max(axis=1).mean() - confidence.mean()),
        snr_db=parity.snr_db,
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a file may lose; proportions in [0, 1].

    Attributes:
        max_drop: Of the accuracy. It cannot exceed the share of flipped answers, so that flips
            are held to it where labels are few.
        max_shift: Of the mean confidence, in either direction.
    """

    max_drop: float = 0.01
    max_shift: float = 0.05


def holds(figures: Figures, bounds: Bounds) -> bool:
    """Return whether a candidate stays within the bounds on the selection split."""
    seen = figures.deviation
    rounding = 1e-9  # of a product such as 0.29 * 100
    return seen.flips <= bounds.max_drop * seen.n + rounding and abs(seen.shift) <= bounds.max_shift


def pointless(figures: Figures, float_bytes: int) -> bool:
    """Return whether a candidate is slower here, beyond noise, and no smaller than float."""
    return figures.ratio is not None and figures.ratio > NOISE and figures.bytes >= float_bytes


def _log_softmax(logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    z = logits_NC - logits_NC.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

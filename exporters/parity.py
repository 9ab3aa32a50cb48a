"""Does a file compute what its model computes? Logits against logits; numpy only.

All figures are taken in float64 over the whole batch unless a field says otherwise. A value
that is NaN or infinite can have no error figure; it counts as ``BROKEN``, which JSON can hold
and no tolerance admits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgessl.core.errors import GateFailed
from edgessl.core.measurement import ParityCheck

# Largest difference allowed to a float32 file, relative to the largest absolute logit of the
# model. Faithful exports are at about 1e-5; a file that runs in bfloat16 is at 1e-2 to 1e-1.
FLOAT32_TOLERANCE = 1e-3

BROKEN = 1e30
SNR_LIMIT_DB = 300.0  # stands for "equal": float64 cannot resolve more
SHOWN = 5
RECORDED = ("n", "max_abs", "cosine", "agreement", "tolerance")


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of :func:`compare`.

    Attributes:
        n: Images compared.
        max_abs: Largest absolute difference over the largest absolute reference logit.
        cosine: Smallest cosine between the two logit vectors of one image; 0 where broken.
        agreement: Share of images with the same argmax, in [0, 1]; broken ones do not agree.
        snr_db: Power of the reference over power of the difference, in [-300, 300] dB.
        tolerance: Bound that ``max_abs`` was held to.
        differing: (image, logit) of the first values beyond the tolerance, at most five.
    """

    n: int
    max_abs: float
    cosine: float
    agreement: float
    snr_db: float
    tolerance: float
    differing: tuple[tuple[int, int], ...]

    @property
    def passed(self) -> bool:
        """True if every value is finite and within the tolerance.

        Agreement is not asked for: within the tolerance an argmax can differ only where the
        model's two best logits are a tie to within twice the tolerance.
        """
        return self.max_abs <= self.tolerance

    def as_check(self, level: str) -> ParityCheck:
        """Return the record that is stored; ``level`` is golden, tensors or answers."""
        record = {name: getattr(self, name) for name in RECORDED}
        return ParityCheck.model_validate({"level": level, "pass": self.passed} | record)


def compare(reference: ArrayLike, got: ArrayLike, tolerance: float = FLOAT32_TOLERANCE) -> Parity:
    """Compare the logits of a file with those of its model.

    Args:
        reference: (N, C) logits of the model, finite.
        got: (N, C) logits of the file.
        tolerance: Largest admitted difference, relative to the largest absolute reference logit
            (absolute if the reference is zero throughout).

    Raises:
        GateFailed: The shapes differ, there is nothing to compare, or the reference itself is
            not finite.
    """
    want, have = np.asarray(reference, np.float64), np.asarray(got, np.float64)
    if want.ndim != 2 or want.size == 0 or want.shape != have.shape:
        raise GateFailed(
            f"the file gives logits of shape {have.shape}, the model {want.shape}",
            hint="both must be (images, classes); export the model again",
        )
    if not np.isfinite(want).all():
        raise GateFailed(
            "the model itself gives NaN or infinite logits; no file can be proven against it",
            hint="train again with a lower learning rate, or check the images for NaN",
        )
    finite = np.isfinite(have)
    whole = np.atleast_1d(finite.all(axis=1))
    scale = float(np.abs(want).max()) or 1.0
    error = np.where(finite, np.abs(np.where(finite, have, 0.0) - want) / scale, BROKEN)
    same = whole & (np.where(finite, have, 0.0).argmax(axis=1) == want.argmax(axis=1))
    return Parity(
        n=len(want),
        max_abs=float(error.max()),
        cosine=min(
            _cosine(a, b) if ok else 0.0 for a, b, ok in zip(want, have, whole, strict=True)
        ),
        agreement=float(same.mean()),
        snr_db=_snr_db(want / scale, error),
        tolerance=tolerance,
        differing=tuple((int(i), int(j)) for i, j in np.argwhere(error > tolerance)[:SHOWN]),
    )


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if norm_a == 0 or norm_b == 0:
        return 1.0 if norm_a == norm_b else 0.0
    # divide first: the product of two norms may overflow
    return float(np.clip((a / norm_a) @ (b / norm_b), -1.0, 1.0))


def _snr_db(signal: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    signal_power, noise_power = float(np.square(signal).sum()), float(np.square(noise).sum())
    if noise_power == 0:
        return SNR_LIMIT_DB
    if signal_power == 0:
        return -SNR_LIMIT_DB
    ratio_db = 10 * float(np.log10(signal_power / noise_power))
    return float(np.clip(ratio_db, -SNR_LIMIT_DB, SNR_LIMIT_DB))

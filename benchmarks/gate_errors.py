"""How often the gate is wrong, where the true drop and the true shift are known.

    python benchmarks/gate_errors.py [--replicates 2000] [--save]

The drop in top-1 is enumerated: the chances of PASS, FAIL and INCONCLUSIVE are sums over all
outcomes, no random numbers, with labels for all flips and for none. Flips are lost or gained, as
flips that are neither only help. The whole gate, drop and shift of confidence together, is
simulated: images drawn from a population of logits whose drop and shift are known, judged by
``edgessl.quantization.gate.judge``.

A miss is a PASS of a file that is worse than admitted, a false alarm a FAIL of one that is not; a
file at the very limit counts as both. ``--save`` writes benchmarks/results/gate_errors.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgessl.core.noninferiority import drop_lower, drop_upper
from edgessl.core.statistics import wilson
from edgessl.quantization.gate import Bounds, judge

RESULT = Path(__file__).parent / "results" / "gate_errors.json"
BOUNDS = Bounds()
IMAGES = (35, 200, 1000, 5000)
DROPS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.04)
FLIPS = (0.02, 0.05, 0.10)  # and the drop itself
WORST_UP_TO = 0.12  # flip rates among which the worst is looked for
POPULATION, CLASSES, SEED = 100_000, 10, 20
# (drop, flip rate, shift) of the simulated files
FILES = (
    (0.0, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, 0.02, 0.05), (0.0, 0.02, -0.05), (0.01, 0.02, 0.0),
    (0.01, 0.02, 0.05), (0.0, 0.02, 0.06), (0.02, 0.05, 0.0), (0.02, 0.05, 0.05),
)  # fmt: skip
OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")


class Decisions:
    """The gate's decision on the drop for every outcome at ``n`` images, labels all known.

    More lost images never help, so for every number of gained ones two numbers say it all: up to
    how many lost it is a PASS, and from how many on a FAIL.
    """

    def __init__(self, n: int) -> None:
        most_gained = n * WORST_UP_TO / 2
        gains = range(min(n, math.ceil(most_gained + 8 * math.sqrt(most_gained)) + 20) + 1)
        self.n, self.gained = n, np.array(gains)
        self.passes_up_to, self.fails_from = np.empty((2, len(gains)), np.int64)
        passes, fails = -1, 0
        for gained in gains:  # one more gained moves both numbers up by one or a few
            while passes + gained < n and self.upper(gained, passes + 1) <= BOUNDS.max_drop:
                passes += 1
            while fails + gained <= n and self.lower(gained, fails) <= BOUNDS.max_drop:
                fails += 1
            self.passes_up_to[gained] = min(passes, n - gained)
            self.fails_from[gained] = fails

    def upper(self, gained: int, lost: int) -> float:
        return drop_upper(gained, lost, self.n, BOUNDS.confidence)

    def lower(self, gained: int, lost: int) -> float:
        return drop_lower(gained, lost, self.n, BOUNDS.fail_confidence)

    def chances(self, drop: float, flip_rate: float) -> dict[str, float]:
        """Chance of each outcome if all flips are labelled."""
        lost_rate, gained_rate = (flip_rate + drop) / 2, (flip_rate - drop) / 2
        weights = stats.binom.pmf(self.gained, self.n, gained_rate)
        rest, share = self.n - self.gained, lost_rate / (1 - gained_rate)
        passes = float(weights @ stats.binom.cdf(self.passes_up_to, rest, share))
        fails = float(weights @ stats.binom.sf(self.fails_from - 1, rest, share))
        return dict(zip(OUTCOMES, (passes, fails, max(0.0, 1 - passes - fails)), strict=True))

    def chances_unlabelled(self, flip_rate: float) -> dict[str, float]:
        """Chance of each outcome if no flip is labelled: all count as lost, then as gained."""
        most = int(self.passes_up_to[0])  # none gained
        passes = float(stats.binom.cdf(most, self.n, flip_rate))
        return dict(zip(OUTCOMES, (passes, 0.0, 1 - passes), strict=True))


def enumerated(n: int) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Return the chances of all outcomes at ``n`` images, and the worst errors at the limit."""
    decisions = Decisions(n)
    rows: list[dict[str, object]] = []
    for drop in DROPS:
        for flip_rate in sorted({drop, *(rate for rate in FLIPS if rate >= drop)}):
            case: dict[str, object] = {"n": n, "drop": drop, "flip_rate": flip_rate}
            rows.append(case | {"labels": "all"} | decisions.chances(drop, flip_rate))
            rows.append(case | {"labels": "none"} | decisions.chances_unlabelled(flip_rate))
    limit = BOUNDS.max_drop
    rates = np.concatenate(
        [limit + np.geomspace(1e-6, 1e-3, 200), np.linspace(limit, WORST_UP_TO, 1101)]
    )
    at_limit = [decisions.chances(limit, float(rate)) for rate in rates]
    worst: dict[str, object] = {"n": n, "drop": limit, "flip_rates_up_to": WORST_UP_TO}
    for error, outcome in (("miss", "PASS"), ("false_alarm", "FAIL")):
        chances = [chance[outcome] for chance in at_limit]
        worst |= {
            f"worst_{error}": max(chances),
            f"{error}_at_flip_rate": float(rates[int(np.argmax(chances))]),
        }
    return rows, worst


def top1_probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)


def population(shift: float, random: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return logits of a reference and of a file with the same answers and that mean shift.

    Each image's logits are scaled by a factor of its own, log-normal around one that gives the
    shift; so differences of confidence are skewed, many near zero and some large.
    """
    reference = random.normal(0, random.uniform(0.5, 4, (POPULATION, 1)), (POPULATION, CLASSES))
    own = np.exp(random.normal(0, 0.3, (POPULATION, 1)))
    before = top1_probability(reference).mean()
    low, high = 0.05, 20.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        falls = before - top1_probability(middle * own * reference).mean() > shift
        low, high = (middle, high) if falls else (low, middle)
    return reference, high * own * reference


def simulated(n: int, file: tuple[float, float, float], replicates: int) -> dict[str, object]:
    """Judge ``replicates`` draws of ``n`` labelled images of a file with known drop and shift."""
    drop, flip_rate, shift = file
    random = np.random.default_rng([SEED, n, FILES.index(file)])
    reference, got = population(shift, random)
    answers = reference.argmax(axis=1)
    seen = dict.fromkeys(OUTCOMES, 0)
    for _ in range(replicates):
        images = random.integers(POPULATION, size=n)
        kind = random.random(n)  # lost, then gained, then not flipped
        lost = kind < (flip_rate + drop) / 2
        flipped = kind < flip_rate
        # a flip moves the two logits of its answers; the confidence stays
        want, have, first = reference[images], got[images], answers[images]
        other = (first + 1) % CLASSES
        rows = np.flatnonzero(flipped)
        have[rows, first[rows]], have[rows, other[rows]] = (
            have[rows, other[rows]], have[rows, first[rows]],
        )  # fmt: skip
        labels = np.where(flipped & ~lost, other, first)
        seen[judge(want, have, labels, BOUNDS).outcome] += 1
    worse = drop > BOUNDS.max_drop or abs(shift) > BOUNDS.max_shift
    at_limit = drop == BOUNDS.max_drop or abs(shift) == BOUNDS.max_shift
    row: dict[str, object] = {"n": n, "drop": drop, "flip_rate": flip_rate, "shift": shift}
    row |= {outcome: count / replicates for outcome, count in seen.items()}
    if worse or at_limit:
        row["miss_95"] = wilson(seen["PASS"], replicates)
    if not worse:
        row["false_alarm_95"] = wilson(seen["FAIL"], replicates)
    return row


def measure(replicates: int) -> dict[str, object]:
    rows, worst = [], []
    for n in IMAGES:
        more, at_limit = enumerated(n)
        rows += more
        worst.append(at_limit)
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "edgessl": version("edgessl"),
        "bounds": asdict(BOUNDS),
        "seed": SEED,
        "replicates": replicates,
        "enumerated": rows,
        "enumerated_at_the_limit": worst,
        "simulated": [simulated(n, file, replicates) for n in IMAGES for file in FILES],
    }


def print_table(rows: list[dict], columns: tuple[str, ...]) -> None:
    print("  ".join(f"{name:>12}" for name in columns))
    for row in rows:
        cells = [row[name] for name in columns]
        print("  ".join(f"{c:>12.4f}" if isinstance(c, float) else f"{c:>12}" for c in cells))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=2000, help="of each simulated file")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name} too")
    options = parser.parse_args()
    result = measure(options.replicates)
    print_table(result["enumerated"], ("n", "labels", "drop", "flip_rate", *OUTCOMES))  # type: ignore[arg-type]
    print_table(
        result["enumerated_at_the_limit"],  # type: ignore[arg-type]
        ("n", "worst_miss", "miss_at_flip_rate", "worst_false_alarm", "false_alarm_at_flip_rate"),
    )
    print_table(result["simulated"], ("n", "drop", "flip_rate", "shift", *OUTCOMES))  # type: ignore[arg-type]
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

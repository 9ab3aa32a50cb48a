"""Write docs/evidence.md from the figures that benchmarks/evidence.py has measured.

python benchmarks/evidence_page.py            # benchmarks/results/evidence.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from edgessl.core.statistics import student_t_interval

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "evidence.json"
BEFORE = RESULT.with_name("evidence_small_rates.json")  # kept beside it: another grid of rates
PAGE = ROOT / "docs" / "evidence.md"
ORDER = ("pixels", "random", "simclr", "moco-v2", "barlow", "xd", "sacl", "sacl-xd")
COLUMNS = {
    "knn": "kNN",
    "linear": "linear probe",
    "linear_100_per_class": "100 labels per class",
    "linear_10_per_class": "10 labels per class",
}
IMAGENET_SEEN = 200 * 1_281_167
RIVAL, OURS = "barlow", "sacl-xd"
BASE = {"cost": "epochs", "longercost": "longer"}  # where rows of as many epochs are


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def runs(result: dict[str, Any], kind: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of one comparison by method, in the order of their seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    own = {r["method"] for r in result["rows"] if r["row"].startswith(f"{kind}-")}
    for row in result["rows"]:
        # as many epochs as at equal epochs: the same training
        start = kind if row.get("method") in own else BASE.get(kind, kind)
        name = row["row"]
        if name == "pixels":
            found["pixels"] = [row]
        elif name.startswith((f"{start}-", "random-")):
            found.setdefault(row["method"], []).append(row)
    return {m: sorted(found[m], key=lambda r: r.get("seed", 0)) for m in ORDER if m in found}


def spread(values: Sequence[float]) -> str:
    """Mean and range."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % t interval of the mean of two or more values."""
    bounds = student_t_interval(values)
    assert bounds is not None
    return bounds


def accuracies(found: dict[str, list[dict[str, Any]]]) -> str:
    """Top-1 of every method by protocol."""
    rows = []
    for method, made in found.items():
        trained = [r for r in made if "seconds" in r]
        mean_s = f"{fmean(r['seconds'] for r in trained):.0f}" if trained else ""
        epochs = str(trained[0]["epochs"]) if trained else ""
        name = f"`{method}`" if trained else method
        tops = [spread([r["top1"][key] for r in made]) for key in COLUMNS]
        rows.append([name, str(len(made)), mean_s, epochs, *tops])
    return table(["", "seeds", "seconds", "epochs", *COLUMNS.values()], rows)


def differences(found: dict[str, list[dict[str, Any]]]) -> str:
    """Each method minus Barlow Twins, seed by seed."""
    rows = []
    rival = {r["seed"]: r["top1"] for r in found.get(RIVAL, [])}
    for method, made in found.items():
        pairs = [(r["top1"], rival[r["seed"]]) for r in made if r.get("seed") in rival]
        if method in ("pixels", "random", RIVAL) or len(pairs) < 2:
            continue
        cells = []
        for key in COLUMNS:
            gaps = [ours[key] - theirs[key] for ours, theirs in pairs]
            low, high = interval(gaps)
            cells.append(f"{fmean(gaps):+.1f} [{low:+.1f}, {high:+.1f}]")
        rows.append([f"`{method}`", *cells])
    return table([f"minus `{RIVAL}`", *COLUMNS.values()], rows)


def verdict(found: dict[str, list[dict[str, Any]]], where: str) -> str:
    """One sentence on the paper's claim, made from the figures."""
    rival = {r["seed"]: r["top1"] for r in found.get(RIVAL, [])}
    pairs = [(r["top1"], rival[r["seed"]]) for r in found.get(OURS, []) if r["seed"] in rival]
    if len(pairs) < 2:
        return f"At {where} too few seeds are finished to compare.\n"
    gaps = {key: [a[key] - b[key] for a, b in pairs] for key in COLUMNS}
    bounds = {key: interval(values) for key, values in gaps.items()}
    above = [COLUMNS[k] for k, (low, _) in bounds.items() if low > 0]
    below = [COLUMNS[k] for k, (_, high) in bounds.items() if high < 0]
    said = (
        [f"SACL+XD is above Barlow Twins beyond the seeds in {', '.join(above)}"] if above else []
    )
    said += (
        [f"SACL+XD is below Barlow Twins beyond the seeds in {', '.join(below)}"] if below else []
    )
    if not said:
        said = ["no difference between SACL+XD and Barlow Twins goes beyond the seeds"]
    mean = fmean(gaps["linear"])
    return f"At {where}: {' and '.join(said)}\n  (linear probe {mean:+.1f} points).\n"


def choices(result: dict[str, Any]) -> str:
    """What was tried for the learning rate, on validation images."""
    found = {r["row"].removeprefix("choice-"): r for r in result["rows"] if "validation" in r}
    rates = sorted({rate for r in found.values() for rate in r["validation"]}, key=float)
    rows = [
        [
            f"`{m}`",
            *(percent(found[m]["validation"], r) for r in rates),
            f"{found[m]['rate']:g}",
        ]
        for m in ORDER
        if m in found
    ]
    return table(["", *(f"{float(rate):g}" for rate in rates), "chosen"], rows)


def percent(shares: dict[str, float | None], rate: str) -> str:
    """A share in percent; empty where none was measured."""
    if rate not in shares:
        return ""
    share = shares[rate]
    return "diverged" if share is None else f"{100 * share:.1f}"


def edge(result: dict[str, Any]) -> str:
    """Say so when the largest rate won: a wider search might have found better ones."""
    found = {r["row"].removeprefix("choice-"): r for r in result["rows"] if "validation" in r}
    edges = [m for m, r in found.items() if r["rate"] == max(map(float, r["validation"]))]
    if not edges:
        return ""
    who = "every method" if len(edges) == len(found) else ", ".join(f"`{m}`" for m in edges)
    return f"The largest rate won for {who}: a wider search might raise the figures.\n\n"


def options(used: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """The fixed options of every method, as list items."""
    lines = []
    for method, (width, values) in used.items():
        said = ", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())
        lines.append(f"  - `{method}` {width}: {said}")
    return "\n".join(lines)


def smaller_rates(before: dict[str, Any]) -> str:
    """What an earlier run on a grid of smaller rates came to."""
    means = {
        method: fmean(row["top1"]["linear"] for row in rows)
        for method, rows in runs(before, "epochs").items()
        if method not in ("pixels", "random")
    }
    rates = ", ".join(f"{rate:g}" for rate in before["conditions"]["learning_rates"])
    said = ", ".join(f"`{method}` {mean:.1f}" for method, mean in means.items())
    return (
        f"One seed chooses with noise. An earlier run knew {rates} only, and took the largest\n"
        f"for every method. Its linear probes after {before['conditions']['epochs']} epochs, means "
        f"of three seeds:\n{said}.\n\n"
    )


def page(result: dict[str, Any], before: dict[str, Any]) -> str:
    """The whole page."""
    c = result["conditions"]
    seen = c["epochs"] * c["pretraining_images"]
    step = next(r for r in result["rows"] if r["row"] == "step_seconds")
    steps = ", ".join(f"`{m}` {1e3 * step[m]:.0f} ms" for m in ORDER if m in step)
    epochs, cost = runs(result, "epochs"), runs(result, "cost")
    longer, longer_cost = runs(result, "longer"), runs(result, "longercost")
    verdicts = "".join(
        f"- {verdict(found, where)}"
        for n, equal, same_cost in ((c["epochs"], epochs, cost), (c["longer"], longer, longer_cost))
        if OURS in equal
        for found, where in (
            (equal, f"{n} epochs each"),
            (same_cost, f"the measured cost of {n} epochs of Barlow Twins"),
        )
    )
    prolonged = ""
    if OURS in longer:
        prolonged = f"""## Longer

{c["longer"]} epochs, with the learning rates that were chosen for the short trainings:

{accuracies(longer)}{differences(longer)}At the cost of {c["longer"]} epochs of Barlow Twins:

{accuracies(longer_cost)}{differences(longer_cost)}"""
    return f"""# Evidence

What the methods were worth in one comparison that fits on a CPU, printed as it came out. It was
made by `benchmarks/evidence.py`, and this page by `benchmarks/evidence_page.py` from
`benchmarks/results/evidence.json`.

**The claim of the paper** (Meng et al., NeurIPS 2023; ImageNet-1K, 100 and 200 epochs, linear
probe): MobileNetV3-large 36.3 with MoCo-v2, 59.4 with XD, 61.7 with SACL+XD; MobileNetV1 55.8 with
XD (100 epochs), 59.3 with SACL+XD. It names no figure for Barlow Twins or SimCLR on these nets.

**What was seen here**, with {IMAGENET_SEEN / seen:,.0f} times fewer images and at {c["imgsz"]} px:

{verdicts}
## Conditions

Fashion-MNIST at {c["imgsz"]} px, {c["encoder"]} at 1x (SACL and SACL+XD: the 1x slice of a 1.5x
host). {c["pretraining_images"]:,} images without labels, {c["epochs"]} epochs, batch {c["batch"]},
AdamW with weight decay 1e-4, 5 % warm-up and a cosine; views `moco_v2` with crops of 0.4 to 1.
Probes learn from {c["labelled_images"]:,} labelled images or {c["draws"]} draws of a few,
their penalty is chosen on {c["validation_images"]:,} validation images; top-1 in percent on
{c["test_images"]:,} test images that were used for nothing else. `random` is the untrained net with
its BatchNorm statistics, `pixels` the raw images. Means over seeds, with the range in brackets.

{c["device"]}, {c["threads"]} thread, torch {c["torch"]}; seconds are {c["seconds"]};
processes: {c["processes"]}.

## Equal epochs

{accuracies(epochs)}{differences(epochs)}Intervals are t intervals over the seeds, 95 %.

## Equal measured cost

Each method has the whole number of epochs that comes nearest to the time of Barlow Twins, by the
median step times of all methods in turn ({steps}); within 10 % of as many epochs it has as many.
The column of seconds says what the trainings took; where it is higher than those times say, the
processes were in each other's way.

{accuracies(cost)}{differences(cost)}{prolonged}## How the learning rate was chosen

Linear probe on validation images after {c["choice_epochs"]} epochs of {c["choice_images"]:,}
images, a seed of its own. Each method had {len(c["learning_rates"])} rates, and twice the largest
for as long as the largest was the best; there was no other choice.

{choices(result)}{edge(result)}{smaller_rates(before)}## What this cannot say

- Nothing about ImageNet, photographs, large batches or hundreds of epochs: the paper's setting.
- Options other than the learning rate are one fixed choice each. Another choice can change the
  order:
{options(c["options"])}
- Fashion-MNIST is centred and aligned: raw pixels with a linear probe are a strong rival, and where
  they win the table shows it.
- Three seeds bound large differences only.

To repeat it: `python benchmarks/evidence.py --out runs/evidence`, on a GPU with `--device cuda`.
"""


def main() -> None:
    """Write the page."""
    results = [json.loads(path.read_text("utf-8")) for path in (RESULT, BEFORE)]
    PAGE.write_text(page(*results), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()

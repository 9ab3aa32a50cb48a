"""Write docs/switches.md from the figures that benchmarks/sacl_xd_switches.py has measured.

python benchmarks/switches_page.py            # benchmarks/results/sacl_xd_switches.json
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from evidence_page import interval, table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "sacl_xd_switches.json"
PAGE = ROOT / "docs" / "switches.md"
PROTOCOLS = {"knn": "kNN", "linear": "linear probe"}
MEANS = {
    "xd_loss nll, additive": "`xd_loss: nll`, `xd_combine: additive`",
    "sacl": "no cross distillation (`--method sacl`)",
    "bn shared": "`encoder.bn: shared`",
    "local crops 2": "`views.local: 2`",
    "two slim nets": "`1.5x-1x-0.5x`, equal weights",
    "width_weights 3:1": "`1.5x-1x-0.5x`, `width_weights: [3, 1]`",
}


def name(switch: str) -> str:
    """How the page names a row."""
    if switch in MEANS:
        return MEANS[switch]
    return "default" if switch == "default" else f"`{switch.replace(' ', ': ')}`"


def gap(values: list[float]) -> str:
    """Mean and 95 % interval of the differences, seed by seed."""
    low, high = interval(values)
    return f"{fmean(values):+.1f} [{low:+.1f}, {high:+.1f}]"


def beyond(result: dict[str, Any]) -> str:
    """Which switches differ beyond the seeds, in one sentence; made from the figures."""
    found: dict[str, list[str]] = {"above": [], "below": []}
    for row in result["table"]:
        if row["switch"] == row["against"]:
            continue
        for key, title in PROTOCOLS.items():
            low, high = interval(row[f"{key}_difference"])
            where = "above" if low > 0 else "below" if high < 0 else None
            if where:
                found[where].append(f"{name(row['switch'])} ({title})")
    said = [f"{where}: {', '.join(rows)}" for where, rows in found.items() if rows]
    if not said:
        return "No switch differs from its default beyond the seeds."
    return "Beyond the seeds, " + "; ".join(said) + ". All others are within."


def rows(result: dict[str, Any]) -> str:
    """Accuracy and cost of every switch."""
    costs, lines = result["cost"]["steps"], []
    for row in result["table"]:
        own = row["switch"] == row["against"]
        cost = costs[row["switch"]]
        against = "" if own else name(row["against"])
        cells = [f"{row[f'{key}_mean']:.1f}" for key in PROTOCOLS]
        gaps = ["" if own else gap(row[f"{key}_difference"]) for key in PROTOCOLS]
        low, high = cost["wall_ratio_low"], cost["wall_ratio_high"]
        step = "1" if own else f"{cost['wall_ratio']:.2f} [{low:.2f}, {high:.2f}]"
        lines.append([
            name(row["switch"]), against, cells[0], gaps[0], cells[1], gaps[1], cost["units"], step
        ])  # fmt: skip
    head = ["switch", "against", "kNN", "difference", "linear probe", "difference", "units", "step"]
    return table(head, lines)


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    c, cost = result["conditions"], result["cost"]
    seeds = len(result["table"][0]["seeds"])
    steps = c["pretraining_images"] // c["batch"] * c["epochs"]
    under, base = cost["conditions"], cost["steps"]["default"]
    return f"""# Switches of SACL+XD, measured

Each switch alone against the default, in one small comparison that fits on a CPU, printed as it
came out. It was made by `benchmarks/sacl_xd_switches.py`, and this page by
`benchmarks/switches_page.py` from `benchmarks/results/sacl_xd_switches.json`. What the switches
mean stands in [SACL+XD](method-sacl-xd.md).

{beyond(result)}

{rows(result)}
- Accuracy: top-1 in percent of the extracted 1x net on {c["validation_images"]:,} validation images
  that pretraining has not seen; kNN and a linear probe from {c["labelled_images"]:,} labelled
  training images, the penalty of the probe chosen on others. Test images were not opened.
- Differences are those of the same seeds ({seeds} of them), with a 95 % t interval: read them as a
  bound on large effects, not as a ranking. Of {2 * (len(result["table"]) - 1)} intervals, one or
  two leave out zero by chance.
- Step: the median of the paired ratios to the default of a whole training step, in turn in one
  process, on the clock, with a 95 % interval; the default took {base["wall_ms"][0]:.0f} ms. Units
  as in [Cost](cost.md); a late start is timed after it.

## Conditions

Fashion-MNIST at {c["imgsz"]} px, {c["encoder"]} 1.5x-1x, {c["pretraining_images"]:,} images,
{c["epochs"]} epochs = {steps} steps of {c["batch"]} images, AdamW at {c["learning_rate"]:g}; views
`moco_v2` with crops of 0.4 to 1. Projector {"-".join(map(str, c["options"]["projector"]))}, `lam`
{c["options"]["lam"]:g}, `scale_loss` {c["options"]["scale_loss"]:g}; nothing was tuned for any
switch. Two slim nets are a default of their own for the weights per width.

{under["cpu"]}, {under["threads"]} thread, torch {under["versions"]["torch"]}; load
{under["load_1min"]} while the steps were timed.

To repeat it: `python benchmarks/sacl_xd_switches.py --out runs/switches`, then with `--collect`.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(RESULT.read_text("utf-8"))), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()

"""What counted operations say of measured time: one step of Barlow Twins on several encoders.

    python benchmarks/flops_and_time.py --imgsz 96 --batch 16 --rounds 15 --save

Rounds are interleaved, so a slow moment of the machine meets every encoder; medians are printed
with the operations that ``edgessl cost`` counts for the same step, and all ratios are to the
first encoder of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from edgessl.core.runs import machine_facts
from edgessl.cost.training import Passes, training_flops
from edgessl.methods import METHODS
from edgessl.stages.cost_nets import Nets
from edgessl.stages.pretrain import best_device, build_method
from edgessl.stages.recipes import validated

ENCODERS = ("resnet18", "mobilenet_v1", "efficientnet_b0", "mobilenet_v3_large")
METHOD, WARM_UP = "barlow", 2
RESULT = Path(__file__).parent / "results/flops_and_time.json"


def step_of(encoder: str, side: int, batch: int, device: torch.device) -> Callable[[], None]:
    """Return a training step on fixed random views."""
    recipe = validated({
        "encoder": {"name": encoder, "width": "1x"}, "data": {"imgsz": side},
        "pretrain": {"method": METHOD, "options": {"projector": [256, 256, 256]}},
    })  # fmt: skip
    method, _ = build_method(recipe)
    method = method.train().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-4, momentum=0.9)
    shape = (batch, 3, side, side)
    views = [
        torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    ]

    def step() -> None:
        optimizer.zero_grad()
        method(views)["total"].backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def measure(side: int, batch: int, rounds: int) -> dict[str, Any]:
    """Time every encoder in turn, ``rounds`` times."""
    device = best_device()
    passes, load = Passes.of(METHODS[METHOD].facts), os.getloadavg()[0]
    steps = {name: step_of(name, side, batch, device) for name in ENCODERS}
    seconds: dict[str, list[float]] = {name: [] for name in ENCODERS}
    for turn in range(WARM_UP + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    first = ENCODERS[0]
    rows = {}
    for name, times in seconds.items():
        per_image = Nets(name, "stock", side).step(passes, (1.0, []))["macs"]
        flops = training_flops(per_image, batch, 1)
        rows[name] = {
            "gflops_per_step": round(flops / 1e9, 2),
            "median_s": round(median(times), 4),
            "gflops_per_s": round(flops / median(times) / 1e9, 2),
            "seconds_to_first": round(
                median(t / f for t, f in zip(times, seconds[first], strict=True)), 3
            ),
            "samples_s": [round(t, 4) for t in times],
        }
    for row in rows.values():
        row["flops_to_first"] = round(row["gflops_per_step"] / rows[first]["gflops_per_step"], 3)
    facts = machine_facts()
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else facts["cpu"],
        "cores": facts["cores"],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_1min": {"before": load, "after": os.getloadavg()[0]},
        "method": METHOD,
        "imgsz": side,
        "batch": batch,
        "rounds": rounds,
        "encoders": rows,
    }


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15, help="at least 15")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name} too")
    options = parser.parse_args()
    if options.rounds < 15:
        parser.error(f"a median of {options.rounds} rounds says little; take at least 15")
    text = json.dumps(measure(options.imgsz, options.batch, options.rounds), indent=1)
    print(text)
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

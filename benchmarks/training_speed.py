"""What a training step costs beside its rivals: slicing beside masks, XD beside none.

- ``masked / sliced``: a slim pass that runs the host under 0/1 masks, as the authors' prototype
  does and our tests check against, beside one that runs slices of its weights. Same loss.
- ``sacl-xd / sacl`` and ``xd / barlow``: what cross distillation adds.

MobileNetV3-large at 224 px, 1.5x-1x (xd and barlow: 1x), projector 2048-2048-2048, AdamW, random
images. All steps are taken in turn in one process with one thread.

    python benchmarks/training_speed.py [--turns 9] [--batch 16] [--save]

Prints one JSON document with medians, the medians of the paired ratios with 95 % intervals, on the
clock and in CPU time, and the targets; ``--save`` also writes it to
benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from paired import conditions, in_turn, ratio, write
from torch import Tensor

from edgessl.methods.base import Method
from edgessl.slimming.plan import ChannelPlan
from edgessl.slimming.sliced import Sliced
from edgessl.stages.pretrain import build_method
from edgessl.stages.recipes import validated
from edgessl.training.optimizers import make_optimizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import masked_oracle

NAME, SIDE = "mobilenet_v3_large", 224
TARGETS = {
    "sacl masked / sacl": "at least 1.3",
    "sacl-xd masked / sacl-xd": "at least 1.3",
    "sacl-xd / sacl": "at most 1.45",
    "xd / barlow": "at most 1.15",
}


def method(name: str, width: str) -> Method:
    """Build a method as pretraining does."""
    recipe = validated({
        "data": {"imgsz": SIDE}, "encoder": {"name": NAME, "width": width},
        "pretrain": {"method": name, "views": {"preset": "byol_asym"}},
    })  # fmt: skip
    made, _ = build_method(recipe)
    return made.to(memory_format=torch.channels_last).train()


def masked(made: Method) -> Method:
    """Let the slim passes of a method's encoder run the whole host under masks."""
    net, sliced = made.encoder, made.encoder.forward
    made.encoder.forward = partial(_masked_pass, net, sliced)  # type: ignore[method-assign]
    return made


def _masked_pass(
    net: Sliced, sliced: Callable[..., Tensor], x: Tensor, *, width: str, frozen: bool = False
) -> Tensor:
    if net.is_host(width):
        return sliced(x, width=width, frozen=frozen)
    plan = net.slims[width].plan
    features = masked_oracle.masked_forward(
        net, width, x
    )  # on copies of the statistics, frozen or not
    kept = len(plan.groups[plan.axes["classifier.0.weight"][0] or ""].keep)
    return features[:, :kept]


def remember_masks() -> None:
    """Make every mask once, so that only the use of masks is timed."""
    make, made = masked_oracle._mask, {}

    def remembered(plan: ChannelPlan, name: str, tensor: Tensor) -> Tensor:
        if (id(plan), name) not in made:
            made[id(plan), name] = make(plan, name, tensor)
        return made[id(plan), name]

    masked_oracle._mask = remembered


def step(made: Method, views: list[Tensor]) -> Callable[[], float]:
    """Return a whole training step, with the optimiser that pretraining uses."""
    optimizer = make_optimizer(made, "adamw", lr=1e-6, weight_decay=1e-4)

    def take() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = made(views)["total"]
        loss.backward()
        optimizer.step()
        made.after_step(1)
        return float(loss.detach())

    return take


def measure(turns: int, batch: int) -> dict[str, Any]:
    """Build all contenders and time their steps."""
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randn(batch, 3, SIDE, SIDE, generator=generator).to(memory_format=torch.channels_last)
        for _ in "ab"
    ]
    slim, dense = "1.5x-1x", "1x"
    remember_masks()
    contenders = {
        "sacl": method("sacl", slim), "sacl masked": masked(method("sacl", slim)),
        "sacl-xd": method("sacl-xd", slim), "sacl-xd masked": masked(method("sacl-xd", slim)),
        "xd": method("xd", dense), "barlow": method("barlow", dense),
    }  # fmt: skip
    steps = {name: step(made, views) for name, made in contenders.items()}
    first = {name: take() for name, take in steps.items()}
    for name in ("sacl", "sacl-xd"):
        if abs(first[name] - first[f"{name} masked"]) > 1e-4 * abs(first[name]):
            raise SystemExit(f"{name}: the masked step has another loss: {first}")
    times = in_turn(steps, turns, warm_up=1)
    return {
        "network": f"{NAME}, {SIDE} px, batch {batch}",
        "turns": turns,
        "targets": TARGETS,
        "first_losses": first,
        "rows": [ratio(times, *pair.split(" / ")) for pair in TARGETS],
        "samples_ms": {name: [round(t, 1) for t in took.wall] for name, took in times.items()},
    }


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--save", action="store_true", help="write the result file too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    write(
        "training_speed",
        conditions() | measure(options.turns, options.batch),
        save=options.save,
    )


if __name__ == "__main__":
    main()

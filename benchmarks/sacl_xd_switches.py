"""Each switch of SACL+XD alone against the default: accuracy on validation images, cost of a step.

    python benchmarks/sacl_xd_switches.py --out runs/switches
    python benchmarks/sacl_xd_switches.py --out runs/switches --collect \\
        benchmarks/results/sacl_xd_switches.json

It goes on where it stopped; with ``--seeds`` it makes a share, beside another process.

MobileNetV1 (short) 1.5x-1x on Fashion-MNIST: the same images, views, batch, learning rate and
steps for every switch; nothing is tuned for any of them. Figures are those of the extracted 1x net:
kNN and a linear probe with labelled training images, on validation images that pretraining has not
seen; the penalty of the probe is chosen on others. Test images are not opened. Two slim nets are a
default of their own for the weights per width.

Cost of a step: all switches in turn in one process with one thread, as the median of the paired
ratios to the default, on the clock and in CPU time. A late start is timed after its start.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from paired import conditions, in_turn, ratio

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.images import to_model_input
from edgessl.cost.training import Passes
from edgessl.data.decode import prepare
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.evaluation.knn import knn_predict
from edgessl.evaluation.linear import fit_probe
from edgessl.evaluation.outputs import outputs
from edgessl.methods import METHODS
from edgessl.methods.base import Method, Schedule
from edgessl.slimming.extract import extract
from edgessl.slimming.sliced import recalibrate
from edgessl.stages.assignment import Pool
from edgessl.stages.networks import net_spec
from edgessl.stages.pretrain import build_method, make_plan, view_loss
from edgessl.stages.recipes import validated
from edgessl.training.loop import Job, train
from edgessl.training.update import backward, make_optimizer

ENCODER, SIDE, BATCH, RATE, LABEL = "mobilenet_v1_short", 20, 128, 2e-3, "1x"
BANK, CHOOSE, JUDGE = 5_000, 1_000, 4_000  # labelled, for the probe's penalty, for the figures
OPTIONS = {"projector": [512, 512, 512], "lam": 0.01, "scale_loss": 0.1}
QUIET = Reporter(quiet=True)
DEFAULT, PAIR = "default", "two slim nets"


@dataclass(frozen=True, slots=True)
class Switch:
    """What differs from the default.

    Attributes:
        options: Of the method.
        method: Its name.
        width: Of the encoder.
        bn: Of the encoder.
        local: Local crops.
        against: The row that it differs from in one thing.
    """

    options: dict[str, Any] = field(default_factory=dict)
    method: str = "sacl-xd"
    width: str = "1.5x-1x"
    bn: str = "switch"
    local: int = 0
    against: str = DEFAULT


TWO = "1.5x-1x-0.5x"
SWITCHES = {
    DEFAULT: Switch(),
    "sacl": Switch(method="sacl"),
    "bn shared": Switch(bn="shared"),
    "alpha 0.9": Switch({"alpha": 0.9}),
    "alpha 0.99": Switch({"alpha": 0.99}),
    "selector l1_group": Switch({"selector": "l1_group"}),
    "route alternate": Switch({"route": "alternate"}),
    "route random": Switch({"route": "random"}),
    "slim_start_epoch 1": Switch({"slim_start_epoch": 1}),
    "frozen_source ema": Switch({"frozen_source": "ema"}),
    "frozen_bn running": Switch({"frozen_bn": "running"}),
    "xd_combine additive": Switch({"xd_combine": "additive"}),
    "xd_loss nll, additive": Switch(
        {"xd_loss": "nll", "xd_combine": "additive"}, against="xd_combine additive"
    ),
    "local crops 2": Switch(local=2),
    PAIR: Switch(width=TWO),
    "width_weights 3:1": Switch({"width_weights": [3, 1]}, width=TWO, against=PAIR),
}


class Study:
    """Images in their roles, and the rows that are done.

    Args:
        out: Folder of the rows.
        images: To pretrain on.
        epochs: Of every training.
    """

    def __init__(self, out: Path, images: int, epochs: int) -> None:
        self.out, self.epochs, self.spec = out, epochs, InputSpec.square(SIDE)
        out.mkdir(parents=True, exist_ok=True)
        source = open_source("fashion-mnist:train")
        order = np.random.default_rng(0).permutation(len(source))
        ends = np.cumsum([images, CHOOSE, JUDGE])
        roles: dict[str, Any] = dict(
            zip(("pool", "choose", "judge"), np.split(order, ends), strict=False)
        )
        roles["bank"] = roles["pool"][:BANK]
        found = {name: prepare(source, rows, self.spec) for name, rows in roles.items()}
        self.images = {name: split.images for name, split in found.items()}
        self.labels = {name: np.asarray(split.labels) for name, split in found.items()}
        self.pool = Pool(self.images["pool"], (), "")

    def recipe(self, switch: Switch, seed: int) -> Any:
        """The recipe of one training."""
        views = {"preset": "moco_v2", "crop_scale": [0.4, 1.0], "flip": 0.5, "local": switch.local}
        return validated({
            "seed": seed,
            "data": {"imgsz": SIDE},
            "encoder": {"name": ENCODER, "width": switch.width, "bn": switch.bn},
            "pretrain": {
                "method": switch.method, "options": OPTIONS | switch.options, "views": views,
                "epochs": self.epochs, "batch": BATCH, "learning_rate": RATE,
            },
        })  # fmt: skip

    def built(self, recipe: Any) -> tuple[Method, Any]:
        """A fresh method, and its loss over random views."""
        method, _ = build_method(recipe)
        method = method.to(memory_format=torch.channels_last).train()
        return method, view_loss(recipe, self.spec, self.pool, torch.device("cpu"))

    def trained(self, switch: Switch, seed: int) -> dict[str, Any]:
        """Pretrain and judge the 1x net."""
        recipe = self.recipe(switch, seed)
        method, loss = self.built(recipe)
        plan, overlaps = make_plan(recipe, len(self.pool.images)), []

        def after_step(step: int) -> None:
            told = method.after_step(step)
            if told:
                overlaps.append(told["overlap"][LABEL])

        train(Job(method, loss, plan, "t", begin=method.begin, after_step=after_step), QUIET)
        images = self.images["pool"]
        parts = [images[i : i + 256] for i in range(0, min(len(images), 25_600) - 255, 256)]
        batches = (torch.from_numpy(to_model_input(part, self.spec)) for part in parts)
        recalibrate(method.encoder, LABEL, batches)
        net = extract(ENCODERS.load(ENCODER), net_spec(recipe), method.encoder, LABEL)
        row = {"seed": seed, "steps": plan.steps, "top1": self.scores(net)}
        return row | ({"overlaps": overlaps} if overlaps else {})

    def scores(self, net: torch.nn.Module) -> dict[str, float]:
        """Top-1 on the validation images, in percent."""
        f = {role: outputs(net, self.images[role], self.spec) for role in self.images
             if role != "pool"}  # fmt: skip
        y = self.labels
        probe = fit_probe((f["bank"], y["bank"]), (f["choose"], y["choose"]))
        said = {
            "knn": knn_predict(f["bank"], y["bank"], f["judge"], classes=10),
            "linear": probe.logits(f["judge"]).argmax(1),
        }
        return {name: round(100 * float((s == y["judge"]).mean()), 3) for name, s in said.items()}

    def row(self, name: str, make: Any) -> dict[str, Any]:
        """Make a row, or read it if it is there."""
        path = self.out / f"{name.replace(' ', '-').replace(':', '-')}.json"
        if not path.is_file():
            made = make()
            path.write_text(json.dumps(made | {"row": name}, indent=1) + "\n", "utf-8")
            print(name, made.get("top1", ""), flush=True)
        return json.loads(path.read_text("utf-8"))


def costs(study: Study, turns: int) -> dict[str, Any]:
    """Time the steps of all switches in turn."""
    steps, units = {}, {}
    for name, switch in SWITCHES.items():
        recipe = study.recipe(switch, 0)
        method, loss = study.built(recipe)
        plan = make_plan(recipe, len(study.pool.images))
        optimizer = make_optimizer(method, plan, 1e-6)
        begun = plan.steps_per_epoch * (study.epochs - 1)  # after every late start
        method.begin(Schedule(plan.steps, plan.steps_per_epoch, begun, optimizer))
        passes = method.options.passes(Passes.of(METHODS[switch.method].facts))  # type: ignore[union-attr]
        slims = len(method.encoder.labels)
        units[name] = replace(passes, local=3 * switch.local).text(slims)

        def step(
            method: Any = method, loss: Any = loss, optimizer: Any = optimizer, at: int = begun + 1
        ) -> None:
            backward(optimizer, loss(method, np.arange(BATCH), 0))
            optimizer.step()
            method.after_step(at)

        steps[name] = step
    times = in_turn(steps, turns)
    return {
        "turns": turns,
        "conditions": conditions(),
        "steps": {
            name: ratio(times, name, SWITCHES[name].against) | {"units": units[name]}
            for name in SWITCHES
        },
    }


def collected(study: Study, seeds: list[int]) -> dict[str, Any]:
    """All rows that are there, with differences seed by seed."""
    rows = {path.stem: json.loads(path.read_text("utf-8")) for path in study.out.glob("*.json")}
    runs = {r["row"]: r for r in rows.values() if "top1" in r}
    table = []
    for name, switch in SWITCHES.items():
        done = [s for s in seeds if f"{name} {s}" in runs and f"{switch.against} {s}" in runs]
        row: dict[str, Any] = {"switch": name, "against": switch.against, "seeds": done}
        for protocol in ("knn", "linear") if done else ():
            own = [runs[f"{name} {s}"]["top1"][protocol] for s in done]
            other = [runs[f"{switch.against} {s}"]["top1"][protocol] for s in done]
            row[protocol] = own
            row[f"{protocol}_mean"] = round(fmean(own), 3)
            row[f"{protocol}_difference"] = [
                round(a - b, 3) for a, b in zip(own, other, strict=True)
            ]
        table.append(row)
    return {
        "conditions": conditions() | {
            "encoder": ENCODER, "imgsz": SIDE, "batch": BATCH, "learning_rate": RATE,
            "pretraining_images": len(study.pool.images), "epochs": study.epochs,
            "labelled_images": BANK, "validation_images": JUDGE, "options": OPTIONS,
        },
        "table": table,
        "cost": rows.get("cost"),
        "rows": [r for r in rows.values() if "top1" in r],
    }  # fmt: skip


def main() -> None:
    """Run, or collect what was run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--images", type=int, default=12_800, help="to pretrain on")
    parser.add_argument("--epochs", type=int, default=4, help="at least 2")
    parser.add_argument("--turns", type=int, default=15, help="of the timing")
    parser.add_argument("--collect", type=Path, help="write what is there to this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(asked.out, asked.images, asked.epochs)
    if asked.collect:
        body = json.dumps(collected(study, asked.seeds), indent=1)
        asked.collect.write_text(body + "\n", "utf-8")
        return
    study.row("cost", lambda: costs(study, asked.turns))
    for seed in asked.seeds:
        for name, switch in SWITCHES.items():
            study.row(f"{name} {seed}", lambda w=switch, s=seed: study.trained(w, s))


if __name__ == "__main__":
    main()

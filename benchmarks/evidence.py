"""What each method is worth on Fashion-MNIST, at equal epochs and at equal measured cost.

    python benchmarks/evidence.py --out runs/evidence
    python benchmarks/evidence.py --out runs/evidence --collect benchmarks/results/evidence.json

It goes on where it stopped, and a second process with the same folder takes a share.

Every method pretrains the same MobileNetV1 (short) on the same images with the same views, batch
and optimiser; only the loss differs, and for SACL and SACL+XD the 1x net is a slice of a 1.5x host.
The learning rate is the one choice: four per method and larger ones while the largest wins, in
short trainings with a seed of their own, judged by a linear probe on validation images. Test
images are used once.

Equal cost: the step of every method is timed, all in turn, in CPU seconds of one thread; each
method then gets the whole number of epochs that comes nearest to the time of Barlow Twins. With
``--device cuda`` the seconds are those of the clock.

Longer: Barlow Twins and SACL+XD once more with three times the epochs, equal and at equal cost,
as a gain may need time.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import Diverged
from edgessl.core.images import to_model_input
from edgessl.data.decode import prepare
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.evaluation.knn import knn_predict
from edgessl.evaluation.linear import fit_probe, pixels
from edgessl.evaluation.outputs import outputs
from edgessl.slimming.extract import extract
from edgessl.slimming.sliced import recalibrate
from edgessl.stages.assignment import Pool
from edgessl.stages.networks import net_spec
from edgessl.stages.pretrain import build_method, make_plan, view_loss
from edgessl.stages.recipes import validated
from edgessl.training.loop import Job, train
from edgessl.training.update import backward, make_optimizer

ENCODER, SIDE, BATCH = "mobilenet_v1_short", 20, 128
POOL, BANK, CHOOSE, EPOCHS, LONGER = 20_480, 10_000, 2_000, 4, 12
CHOICE_IMAGES, CHOICE_EPOCHS = 5_120, 5
RATES = (2e-3, 4e-3, 8e-3, 16e-3)
CHOICE_SEED, DRAWS, BUDGETS = 1000, 5, (10, 100)
BARLOW = {"projector": [512, 512, 512], "lam": 0.01, "scale_loss": 0.1}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("1x", {"projector": [512, 128], "temperature": 0.5}),
    "moco-v2": ("1x", {"projector": [512, 128], "queue": 4096, "momentum": 0.99}),
    "barlow": ("1x", BARLOW),
    "xd": ("1x", BARLOW | {"alpha": 0.95}),
    "sacl": ("1.5x-1x", BARLOW),
    "sacl-xd": ("1.5x-1x", BARLOW | {"alpha": 0.95}),
}
REFERENCE = "barlow"  # whose time the others get
NEARLY = 0.1  # so much more or less cost is taken for equal
TRAINED_LONGER = ("barlow", "sacl-xd")
QUIET = Reporter(quiet=True)


class Study:
    """Images in their roles, and the rows that are done.

    Args:
        out: Folder of the rows.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, out: Path, device: str) -> None:
        self.out, self.device = out, torch.device(device)
        out.mkdir(parents=True, exist_ok=True)
        self.spec = InputSpec.square(SIDE)
        learn = prepare(open_source("fashion-mnist:train"), None, self.spec)
        test = prepare(open_source("fashion-mnist:test"), None, self.spec)
        order = np.random.default_rng(0).permutation(len(learn.images))
        part = {"pool": order[:POOL], "bank": order[:BANK], "choose": order[POOL:][:CHOOSE]}
        self.images = {name: learn.images[rows] for name, rows in part.items()}
        self.labels = {name: learn.labels[rows] for name, rows in part.items()}
        self.images["test"], self.labels["test"] = test.images, test.labels
        self.pool = Pool(self.images["pool"], (), "")

    def recipe(self, method: str, rate: float, epochs: float, seed: int) -> Any:
        """The recipe of one training."""
        width, options = METHODS[method]
        section = {
            "method": method, "options": options, "epochs": max(1, round(epochs)), "batch": BATCH,
            "learning_rate": rate,
            "views": {"preset": "moco_v2", "crop_scale": [0.4, 1.0], "flip": 0.5},
        }  # fmt: skip
        encoder = {"name": ENCODER, "width": width}
        return validated(
            {"encoder": encoder, "data": {"imgsz": SIDE}, "pretrain": section, "seed": seed}
        )

    def built(self, recipe: Any) -> Any:
        """Fresh weights on the device."""
        method, _ = build_method(recipe)
        return method.to(self.device).to(memory_format=torch.channels_last)

    def trained(self, recipe: Any, images: int = POOL) -> tuple[Any, float, int]:
        """Pretrain; return the 1x net, the seconds that it took, and the steps."""
        method = self.built(recipe)
        pool = Pool(self.pool.images[:images], (), "")
        loss = view_loss(recipe, self.spec, pool, self.device)
        plan = make_plan(recipe, images)
        start = seconds(self.device)
        train(Job(method, loss, plan, "evidence", begin=method.begin,
                  after_step=method.after_step), QUIET)  # fmt: skip
        return self.plain(recipe, method), seconds(self.device) - start, plan.steps

    def plain(self, recipe: Any, method: Any) -> torch.nn.Module:
        """The 1x net with statistics of unaugmented images, as it would be deployed."""
        net, label = method.encoder, method.encoder.labels[-1]
        images = self.images["pool"]
        parts = [images[i : i + 256] for i in range(0, 100 * 256, 256) if i + 256 <= len(images)]
        batches = (torch.from_numpy(to_model_input(p, self.spec)).to(self.device) for p in parts)
        recalibrate(net, label, batches)
        net.cpu()
        return extract(ENCODERS.load(ENCODER), net_spec(recipe), net, label)

    def features(self, network: torch.nn.Module | None, role: str) -> np.ndarray:
        """Features of the images of a role; pixels without a network."""
        if network is None:
            return pixels(self.images[role])
        return outputs(network, self.images[role], self.spec)

    def choice_score(self, network: torch.nn.Module) -> float:
        """Linear probe on the bank, accuracy on validation images."""
        bank, choose = self.features(network, "bank"), self.features(network, "choose")
        labels = self.labels
        return fit_probe((bank, labels["bank"]), (choose, labels["choose"])).validation_accuracy

    def scores(self, network: torch.nn.Module | None) -> dict[str, float]:
        """Top-1 on the test images, in percent, by protocol."""
        f = {role: self.features(network, role) for role in ("bank", "choose", "test")}
        y = self.labels
        near = knn_predict(f["bank"], y["bank"], f["test"], classes=10)
        found = {"knn": near, "linear": self._probe(f, np.arange(BANK))}
        top1 = {name: 100 * float((said == y["test"]).mean()) for name, said in found.items()}
        for budget in BUDGETS:
            draws = [self._probe(f, rows) for rows in drawn(y["bank"], budget)]
            top1[f"linear_{budget}_per_class"] = float(
                np.mean([100 * (said == y["test"]).mean() for said in draws])
            )
        return {name: round(value, 3) for name, value in top1.items()}

    def _probe(self, f: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        y = self.labels
        probe = fit_probe((f["bank"][rows], y["bank"][rows]), (f["choose"], y["choose"]))
        return probe.logits(f["test"]).argmax(1)

    def row(self, name: str, make: Any, wait: bool = True) -> dict[str, Any]:
        """Make a row, or read it if it is there; nothing while another process makes it.

        ``wait`` waits for that process.
        """
        path = self.out / f"{name}.json"
        with (self.out / f"{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return {}
            if not path.is_file():
                made = make()
                path.write_text(json.dumps(made | {"row": name}, indent=1) + "\n", "utf-8")
                print(name, made, flush=True)
        return json.loads(path.read_text("utf-8"))


def drawn(labels: np.ndarray, per_class: int) -> list[np.ndarray]:
    """The same few labels for every kind of features: rows of the bank, by draw."""
    draws = []
    for draw in range(DRAWS):
        order = np.random.default_rng([per_class, draw]).permutation(len(labels))
        rows = [order[labels[order] == c][:per_class] for c in range(10)]
        draws.append(np.sort(np.concatenate(rows)))
    return draws


def seconds(device: torch.device) -> float:
    """CPU seconds of this process, or those of the clock where a GPU works."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_seconds(study: Study, rounds: int = 24) -> dict[str, float]:
    """Median seconds of a step of every method, all of them in turn."""
    runs = {}
    for name in METHODS:
        recipe = study.recipe(name, 1e-6, 1, 0)
        method = study.built(recipe).train()
        loss = view_loss(recipe, study.spec, study.pool, study.device)
        runs[name] = (method, loss, make_optimizer(method, make_plan(recipe, POOL)))
    took: dict[str, list[float]] = {name: [] for name in METHODS}
    for turn in range(rounds + 2):
        for name, (method, loss, optimizer) in runs.items():
            start = seconds(study.device)
            backward(optimizer, loss(method, np.arange(turn * BATCH, (turn + 1) * BATCH), 0))
            optimizer.step()
            method.after_step(turn + 1)
            took[name].append(seconds(study.device) - start)
    return {name: median(values[2:]) for name, values in took.items()}


def chosen_rate(study: Study, method: str) -> dict[str, Any]:
    """The learning rate with the best probe on validation images, and all scores.

    Twice the largest rate is tried too while the largest is the best.
    """
    scores: dict[str, float | None] = {}
    rates = list(RATES)
    for rate in rates:
        recipe = study.recipe(method, rate, CHOICE_EPOCHS, CHOICE_SEED)
        try:
            network, _, _ = study.trained(recipe, images=CHOICE_IMAGES)
        except Diverged:
            scores[f"{rate:g}"] = None
        else:
            scores[f"{rate:g}"] = round(study.choice_score(network), 5)
        best = float(max(scores, key=lambda r: scores[r] or 0.0))
        if best == rate == rates[-1]:
            rates.append(2 * rate)
    return {"rate": best, "validation": scores}


def measure(study: Study, seeds: list[int]) -> None:
    """Make every row that is not there yet and that no other process is making."""
    step = study.row("step_seconds", lambda: step_seconds(study))
    study.row("pixels", lambda: {"method": "pixels", "top1": study.scores(None)})
    for wait in (False, True):
        choices = {
            m: study.row(f"choice-{m}", lambda m=m: chosen_rate(study, m), wait) for m in METHODS
        }

    def one(method: str, epochs: float, seed: int) -> dict[str, Any]:
        recipe = study.recipe(method, choices[method]["rate"], epochs, seed)
        network, took, steps = study.trained(recipe)
        about = {"method": method, "seed": seed, "epochs": recipe.pretrain.epochs, "steps": steps}
        return about | {"seconds": round(took, 1), "top1": study.scores(network)}

    def untrained(seed: int) -> dict[str, Any]:
        recipe = study.recipe("barlow", 1e-3, 1, seed)
        network = study.plain(recipe, study.built(recipe))
        return {"method": "random", "seed": seed, "top1": study.scores(network)}

    def both(kinds: tuple[str, str], methods: Iterable[str], epochs: int) -> None:
        for seed in seeds:
            for m in methods:
                same = round(epochs * step[REFERENCE] / step[m])
                rows = {kinds[0]: epochs, kinds[1]: same}
                if abs(same - epochs) <= NEARLY * epochs:  # its row at equal epochs is both
                    del rows[kinds[1]]
                for kind, n in rows.items():
                    study.row(f"{kind}-{m}-{seed}", lambda m=m, n=n, s=seed: one(m, n, s), False)

    for seed in seeds:
        study.row(f"random-{seed}", lambda seed=seed: untrained(seed), wait=False)
    both(("epochs", "cost"), METHODS, EPOCHS)
    both(("longer", "longercost"), TRAINED_LONGER, LONGER)


def collected(out: Path, device: str) -> dict[str, Any]:
    """All rows with the conditions that they were made under."""
    conditions = {
        "encoder": ENCODER, "imgsz": SIDE, "batch": BATCH, "pretraining_images": POOL,
        "labelled_images": BANK, "validation_images": CHOOSE, "test_images": 10_000,
        "epochs": EPOCHS, "longer": LONGER,
        "choice_images": CHOICE_IMAGES, "choice_epochs": CHOICE_EPOCHS,
        "learning_rates": RATES, "options": METHODS, "draws": DRAWS,
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "threads": 1, "cores": os.cpu_count(), "torch": torch.__version__,
        "seconds": "clock" if device == "cuda" else "CPU seconds of one thread",
        "processes": "two side by side, one core each",
    }  # fmt: skip
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*.json"))]
    return {"conditions": conditions, "rows": rows}


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Run, or collect what was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--collect", type=Path, help="write what is there to this file")
    asked = parser.parse_args()
    if asked.collect:
        asked.collect.write_text(json.dumps(collected(asked.out, asked.device), indent=1) + "\n")
        return
    torch.set_num_threads(1)
    measure(Study(asked.out, asked.device), asked.seeds)


if __name__ == "__main__":
    main()

"""Every method without a teacher: cut at any step and resumed, it ends with the same bits."""

import numpy as np
import pytest
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.data.decode import prepare_storage
from edgessl.data.sources import open_source
from edgessl.methods import METHODS
from edgessl.stages.assignment import Pool
from edgessl.stages.pretrain import build_method, make_plan, view_loss
from edgessl.stages.recipes import validated
from edgessl.training.loop import Job, train

QUIET = Reporter(quiet=True)
SPEC = InputSpec.square(16)
# a queue that no batch divides; schedules that move at every step
OPTIONS = {
    "moco-v2": {"queue": 41, "shuffle_bn": 3},
    "light-moco": {"queue": 41, "ramp": True, "symmetric": True},
    "ssl-small": {"queue": 41, "shuffle_bn": 3},
    "byol": {"momentum": 0.5, "predictor": 16},
}
ALONE = [name for name in METHODS if METHODS.load(name).teacher_kind in ("none", "optional")]


class Cut(BaseException):
    """Not an Exception: as little chance to clean up as a test can give."""


@pytest.fixture(scope="module")
def digits():
    stored = prepare_storage(open_source("digits"), SPEC.resize, np.arange(64))
    return Pool(stored.images, (), "", labels=stored.labels)


def recipe(name):
    has_projector = METHODS.load(name).Options().projector
    options = {"projector": [16, 16]} if has_projector else {}
    width = "0.5x-0.25x" if "host_units" in METHODS[name].facts else "0.25x"
    return validated({
        "encoder": {"name": "mobilenet_v1_short", "width": width},
        "data": {"imgsz": 16},
        "pretrain": {
            "method": name, "options": options | OPTIONS.get(name, {}),
            "views": {"preset": "moco_v2"}, "batch": 16, "epochs": 2,
        },
    })  # fmt: skip


def run(name, pool, folder, *, cut_after=None, spoiled=False):
    """Train 8 steps with the recipe's views; ``spoiled``: from a state that must not be used."""
    use = recipe(name)
    method, _ = build_method(use, classes=10)
    if spoiled:
        for tensor in method.state_dict().values():
            tensor.fill_(1)
    labels = pool.labels if method.uses_labels else None
    images = Pool(pool.images, (), "", labels=labels)

    def after_step(done):
        told = method.after_step(done)
        if done == cut_after:
            raise Cut
        return told

    job = Job(method, view_loss(use, SPEC, images, torch.device("cpu")),
              make_plan(use, len(pool.images)), "t", folder, save_every_s=1e-9,
              begin=method.begin, after_step=after_step)  # fmt: skip
    train(job, QUIET)
    return method.state_dict()


@pytest.mark.parametrize("name", ALONE)
def test_a_cut_and_resumed_pretraining_has_the_same_bits(name, digits, tmp_path):
    whole = run(name, digits, tmp_path / "whole")
    with pytest.raises(Cut):
        run(name, digits, tmp_path / "cut", cut_after=6)  # of two epochs with 4 steps each
    resumed = run(name, digits, tmp_path / "cut", spoiled=True)
    assert resumed.keys() == whole.keys()
    assert [n for n, tensor in whole.items() if not torch.equal(tensor, resumed[n])] == []

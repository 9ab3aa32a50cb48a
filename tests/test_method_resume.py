"""Every method: cut at any step and resumed, it ends with the same bits."""

import numpy as np
import pytest
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.data.decode import prepare_storage
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import write_tensors
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
    "seed": {"queue": 41},
    "disco": {"queue": 41, "shuffle_bn": 3, "teacher_bn": "batch"},
    "rekd-style": {"queue": 41, "shuffle_bn": 3, "prototypes": 5, "relation_from": 1},
    "oss-style": {"prototypes": 5},
}
SHORT = "mobilenet_v1_short"


class Cut(BaseException):
    """Not an Exception: as little chance to clean up as a test can give."""


@pytest.fixture(scope="module")
def digits():
    stored = prepare_storage(open_source("digits"), SPEC.resize, np.arange(64))
    return Pool(stored.images, (), "", labels=stored.labels)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A trained teacher, as far as a recipe can tell."""
    path = tmp_path_factory.mktemp("teacher") / "net.safetensors"
    write_tensors(path, ENCODERS.load(SHORT).network(1.0, classes=None, seed=4).state_dict())
    return path


def recipe(name, weights):
    kind = METHODS.load(name)
    teacher = {"frozen": f"{SHORT}={weights}", "online": f"{SHORT}@0.5x"}.get(kind.teacher_kind)
    has_projector = kind.Options().projector
    options = {"projector": [16, 16]} if has_projector else {}
    width = "0.5x-0.25x" if "host_units" in METHODS[name].facts else "0.25x"
    return validated({
        "encoder": {"name": SHORT, "width": width},
        "data": {"imgsz": 16},
        "pretrain": {
            "method": name, "options": options | OPTIONS.get(name, {}),
            "views": {"preset": "moco_v2"}, "batch": 16, "epochs": 2, "teacher": teacher,
        },
    })  # fmt: skip


def run(use, pool, folder, *, cut_after=None, spoiled=False):
    """Train 8 steps with the recipe's views; ``spoiled``: from a state that must not be used."""
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


@pytest.mark.parametrize("name", list(METHODS))
def test_a_cut_and_resumed_pretraining_has_the_same_bits(name, digits, weights, tmp_path):
    use = recipe(name, weights)
    whole = run(use, digits, tmp_path / "whole")
    with pytest.raises(Cut):
        run(use, digits, tmp_path / "cut", cut_after=6)  # of two epochs with 4 steps each
    resumed = run(use, digits, tmp_path / "cut", spoiled=True)
    assert resumed.keys() == whole.keys()
    assert [n for n, tensor in whole.items() if not torch.equal(tensor, resumed[n])] == []

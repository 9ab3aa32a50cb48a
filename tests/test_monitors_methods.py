"""Every method can be watched with all monitors, and takes the same steps when it is."""

import json
import math

import numpy as np
import pytest
import torch

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.data.decode import prepare_storage
from edgessl.data.sources import open_source
from edgessl.data.views import Views, view_specs
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Teacher
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.stages.watch import Looker, make_taught
from edgessl.training.loop import Job, Watch, train
from edgessl.training.plan import Plan

QUIET = Reporter(quiet=True)
SPEC = InputSpec.square(16)
SHORT = "mobilenet_v1_short"
# terms whose gradients reach the encoder, beside the passes of a host and a slim net
TERMS = {
    "sacl-xd": ["sacl / xd"],
    "xd": ["sacl / xd"],
    "disco": ["contrast / distillation"],
    "oss-style": ["student / domain"],
    "rekd-style": ["student / relation"],
}


@pytest.fixture(scope="module")
def digits():
    stored = prepare_storage(open_source("digits"), SPEC.resize, np.arange(64))
    return stored.images, stored.labels


def build(name):
    architecture, kind = ENCODERS.load(SHORT), METHODS.load(name)
    slims = "host_units" in METHODS[name].facts
    net = build_sliced(
        architecture, NetSpec(SHORT, 0.375 if slims else 0.25, (0.25,), "small"), seed=1
    )
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    teacher = None
    if kind.teacher_kind in ("frozen", "online"):
        network = architecture.network(0.5, classes=None, stem="small", seed=5)
        teacher = Teacher(network, architecture.feature_size(0.5), None, "teacher")
    wanted = {
        "projector": (16, 16) if kind.Options().projector else (), "queue": 32, "relation_from": 1,
    }  # fmt: skip
    options = {n: value for n, value in wanted.items() if n in kind.Options.model_fields}
    torch.manual_seed(2)
    parts = Parts(net, features, teacher, classes=10, seed=5, feature_group=group)
    return kind(parts, kind.Options(**options))


def run(name, digits, folder, *, watched):
    images, labels = digits
    method = build(name)
    views = Views(view_specs("moco_v2", 16, flip=0)[: method.views], SPEC.mean, SPEC.std, 0)
    stored, known = torch.from_numpy(images), torch.from_numpy(labels)

    def loss(module, indices, epoch):
        rows = torch.from_numpy(indices)
        made = views(stored[rows], indices, epoch)
        return module(made, known[rows]) if module.uses_labels else module(made)

    taught = make_taught(method, np.arange(64), images, views, loss)
    looker = Looker(method, images, labels, SPEC, 16, QUIET, taught)
    plan = Plan(64, 16, 2, 1e-3)
    train(
        Job(
            method, loss, plan, "t", folder, begin=method.begin, after_step=method.after_step,
            watch=Watch(looker, collapse="off") if watched else None,
        ), QUIET,
    )  # fmt: skip
    return method, torch.get_rng_state()


@pytest.mark.parametrize("name", tuple(METHODS))
def test_every_method_is_watched_without_a_trace(name, digits, tmp_path):
    watched, random = run(name, digits, tmp_path / "watched", watched=True)
    alone, unwatched = run(name, digits, tmp_path / "alone", watched=False)
    assert torch.equal(random, unwatched)
    without = alone.state_dict()
    assert all(torch.equal(tensor, without[n]) for n, tensor in watched.state_dict().items())

    rows = [json.loads(line) for line in (tmp_path / "watched/monitor.jsonl").open()]
    assert [row["step"] for row in rows] == [0, 4, 8]
    slims = [] if watched.encoder.is_dense else list(watched.encoder.labels)
    nets = ["host"] * bool(slims) + list(watched.encoder.labels)
    for row in rows:
        assert row["viewed"] == 32
        assert list(row["alpha_req"]) == nets
        for key in ("view_retrieval", "correlation_diagonal", "correlation_off_diagonal"):
            assert list(row[key]) == nets + [f"host-{slim}" for slim in slims]
        assert list(row["same_view_diagonal"]) == slims
        assert list(row["gradient_cosine"]) == list(row["gradient_norm_ratio"])
        for value in (*row["gradient_cosine"].values(), *row["correlation_diagonal"].values()):
            assert -1 <= value <= 1
        assert all(math.isfinite(r) and r >= 0 for r in row["gradient_norm_ratio"].values())
    # before the first step a queue may be empty: without keys a contrast has no gradient
    pairs = [f"host / {slim}" for slim in slims] + TERMS.get(name, [])
    assert all(list(row["gradient_cosine"]) == pairs for row in rows[1:])
    assert set(rows[0]["gradient_cosine"]) <= set(pairs)

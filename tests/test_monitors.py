"""Monitors: hand-computed figures, runs made to collapse, and a watched run changes no bit."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import Collapsed, Diverged
from edgessl.core.recipe import Recipe
from edgessl.data.decode import prepare_storage
from edgessl.data.sources import open_source
from edgessl.evaluation.monitors import (
    Figures,
    agreement,
    collapse_alarm,
    embedding_std,
    neighbour_top1,
)
from edgessl.evaluation.spectrum import rankme
from edgessl.slimming.sliced import HOST
from edgessl.stages.assignment import Pool
from edgessl.stages.pretrain import build_method, make_plan, make_views, view_loss
from edgessl.stages.watch import EPOCH, Looker, Taught, as_deployed, make_taught
from edgessl.training.loop import Job, Watch, train

QUIET = Reporter(quiet=True)
SPEC = InputSpec.square(16)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    prepared = prepare_storage(open_source("digits"), SPEC.resize, np.arange(256))
    return prepared.images, prepared.labels


def recipe(**pretrain):
    section = {
        "options": {"projector": [64, 64], "lam": 0.01}, "batch": 64, "epochs": 2,
        "views": {"preset": "moco_v2", "flip": 0},
    } | pretrain  # fmt: skip
    dense = section.get("method") in ("barlow", "moco-v2")
    encoder = {"name": "mobilenet_v1_short", "width": "0.25x" if dense else "0.5x-0.25x"}
    return Recipe.model_validate({"encoder": encoder, "pretrain": section})


def looker(method, recipe, images, labels, loss):
    taught = make_taught(
        method, np.arange(0, len(images), 2), images, make_views(recipe, SPEC), loss
    )
    return Looker(method, as_deployed(images, SPEC), labels, SPEC, 64, QUIET, taught)


def run(recipe, images, labels, *, method=None, watched=True, folder=None, **job):
    method = method or build_method(recipe)[0]
    loss = view_loss(recipe, SPEC, Pool(images, (), ""), CPU)
    look = looker(method, recipe, images, labels, loss)
    watch = Watch(look, collapse="stop") if watched else None
    plan = make_plan(recipe, len(images))
    train(Job(method, loss, plan, "t", folder, watch=watch, **job), QUIET)
    return method


def orthogonal(n, d, rank, seed=0):
    """n unit rows that spread evenly over the first ``rank`` of d turned axes."""
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(d, d)))
    z = np.zeros((n, d))
    z[np.arange(n), np.arange(n) % rank] = random.choice([-1.0, 1.0], n)
    return (z @ turn).astype(np.float32)


@pytest.mark.parametrize(("n", "d", "rank"), [(64, 16, 16), (64, 16, 4), (16, 64, 16), (8, 8, 1)])
def test_the_rank_of_equal_singular_values_is_their_number(n, d, rank):
    z = orthogonal(n, d, rank)
    assert rankme(z) == pytest.approx(rank, rel=1e-3)
    assert rankme(7 * z) == pytest.approx(rank, rel=1e-3)


def test_the_rank_of_known_singular_values():
    """Singular values 3 and 1: p = 3/4, 1/4; exp(entropy) = 4 / 3^(3/4)."""
    z = np.diag([3.0, 1.0]).astype(np.float32)
    assert rankme(z) == pytest.approx(4 / 3**0.75, rel=1e-5)
    assert rankme(np.zeros((4, 3), np.float32)) == 1.0


def test_the_spread_of_even_directions_is_one_and_of_one_direction_zero():
    corners = np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)
    assert embedding_std(corners) == pytest.approx(1.0)
    assert embedding_std(5 * np.ones((16, 8), np.float32)) == pytest.approx(0, abs=1e-7)
    # unit rows at +-t about one axis: std sin(t) in one of two dimensions, times sqrt(2)
    t = 0.3
    rows = np.array([[math.cos(t), math.sin(t)], [math.cos(t), -math.sin(t)]], np.float32)
    assert embedding_std(rows) == pytest.approx(math.sin(t) / 2 * math.sqrt(2))
    # what the spread does not see, the rank does
    flat = orthogonal(256, 64, 4)
    assert embedding_std(flat) > 0.8
    assert rankme(flat) == pytest.approx(4, rel=1e-3)


def test_neighbours_leave_the_image_itself_out():
    """Pairs of near twins of different class: with itself 100 %, without 0 %."""
    far = np.repeat(np.eye(20), 2, 0)
    z = (far + 0.01 * np.eye(40, 20, k=1)).astype(np.float32)
    labels = np.tile([0, 1], 20)
    assert neighbour_top1(z, labels) == pytest.approx(0.0)
    assert neighbour_top1(z, np.repeat(np.arange(20), 2)) == pytest.approx(1.0)
    hidden = np.where(np.arange(40) < 10, labels, -1)
    assert neighbour_top1(z, hidden) is None  # ten labels say nothing
    assert neighbour_top1(z, np.zeros(40, np.int64)) is None  # nor does one class


def test_agreement_counts_equal_nearest_neighbours():
    a = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], np.float32)
    b = a[:, ::-1] * 3  # mirrored: the same neighbours
    assert agreement(a, b) == 1.0
    c = a[[0, 2, 1, 3]]  # image 0 is now nearest to 2, 1 to 3
    assert agreement(a, c) == 0.0


def test_the_alarm_bounds():
    def alarm(std, rank, most=256):
        return collapse_alarm({"1x": Figures(rank, 50.0, 1.5, std, None, most)})

    assert alarm(0.80, 2.8) is None
    assert alarm(0.96, 2.2, most=16) is None
    assert alarm(0.9, 1.5, most=4) is None
    assert "all images get nearly the same one (std 0.140" in alarm(0.14, 41.0)
    assert "one dimension (effective rank 1.58 of 256" in alarm(0.9, 1.58)


class Collapsing(nn.Module):
    """Invariance without anything against collapse; ``kind`` says which."""

    least_std = 0.25

    def __init__(self, method, kind):
        super().__init__()
        self.encoder, self.projector, self.kind = method.encoder, method.projector, kind

    def forward(self, views):
        slim = self.encoder.labels[0]
        a, b = (
            self.projector(self.encoder(x, width=w), width=w)
            for x, w in zip(views, (HOST, slim), strict=True)
        )
        if self.kind == "directions":
            return {"total": 2 - 2 * F.cosine_similarity(a, b).mean()}
        # every dimension is drawn to the mean of all, and standardised so that none can vanish
        a, b = ((z - z.mean(0)) / (z.std(0) + 1e-3) for z in (a, b))
        return {"total": sum((z - z.mean(1, keepdim=True)).square().mean() for z in (a, b))}

    def after_step(self, step):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [("directions", "nearly the same one"), ("dimensions", "to one dimension")],
)
def test_a_run_that_collapses_is_stopped_and_saved(digits, tmp_path, kind, says):
    wanted = recipe(epochs=6, learning_rate=2e-2, options={"projector": [32, 32]})
    method = Collapsing(build_method(wanted)[0], kind)
    with pytest.raises(Collapsed, match=says) as caught:
        run(wanted, *digits, method=method, folder=tmp_path)
    assert caught.value.exit_code == 1
    assert "lower pretrain.learning_rate" in caught.value.hint
    rows = [json.loads(line) for line in (tmp_path / "monitor.jsonl").open()]
    assert [bool(row["alarm"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    state = json.loads((tmp_path / "last/state.json").read_text())
    assert state["step"] == rows[-1]["step"] < 6 * 4


def test_the_last_look_stops_too(digits, tmp_path):
    """A collapsed net is not handed on; the saved state is that of the last step."""
    same = np.repeat(digits[0][:1], 256, 0)
    wanted = recipe(epochs=1)
    with pytest.raises(Collapsed, match="after epoch 1 of 1"):
        run(wanted, same, digits[1], folder=tmp_path)
    state = json.loads((tmp_path / "last/state.json").read_text())
    assert state["step"] == 4


def test_images_that_are_all_the_same_raise_the_alarm(digits, tmp_path):
    same = np.repeat(digits[0][:1], 256, 0)
    with pytest.raises(Collapsed, match=r"std 0\.000"):
        run(recipe(), same, digits[1], folder=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"method": "barlow"}, {"options": {"projector": [256, 8], "lam": 0.01}},
        {"optimizer": "lars", "learning_rate": 0.3},
        {"method": "moco-v2", "options": {"projector": [64, 64], "queue": 128}},
        {"method": "sacl"},
    ],
    ids=["sacl-xd", "barlow", "narrow", "lars", "moco-v2", "sacl"],
)  # fmt: skip
def test_a_healthy_run_raises_none_and_no_bit_of_it_depends_on_being_watched(
    digits, tmp_path, changes
):
    wanted = recipe(**changes)
    random = torch.get_rng_state()
    watched = run(wanted, *digits, folder=tmp_path / "a").state_dict()
    alone = run(wanted, *digits, watched=False, folder=tmp_path / "b").state_dict()
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(tensor, alone[name]) for name, tensor in watched.items())
    rows = [json.loads(line) for line in (tmp_path / "a/monitor.jsonl").open()]
    assert [row["step"] for row in rows] == [0, 4, 8]
    assert all(row["alarm"] is None for row in rows)
    method = changes.get("method", "sacl-xd")
    nets, slims = (
        (["host", "0.25x"], ["0.25x"]) if method in ("sacl", "sacl-xd") else (["0.25x"], [])
    )
    pairs = ["host / 0.25x"] * bool(slims) + ["sacl / xd"] * (method == "sacl-xd")
    for row in rows:
        for name in ("rankme", "rankme_features", "alpha_req", "std", "knn"):
            assert list(row[name]) == nets
        for name in ("agreement", "same_view_diagonal"):
            assert list(row[name]) == slims
        for name in ("view_retrieval", "correlation_diagonal", "correlation_off_diagonal"):
            assert list(row[name]) == nets + ["host-0.25x"] * bool(slims)
        assert list(row["gradient_cosine"]) == list(row["gradient_norm_ratio"]) == pairs
        assert row["view_retrieval_chance"] == pytest.approx(1 / row["viewed"], abs=1e-4)
    assert not (tmp_path / "b/monitor.jsonl").exists()


def test_every_look_sees_the_same_views_and_training_none_of_them(digits):
    wanted, seen = recipe(), []
    method = build_method(wanted)[0]
    loss = view_loss(wanted, SPEC, Pool(digits[0], (), ""), CPU)
    look = looker(method, wanted, *digits, loss)
    draw = look.taught.views

    def keep(rows, epoch):
        seen.append((epoch, draw(rows, epoch)))
        return seen[-1][1]

    look.taught = Taught(look.taught.rows, keep, loss)
    assert look(warm=False) == look(warm=False)
    (epoch, first), (again, second) = seen
    assert epoch == again == EPOCH < 0  # training counts from 0
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], draw(look.taught.rows, 0)[0])


def test_of_a_method_that_takes_one_view_two_draws_are_compared(digits):
    wanted, epochs = recipe(), []
    method = build_method(wanted)[0]
    loss = view_loss(wanted, SPEC, Pool(digits[0], (), ""), CPU)
    look = looker(method, wanted, *digits, loss)
    two = look.taught.views

    def one(rows, epoch):
        epochs.append(epoch)
        return two(rows, epoch)[:1]

    look.taught = Taught(look.taught.rows, one, loss)
    row = look(warm=False)
    assert len(set(epochs)) == 2
    assert max(epochs) < 0
    assert row["correlation_diagonal"]["0.25x"] < 0.9  # that of a view with itself is 1


class Cut(BaseException):
    pass


def test_a_resumed_run_repeats_no_line(digits, tmp_path):
    wanted = recipe(epochs=3)

    def cut(done):
        if done == 7:
            raise Cut

    run(wanted, *digits, folder=tmp_path / "a")
    with pytest.raises(Cut):  # the state is that of step 0: the line of step 4 must go
        run(wanted, *digits, folder=tmp_path / "b", after_step=cut, save_every_s=1e9)
    assert len((tmp_path / "b/monitor.jsonl").read_text().splitlines()) == 2
    run(wanted, *digits, folder=tmp_path / "b")
    lines = [(tmp_path / name / "monitor.jsonl").read_text() for name in "ab"]
    assert lines[0] == lines[1]
    assert len(lines[0].splitlines()) == 4


def test_a_long_run_is_measured_at_most_twenty_times_unless_less_is_asked():
    plan = make_plan(recipe(epochs=100), 512)
    due = [s for s in range(1, plan.steps + 1) if Watch(None).is_due(s, plan)]
    assert due == [8 * e for e in range(5, 101, 5)]
    rare = [s for s in range(1, plan.steps + 1) if Watch(None, 30).is_due(s, plan)]
    assert rare == [240, 480, 720, 800]


def test_outputs_that_are_not_finite_are_told(digits):
    method = build_method(recipe())[0]
    with torch.no_grad():
        next(method.projector.parameters()).fill_(math.nan)
    looker = Looker(method, as_deployed(digits[0][:64], SPEC), digits[1][:64], SPEC, 64, QUIET)
    with pytest.raises(Diverged, match="not finite"):
        looker(warm=True)

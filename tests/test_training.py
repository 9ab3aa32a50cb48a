"""The loop: plans, exact resume after kills, budgets, and what it refuses (small real nets)."""

import json
import math
import os
import signal
import time
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, Diverged, FileInvalid, Interrupted, OutOfMemory
from edgessl.training import checkpoints
from edgessl.training.budget import Hooks, StepSeconds, cut, fit_to_budget
from edgessl.training.loop import Job, train
from edgessl.training.optimizers import LarsSettings, make_optimizer
from edgessl.training.plan import Plan

QUIET = Reporter(quiet=True)
X = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 4


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 4),
    )  # fmt: skip
    return net.to(memory_format=torch.channels_last)


def loss(module, indices, epoch):
    i = torch.from_numpy(indices)
    return {"total": nn.functional.cross_entropy(module(X[i] * (1 + 0.1 * epoch)), Y[i])}


def plan(**changes):
    values = {"items": 40, "batch": 8, "epochs": 4, "learning_rate": 0.01} | changes
    return Plan(**values)


def same(a, b):
    return all(torch.equal(x, b[k]) for k, x in a.items())


class Cut(BaseException):
    """Not an Exception: as little chance to clean up as a test can give."""


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "sgd"])
@pytest.mark.parametrize("at", [1, 7, 19])
def test_a_cut_and_resumed_run_has_the_same_bits(tmp_path, optimizer, at):
    whole = network()
    train(Job(whole, loss, plan(optimizer=optimizer), "t", tmp_path / "a"), QUIET)

    def cut(done):
        if done == at:
            raise Cut

    job = Job(network(), loss, plan(optimizer=optimizer), "t", tmp_path / "b",
              save_every_s=1e-9, after_step=cut)  # fmt: skip
    with pytest.raises(Cut):
        train(job, QUIET)
    resumed = network(seed=9)  # other weights: all must come from the state
    train(Job(resumed, loss, plan(optimizer=optimizer), "t", tmp_path / "b"), QUIET)
    assert same(whole.state_dict(), resumed.state_dict())
    rows = [[json.loads(x) for x in (tmp_path / f / "metrics.jsonl").open()] for f in "ab"]
    assert [(r["step"], r["loss"]) for r in rows[0]] == [(r["step"], r["loss"]) for r in rows[1]]


def test_a_signal_saves_and_leaves(tmp_path):
    calls = 0

    def signalled(module, indices, epoch):
        nonlocal calls
        calls += 1
        if calls == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(module, indices, epoch)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="state is saved") as caught:
        train(Job(network(), signalled, plan(epochs=100), "t", tmp_path), QUIET)
    assert caught.value.exit_code == 130
    step, facts = checkpoints.read_facts(tmp_path / "last")
    assert step == 20
    assert facts["plan"]["epochs"] == 100
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_the_newest_state_is_kept_and_a_torn_save_is_harmless(tmp_path, monkeypatch):
    net = network()
    optimizer = make_optimizer(net, "adamw", lr=0.1, weight_decay=0.0)
    checkpoints.save_state(tmp_path, 1, net, optimizer, {})
    checkpoints.save_state(tmp_path, 2, net, optimizer, {})
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["state-00000002.safetensors"]

    def die(*_):
        raise Cut

    monkeypatch.setattr(checkpoints.files, "write_json", die)
    with pytest.raises(Cut):
        checkpoints.save_state(tmp_path, 3, net, optimizer, {})
    assert checkpoints.read_facts(tmp_path)[0] == 2
    checkpoints.load_state(tmp_path, network(seed=1), optimizer)


def test_a_damaged_state_is_refused(tmp_path):
    train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)
    (path,) = (tmp_path / "last").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileInvalid, match="changed or cut after it was saved"):
        train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)
    path.write_bytes(data[:50])
    with pytest.raises(FileInvalid, match="changed or cut after it was saved"):
        train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)


def test_a_state_of_another_recipe_is_refused_by_name(tmp_path):
    train(Job(network(), loss, plan(epochs=1), "t", tmp_path, {"seed": 1}), QUIET)
    with pytest.raises(FileInvalid, match="seed was 1, is 2"):
        train(Job(network(), loss, plan(epochs=1), "t", tmp_path, {"seed": 2}), QUIET)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def bad(module, indices, epoch):
        return {"total": loss(module, indices, epoch)["total"] * (math.nan if epoch else 1.0)}

    with pytest.raises(Diverged, match="became nan at step 5"):
        train(Job(network(), bad, plan(), "t", tmp_path, save_every_s=1e-9), QUIET)
    # saved after the last good step, not in the middle of the bad one
    assert checkpoints.read_facts(tmp_path / "last")[0] == 5


@pytest.mark.parametrize(("items", "batch"), [(3, 2), (7, 3), (9, 8), (2, 64), (5, 2)])
def test_no_batch_is_a_single_image(items, batch):
    p = plan(items=items, batch=batch, drop_last=False)
    sizes = [len(p.batch_indices(s)) for s in range(p.steps_per_epoch)]
    assert sum(sizes) == items
    assert min(sizes) >= 2


def test_a_plan_survives_being_saved():
    p = plan(optimizer="lars", lars=LarsSettings(flavour="official", eta=0.001, clip=False))
    assert Plan.from_dict(json.loads(json.dumps(asdict(p)))) == p
    assert Plan.from_dict(asdict(plan())) == plan()


def test_the_rate_of_vectors_follows_the_schedule_at_its_own_size():
    """Without clip and decay the first update of a vector is -lr(0) * mult * gradient."""
    updates = []
    for mult in (1.0, 0.25):
        net, start = network().double(), network().double().state_dict()
        lars = LarsSettings(clip=False, bias_lr_mult=mult)
        p = plan(items=8, epochs=1, optimizer="lars", lars=lars)
        train(Job(net, lambda m, i, _: loss_double(m, i), p, "t"), QUIET)
        end = dict(net.named_parameters())
        updates.append({name: value - start[name] for name, value in end.items()})
    for name, whole in updates[0].items():
        share = 0.25 if whole.ndim == 1 else 1.0
        torch.testing.assert_close(updates[1][name], share * whole)
        assert whole.abs().max() > 0


def loss_double(module, indices):
    i = torch.from_numpy(indices)
    return {"total": nn.functional.cross_entropy(module(X[i].double()), Y[i])}


@pytest.mark.parametrize("text", ["[]", '{"kind": "training-state", "schema": 1, "step": "x"}'])
def test_a_garbled_state_file_is_refused(tmp_path, text):
    train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)
    (tmp_path / "last/state.json").write_text(text)
    with pytest.raises(FileInvalid, match=r"state\.json"):
        train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)


def test_gradients_that_are_not_finite_stop_the_run_before_they_do_harm(tmp_path):
    """The loss is finite where its slope is not: sqrt at 0."""

    def steep(module, indices, epoch):
        total = loss(module, indices, epoch)["total"]
        return {"total": total + (total - total.detach() + (0.0 if epoch else 1.0)).sqrt()}

    with pytest.raises(Diverged, match="norm of the gradients became nan at step 5"):
        train(Job(network(), steep, plan(), "t", tmp_path, save_every_s=1e-9), QUIET)
    assert checkpoints.read_facts(tmp_path / "last")[0] == 5
    net = network(seed=1)
    checkpoints.load_state(
        tmp_path / "last", net, make_optimizer(net, "adamw", lr=1, weight_decay=0)
    )
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_state_with_weights_that_are_not_finite_is_not_saved(tmp_path):
    net = network()

    def spoil(done):
        if done == 7:
            with torch.no_grad():
                net[0].weight[0] = math.inf

    job = Job(net, loss, plan(), "t", tmp_path, save_every_s=1e-9, after_step=spoil)
    with pytest.raises(Diverged, match=r"0\.weight is no longer finite after step 7"):
        train(job, QUIET)
    assert checkpoints.read_facts(tmp_path / "last")[0] == 6


def test_a_failed_allocation_is_told_and_the_saved_state_stays(tmp_path):
    def starved(module, indices, epoch):
        if epoch:
            torch.empty(1 << 62, dtype=torch.uint8)
        return loss(module, indices, epoch)

    with pytest.raises(OutOfMemory, match="out of memory") as caught:
        train(Job(network(), starved, plan(), "t", tmp_path, save_every_s=1e-9), QUIET)
    assert "smaller batch" in caught.value.hint
    assert checkpoints.read_facts(tmp_path / "last")[0] == 5
    train(Job(network(), loss, plan(), "t", tmp_path), QUIET)


def test_a_state_that_was_being_discarded_is_no_state(tmp_path):
    train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)
    (path,) = (tmp_path / "last").glob("*.safetensors")
    path.unlink()  # killed between the two files
    assert checkpoints.read_facts(tmp_path / "last") is None
    train(Job(network(), loss, plan(epochs=1), "t", tmp_path), QUIET)
    checkpoints.discard(tmp_path / "last")
    assert not (tmp_path / "last").exists()


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_visits_every_item_once(drop_last):
    p = plan(items=43, drop_last=drop_last)
    assert p.steps_per_epoch == (5 if drop_last else 6)
    for epoch in range(2):
        seen = np.concatenate(
            [p.batch_indices(epoch * p.steps_per_epoch + s) for s in range(p.steps_per_epoch)]
        )
        assert len(set(seen.tolist())) == len(seen) == (40 if drop_last else 43)
        sizes = {len(p.batch_indices(s)) for s in range(p.steps_per_epoch)}
        assert max(sizes) - min(sizes) <= 1
    assert not np.array_equal(p.batch_indices(0), p.batch_indices(p.steps_per_epoch))


def test_the_schedule_warms_up_linearly_and_ends_near_zero():
    p = plan(epochs=20, learning_rate=1.0, warmup=0.1)
    rates = [p.lr(s) for s in range(p.steps)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert max(rates) == 1.0
    assert rates[10 + 45] == pytest.approx(0.5)
    assert rates[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_a_budget_cuts_epochs_once_and_touches_nothing():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    shorter, seconds = fit_to_budget(plan(epochs=10_000), net, loss, 1.0)
    assert 1 <= shorter.epochs < 10_000
    assert seconds > 0
    assert same(before, net.state_dict())
    assert fit_to_budget(plan(epochs=1), net, loss, 1e9)[0].epochs == 1


class Slow(nn.Linear):
    """Takes ten times as long in its first two epochs, of ten steps each."""

    seconds, begun, steps = 0.002, 0, 0

    def begin(self, schedule):
        self.begun += 1
        self.seconds = 0.02 if schedule.done < 20 else 0.002

    def after_step(self, step):
        self.steps = step


def test_a_budget_counts_dear_first_epochs_apart_on_a_copy():
    def waits(net, indices, epoch):
        time.sleep(net.seconds)
        return {"total": net(torch.ones(len(indices), 2)).sum()}

    net = Slow(2, 1)
    wanted = Plan(items=100, batch=10, epochs=40, learning_rate=0.1)
    hooks = Hooks(net.begin, net.after_step, early_epochs=2)
    found, seconds = fit_to_budget(wanted, net, waits, 1e9, hooks)
    assert found.epochs == 40
    assert seconds >= 10 * (2 * 0.02 + 38 * 0.002)
    assert (net.begun, net.steps) == (0, 0)


def test_first_epochs_may_use_up_a_budget():
    wanted = Plan(items=100, batch=10, epochs=40, learning_rate=0.1)
    dear = StepSeconds(0.002, early=0.02, early_epochs=2)  # 0.2 s each, then 0.02 s
    assert dear.of(wanted) == pytest.approx(2 * 0.2 + 38 * 0.02)
    assert cut(wanted, dear, 0.505).epochs == 7
    assert cut(wanted, dear, 0.3).epochs == 1
    assert cut(wanted, StepSeconds(0.002), 0.505).epochs == 25


def test_too_few_images_are_refused():
    with pytest.raises(DataInvalid, match="fewer than one batch"):
        train(Job(network(), loss, plan(batch=64), "t"), QUIET)

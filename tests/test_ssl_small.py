"""SSL-Small: MoCo-v2 when its settings are set back, and its warm start with SEED (float64)."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgessl.core.console import Reporter
from edgessl.core.errors import RecipeInvalid
from edgessl.data.view_specs import PRESETS
from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Schedule, Teacher
from edgessl.slimming.extract import NetSpec, build_sliced
from edgessl.training.loop import Job, train
from edgessl.training.plan import Plan

SHORT = "mobilenet_v1_short"
QUIET = Reporter(quiet=True)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def teacher():
    torch.manual_seed(7)
    network = ENCODERS.load(SHORT).network(0.5, classes=None, seed=7)
    features = ENCODERS.load(SHORT).feature_size(0.5)
    return Teacher(network, features, nn.Linear(features, 10), "a trained net")


def made(name, *, taught=False, **options):
    """A float64 method in training mode, of equal weights whatever the method."""
    architecture = ENCODERS.load(SHORT)
    sliced = build_sliced(architecture, NetSpec(SHORT, 0.25, (0.25,), "small", "switch"), seed=1)
    group = architecture.feature_group(sliced.host)
    features = {label: slim.plan.groups[group] for label, slim in sliced.slims.items()}
    kind = METHODS.load(name)
    torch.manual_seed(2)
    chosen = kind.Options(**{"projector": (12, 6), "queue": 20} | options)
    parts = Parts(sliced, features, teacher() if taught else None)
    return kind(parts, chosen).double().train()


def warmed(**options):
    return made("ssl-small", taught=True, init="seed", **{"warm_epochs": 2} | options)


def views(step=0):
    return [normal(8, 3, 12, 12, seed=10 * step + side) for side in (1, 2)]


def trained(method, steps, first=0):
    """Losses of some steps with plain gradient descent."""
    losses = []
    for step in range(first, first + steps):
        total = method(views(step)[: method.views])["total"]
        method.zero_grad(set_to_none=True)
        total.backward()
        with torch.no_grad():
            for p in method.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
        method.after_step(step + 1)
        losses.append(total.detach())
    return losses


def test_with_its_settings_set_back_it_is_moco_v2():
    small, moco = made("ssl-small", temperature=0.2), made("moco-v2")
    torch.testing.assert_close(trained(small, 3), trained(moco, 3), rtol=1e-12, atol=0)
    theirs = moco.state_dict()
    for name, tensor in small.state_dict().items():
        other = theirs[name.replace("head.", "projector.")]
        torch.testing.assert_close(tensor, other, rtol=1e-9, atol=1e-12)
    ours, weaker = PRESETS["ssl_small"], PRESETS["moco_v2"]
    back = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "gray": 0.2}
    assert tuple(replace(spec, **back) for spec in ours) == weaker


def test_its_views_are_those_of_the_paper():
    for view in PRESETS["ssl_small"]:
        assert (view.crop_scale, view.flip, view.blur, view.gray) == ((0.2, 1.0), 0.5, 0.5, 0.5)
        strengths = (view.jitter, view.brightness, view.contrast, view.saturation, view.hue)
        assert strengths == (0.8, 0.8, 0.8, 0.8, 0.4)


def test_the_warm_start_is_seed():
    """Equal losses, weights and codes in the queue, step by step."""
    small, seed = warmed(), made("seed", taught=True, queue=20)
    seed.projector.load_state_dict(small.warm.projector.state_dict())
    small.begin(Schedule(12, 3))
    assert small.projector is small.warm.projector  # what the monitors look at
    torch.testing.assert_close(trained(small, 6), trained(seed, 6), rtol=1e-10, atol=0)
    for ours, theirs in ((small.encoder, seed.encoder), (small.warm.queue, seed.queue)):
        for mine, other in zip(
            ours.state_dict().values(), theirs.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_after_the_warm_start_it_is_moco_v2_from_where_the_encoder_came_to():
    small, moco = warmed(), made("ssl-small")
    head = {name: tensor.clone() for name, tensor in small.head.state_dict().items()}
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1, momentum=0.9)
    parameter = next(small.encoder.parameters())
    optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    small.begin(Schedule(12, 3, optimizer=optimizer))
    trained(small, 6)
    assert not optimizer.state  # a new training begins
    assert small.projector is small.head
    for name, tensor in small.head.state_dict().items():
        assert torch.equal(tensor, head[name])
        assert torch.equal(tensor, small.keys.projector.state_dict()[name])
    ours, theirs = small.encoder.parameters(), small.keys.encoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert int(small.keys.queue.pointer) == 0

    for part in ("encoder", "head", "keys"):
        getattr(moco, part).load_state_dict(getattr(small, part).state_dict())
    moco.begin(Schedule(12, 3, done=6))
    frozen = {name: tensor.clone() for name, tensor in small.warm.state_dict().items()}
    losses = trained(small, 3, first=6)
    torch.testing.assert_close(losses, trained(moco, 3, first=6), rtol=1e-10, atol=0)
    assert all(torch.equal(t, frozen[name]) for name, t in small.warm.state_dict().items())


def test_the_passes_of_both_parts():
    """In a warm start one of the student with gradient and one of the teacher, then 3 + 1."""
    small = warmed()
    small.begin(Schedule(12, 3))
    seen = []
    small.encoder.host.register_forward_hook(lambda *_: seen.append("student"))
    small.keys.encoder.host.register_forward_hook(lambda *_: seen.append("key"))
    small.warm.teacher._network.register_forward_hook(lambda *_: seen.append("teacher"))
    terms = small(views())
    assert (terms.keys(), seen) == ({"seed", "total"}, ["student", "teacher"])
    seen.clear()
    small.begin(Schedule(12, 3, done=6))
    terms = small(views())
    assert (terms.keys(), seen) == ({"total"}, ["student", "key", "key"])  # two groups of keys


@pytest.mark.parametrize("at", [3, 6, 7])
def test_it_resumes_bit_for_bit_on_both_sides_of_the_switch(at, tmp_path):
    """Steps 1 to 6 are SEED; a state is saved after every step."""

    class Cut(BaseException):
        pass

    def run(method, folder, cut_after=None):
        method = method.float()
        x = torch.cat([normal(24, 3, 12, 12, seed=s) for s in (1, 2)]).float()

        def loss(module, indices, _epoch):
            rows = torch.from_numpy(indices)
            return module([x[rows], x[rows + 24]])

        def after_step(done):
            told = method.after_step(done)
            if done == cut_after:
                raise Cut
            return told

        plan = Plan(24, 8, 3, 0.01)
        job = Job(method, loss, plan, "t", folder, save_every_s=1e-9, begin=method.begin,
                  after_step=after_step)  # fmt: skip
        train(job, QUIET)
        return method.state_dict()

    whole = run(warmed(), tmp_path / "whole")
    with pytest.raises(Cut):
        run(warmed(), tmp_path / "cut", cut_after=at)
    other = warmed()
    for tensor in other.state_dict().values():
        tensor.fill_(1)
    resumed = run(other, tmp_path / "cut")
    assert [n for n, tensor in whole.items() if not torch.equal(tensor, resumed[n])] == []
    assert not [name for name in whole if "teacher" in name]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(RecipeInvalid, match="init is random"):
        made("ssl-small", taught=True)
    with pytest.raises(RecipeInvalid, match="'ssl-small' learns from a trained teacher"):
        made("ssl-small", init="seed")
    with pytest.raises(RecipeInvalid, match=r"warm_epochs is 4, but the training has 4 epochs"):
        warmed(warm_epochs=4).begin(Schedule(12, 3))

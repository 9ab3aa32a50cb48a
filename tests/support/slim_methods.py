"""Small float64 methods with a host and slim nets, and how to train them by hand."""

import torch

from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS
from edgessl.methods.base import Parts, Schedule
from edgessl.slimming.extract import NetSpec, build_sliced

SHORT = "mobilenet_v1_short"
SLIM, DENSE = (0.375, (0.25,)), (0.25, (0.25,))
TWO = (0.375, (0.25, 0.125))


def method(name="sacl-xd", widths=SLIM, bn="switch", **options):
    """In training mode; equal widths give equal weights whatever the method."""
    architecture = ENCODERS.load(SHORT)
    net = build_sliced(architecture, NetSpec(SHORT, *widths, "small", bn), seed=1)
    group = architecture.feature_group(net.host)
    features = {label: slim.plan.groups[group] for label, slim in net.slims.items()}
    kind = METHODS.load(name)
    torch.manual_seed(2)
    options = kind.Options(**({"projector": (24, 16)} | options))
    return kind(Parts(net, features, seed=5, feature_group=group), options).double().train()


def views(n=8, side=12, count=2, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)
        for _ in range(count)
    ]


def train(made, steps, optimizer, per_epoch=1, seen=None):
    """Take all steps of a training; notes of ``after_step`` by step."""
    made.begin(Schedule(steps, per_epoch, 0, optimizer))
    notes = {}
    for step in range(steps):
        optimizer.zero_grad()
        made(views(seed=10 + step))["total"].backward()
        optimizer.step()
        told = made.after_step(step + 1)
        if told:
            notes[step + 1] = told
        if seen is not None:
            seen(step + 1)
    return notes


def gradients(made, loss):
    """Gradients by name, zero where there is none."""
    parameters = {n: p for n, p in made.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(parameters.items(), found, strict=True)
    }

"""What a few measured steps tell: seconds, memory, and the conditions that they depend on."""

import pytest
import torch

from edgessl import api_light
from edgessl.cli.cost import text
from edgessl.core.console import Reporter
from edgessl.slimming.sliced import HOST, Sliced
from edgessl.stages.memory import PeakWatch, process_peak


def test_what_was_measured_stands_apart_with_its_conditions():
    changes = {
        "encoder.width": "0.25x", "data.imgsz": 16, "pretrain.method": "barlow",
        "pretrain.batch": 20, "pretrain.epochs": 3, "pretrain.options": {"projector": [8, 8]},
    }  # fmt: skip
    result = api_light.cost(
        changes, images=1000, measure=True, reporter=Reporter(quiet=True)
    ).result
    found = result["measured"]
    assert (result["kind"], found["kind"]) == ("computed", "measured")
    step, under, memory = found["step_s"], found["conditions"], found["memory_mb"]
    assert len(step["samples"]) == 8
    assert step["fastest"] <= step["median"] <= step["slowest"]
    assert found["run_hours"] == pytest.approx(step["median"] * 150 / 3600)
    assert (under["batch"], under["imgsz"], under["images"]) == (20, 16, "digits")
    assert under["threads"] >= 1
    assert memory["process_peak"] >= memory["process_before"] > 0
    assert "8 step(s) of 20 images of 16 px (digits)" in text(result)


def test_steps_are_those_of_the_last_epoch_and_of_the_first_ones(monkeypatch):
    """A slim net that starts late is timed, and so is the host alone, on both views."""
    seen = []
    forward = Sliced.forward

    def watched(net, x, *, width, frozen=False):
        seen.append(width)
        return forward(net, x, width=width, frozen=frozen)

    monkeypatch.setattr(Sliced, "forward", watched)
    changes = {
        "encoder.width": "0.5x-0.25x", "data.imgsz": 16, "pretrain.method": "sacl",
        "pretrain.batch": 20, "pretrain.epochs": 3,
        "pretrain.options": {"projector": [8, 8], "slim_start_epoch": 2},
    }  # fmt: skip
    found = api_light.cost(
        changes, images=1000, measure=True, reporter=Reporter(quiet=True)
    ).result["measured"]
    encoder = [width for width in seen if width in (HOST, "0.25x")]
    steps = encoder.count("0.25x")
    assert steps > 0
    assert encoder.count(HOST) == 3 * steps
    first, usual = found["first_epochs"], found["step_s"]["median"]
    assert first["epochs"] == 2
    assert found["run_hours"] == pytest.approx(50 * (2 * first["step_s"] + usual) / 3600)


def test_memory_is_what_was_in_use_within_the_block():
    with PeakWatch() as large:
        torch.ones(40_000_000).sum()  # 160 MB, gone at once
    with PeakWatch() as small:
        torch.ones(100).sum()
    assert large.peak.process - large.peak.process_before > 120e6
    if not small.peak.since_start:
        assert small.peak.process - small.peak.process_before < 80e6
    assert process_peak() >= large.peak.process  # a watch makes nobody else forget

"""The grid of untrained nets: right files, honest rows, and nothing that scores random weights."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="the grid is timed with ONNX Runtime")

from edgessl import api
from edgessl.core.artifact import InputSpec
from edgessl.core.errors import MeasurementNotValid, UsageProblem
from edgessl.core.images import to_model_input
from edgessl.core.measurement import BenchResult
from edgessl.devices import protocol
from edgessl.devices.protocol import Preset
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import load_model
from edgessl.stages.grid import cells_of
from edgessl.stages.untrained import _take_statistics

pytestmark = [pytest.mark.slow, pytest.mark.export]

NETS = (["mobilenet_v1_short"], [0.25, 0.5], [16, 24])


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocol.PRESETS, "quick", Preset("quick", 3, 0.02, 70, 0.1, ("p50", "p90")))
        settings = {"bench.profile_layers": True}
        return api.bench_untrained(*NETS, target="onnx", settings=settings, out=out), out


def test_every_configuration_has_a_row_with_the_costs_of_its_net(grid):
    outcome, out = grid
    rows = outcome.result["rows"]
    assert [(r["width"], r["imgsz"]) for r in rows] == [
        (0.25, 16),
        (0.25, 24),
        (0.5, 16),
        (0.5, 24),
    ]
    small, large, wide, _ = rows
    assert small["parameters"] == large["parameters"] < wide["parameters"]
    # convolutions cost by the pixels of their outputs: 16 and 24 px are 2 and 3 after stride 8
    assert large["macs"] == pytest.approx(small["macs"] * (24 / 16) ** 2, rel=0.01)
    for row in rows:
        assert row["p50"] > 0
        assert row["ci_low"] <= row["p50"] <= row["ci_high"]
        assert row["verdict"] in ("VALID", "BUSY", "UNSTABLE")
        result = BenchResult.model_validate(json.loads((out / row["result"]).read_text()))
        assert result.accuracy is None  # the digits have labels; random weights earn no score
        assert all(check.passed for check in result.parity)
        assert result.model["facts"]["untrained"] is True
    with (out / "grid.csv").open(newline="") as stream:
        assert [float(r["p50"]) for r in csv.DictReader(stream)] == [r["p50"] for r in rows]
    # the only errors are verdicts of a loaded test machine
    assert all(isinstance(error, MeasurementNotValid) for error in outcome.errors)


def test_a_grid_that_goes_on_keeps_what_was_measured(grid):
    outcome, out = grid
    before = [row["result"] for row in outcome.result["rows"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocol.PRESETS, "quick", Preset("quick", 3, 0.02, 70, 0.1, ("p50", "p90")))
        again = api.bench_untrained(
            ["mobilenet_v1_short"], [0.25, 0.5], [16], target="onnx", out=out, resume=True,
            settings={"bench.profile_layers": True, "bench.allow_unstable": True},
        )  # fmt: skip
    assert [row["result"] for row in again.result["rows"]] == [before[0], before[2]]


def test_activations_keep_their_size_through_a_net_that_learned_nothing():
    """With the statistics of a fresh net they fade by orders of magnitude on the way."""
    spec = InputSpec.square(64)
    pictures = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)
    x = to_model_input(pictures, spec)
    network = ENCODERS.load("efficientnet_b0").network(0.5, classes=None).eval()
    with torch.no_grad():
        fresh = float(network(torch.from_numpy(x)).std())
        _take_statistics(network, x)
        taken = float(network(torch.from_numpy(x)).std())
    assert fresh < 1e-3
    assert 0.1 < taken < 10


def test_the_net_of_a_row_loads_as_any_plain_net(grid):
    _, out = grid
    network, artifact = load_model(out / "untrained" / "mobilenet_v1_short-0.5x-24px")
    assert artifact.facts["untrained"] is True
    assert network(torch.zeros(1, 3, 24, 24)).shape == (1, artifact.facts["features"])


def test_the_profile_names_the_modules_of_the_net(grid):
    """ONNX Runtime fuses and renames; every convolution is still found in the PyTorch net."""
    outcome, out = grid
    network, _ = load_model(out / "untrained" / "mobilenet_v1_short-0.25x-16px")
    convolutions = {n for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)}
    folder = (out / outcome.result["rows"][0]["result"]).parent
    profile = json.loads((folder / "profile.json").read_text())
    seen = [row["module"] for row in profile["rows"] if row["op"] in ("Conv", "FusedConv")]
    assert len(seen) == len(set(seen)) == len(convolutions)
    assert set(seen) == convolutions
    assert sum(row["share"] for row in profile["rows"]) == pytest.approx(1)
    assert all(row["p50"] > 0 for row in profile["rows"])


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(UsageProblem, match="unknown encoder 'mobilenet_v9'"):
        cells_of(["mobilenet_v9"], [1.0], [64])
    with pytest.raises(UsageProblem, match="at least one"):
        cells_of(["mobilenet_v2"], [], [64])
    assert len(cells_of(["mobilenet_v2", "mobilenet_v2"], [1.0, 1.0], [64])) == 1

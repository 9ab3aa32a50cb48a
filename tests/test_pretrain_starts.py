"""Pretraining from random weights and from given ones: folders, facts, and what they share."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.errors import FileInvalid
from edgessl.core.files import sha256_file
from edgessl.encoders import ENCODERS
from edgessl.slimming.extract import largest_difference
from edgessl.stages.networks import load_host

QUIET = Reporter(quiet=True)
NAME = "mobilenet_v1_short"
SETTINGS = {
    "encoder.name": NAME, "encoder.width": "1.5x-1x", "data.imgsz": 16, "pretrain.batch": 256,
    "pretrain.epochs": 1, "pretrain.options": {"projector": [16, 16]},
    "pretrain.recalibrate_batches": 1,
}  # fmt: skip


def stock(path, seed):
    """Weights of the stock net, as a user has them: with a classifier."""
    network = ENCODERS.load(NAME).network(1.0, classes=7, seed=seed)
    save_file(dict(network.state_dict()), path)
    return path


def pretrain(out, **changes):
    return api.pretrain(settings=SETTINGS | changes, out=out, resume=out.exists(), reporter=QUIET)


def facts(folder):
    return json.loads((folder / "encoder.json").read_text())["facts"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run that began without weights and got them later."""
    folder = tmp_path_factory.mktemp("starts")
    pretrain(folder / "run")
    seal = json.loads((folder / "run/pretrain/encoder.json").read_text())["seal"]
    weights = stock(folder / "stock.safetensors", 5)
    outcome = pretrain(folder / "run", **{"encoder.weights": str(weights)})
    return folder / "run", weights, seal, outcome


def test_each_start_has_its_folder_and_says_where_it_came_from(both):
    run, weights, seal, outcome = both
    assert outcome.result["checkpoints"] == [str(run / "pretrain"), str(run / "pretrain-imagenet")]
    plain, warm = facts(run / "pretrain"), facts(run / "pretrain-imagenet")
    assert (plain["variant"], plain["weights"]) == ("sacl-xd", None)
    assert warm["variant"] == "imagenet+sacl-xd"
    assert warm["weights"] == {"where": str(weights), "sha256": sha256_file(weights)}
    # the finished one is kept when weights are named later
    assert json.loads((run / "pretrain/encoder.json").read_text())["seal"] == seal
    for folder in (run / "pretrain", run / "pretrain-imagenet"):
        assert (folder / "monitor.jsonl").is_file()
        assert load_host(folder).artifact.facts["variant"] == facts(folder)["variant"]


def test_the_slim_net_begins_at_the_weights(both, tmp_path):
    """With a rate of nothing it also ends there, but for its running statistics."""
    _, weights, _, _ = both
    changes = {"encoder.weights": str(weights), "pretrain.starts": ["weights"]}
    still = {"pretrain.optimizer": "sgd", "pretrain.learning_rate": 1e-30,
             "pretrain.weight_decay": 0.0}  # fmt: skip
    outcome = pretrain(tmp_path / "run", **changes, **still)
    (folder,) = outcome.result["checkpoints"]
    assert not (tmp_path / "run/pretrain").exists()
    slim = load_host(tmp_path / "run/pretrain-imagenet").plain("1x").state_dict()
    given = load_file(weights)
    for name, tensor in slim.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tensor, given[name], rtol=0, atol=1e-20), name
    assert folder.endswith("pretrain-imagenet")


def test_an_unfinished_pretraining_is_not_continued_from_other_weights(both, tmp_path):
    run, weights, _, _ = both
    copy, other = tmp_path / "run", stock(tmp_path / "other.safetensors", 6)
    shutil.copytree(run, copy)
    (copy / "pretrain-imagenet/stage.json").unlink()
    with pytest.raises(FileInvalid, match="weights was"):
        pretrain(copy, **{"encoder.weights": str(other)})
    pretrain(copy, **{"encoder.weights": str(weights)})
    assert facts(copy / "pretrain-imagenet") == facts(run / "pretrain-imagenet")


def test_a_finished_pretraining_from_other_weights_is_done_again(both, tmp_path):
    run, _, seal, _ = both
    copy, other = tmp_path / "run", stock(tmp_path / "other.safetensors", 6)
    shutil.copytree(run, copy)
    pretrain(copy, **{"encoder.weights": str(other)})
    assert facts(copy / "pretrain-imagenet")["weights"]["sha256"] == sha256_file(other)
    assert json.loads((copy / "pretrain/encoder.json").read_text())["seal"] == seal


def test_channels_chosen_among_the_weights_go_through_the_chain(tmp_path):
    """Rankings among published weights at a rate of nothing: a slice of the published net."""
    weights = stock(tmp_path / "stock.safetensors", 5)
    changes = {
        "encoder.weights": str(weights), "encoder.width": "1x-0.5x", "pretrain.epochs": 2,
        "pretrain.starts": ["weights"], "pretrain.optimizer": "sgd",
        "pretrain.learning_rate": 1e-30, "pretrain.weight_decay": 0.0,
        "pretrain.options": {"projector": [16, 16], "selector": "l1_group", "interval": 1,
                             "freeze_at": 1.0},
    }  # fmt: skip
    (folder,) = pretrain(tmp_path / "run", **changes).result["checkpoints"]
    host = load_host(Path(folder))
    plan, given = host.sliced.slims["0.5x"].plan, load_file(weights)
    assert not any(group.is_prefix for group in plan.groups.values())
    slim = host.plain("0.5x").state_dict()
    for name, tensor in slim.items():
        if "running" not in name and "num_batches" not in name:
            expected = plan.take(name, given[name])
            assert torch.allclose(tensor, expected, rtol=0, atol=1e-20), name
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").open()]
    overlaps = [(row["step"], row["overlap"]["0.5x"]) for row in rows if "overlap" in row]
    per_epoch = facts(Path(folder))["steps"] // 2
    assert overlaps == [(step, 1.0) for step in range(per_epoch, 2 * per_epoch + 1)]
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert largest_difference(host.plain("0.5x"), host.sliced, "0.5x", images) <= 1e-5

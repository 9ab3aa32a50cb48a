"""A dry run counts what the run would do, measures real steps and writes nothing."""

import json

import numpy as np
import pytest
import torch
from command_line import edgessl, settings
from PIL import Image

from edgessl import api
from edgessl.cli.dry_run import duration, text
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.recipe import Recipe
from edgessl.data.sources import ImageSet
from edgessl.stages.image_counts import count_images
from edgessl.stages.step_times import module_bytes
from edgessl.training.budget import StepSeconds, cut
from edgessl.training.plan import Plan

QUIET = Reporter(quiet=True)
TINY = {
    "data.imgsz": 16, "encoder.width": "0.5x-0.25x", "pretrain.batch": 128, "pretrain.epochs": 30,
    "pretrain.options": {"projector": [16, 16]}, "pretrain.max_seconds": None,
    "finetune.max_seconds": None, "finetune.epochs": 4, "evaluate.protocols": ["knn"],
    "export.targets": ["onnx"],
}  # fmt: skip


def source(n, classes=0):
    names = tuple(f"c{i}" for i in range(classes))
    return ImageSet("s", tuple(map(str, range(n))), None, np.arange(n) % max(1, classes), names)


def counts(named=None, pool=None, tested=None, **data):
    recipe = Recipe.model_validate({"data": {"labels": "digits"} | data, "labels": {"draws": 3}})
    return recipe, count_images(recipe, pool or named, named, tested)


def test_counts_follow_the_shares_of_the_recipe():
    _, c = counts(source(1000, 10))
    assert (c.train, c.validation, c.test, c.pool, c.folds) == (600, 150, 250, 600, None)
    _, c = counts(source(1000, 10), tested=77, test="other")
    assert (c.train, c.validation, c.test) == (850, 150, 77)
    recipe, c = counts(source(1000, 10), source(5000), unlabeled="more")
    assert c.pool == 4500  # a tenth is kept back, to prove quantised files on
    assert [c.labels_used(b) for b in (5, 100, None)] == [50, 600, 600]
    assert [c.rounds(recipe, b) for b in (5, None)] == [3, 1]


def test_few_labels_are_counted_in_folds():
    recipe, c = counts(source(100, 4))  # a test split would have 25 images
    assert (c.folds, c.train, c.test, c.pool) == (5, 80, 20, 100)
    assert c.labels_used(10) == 80
    assert c.rounds(recipe, 10) == 5 * 2


def test_epochs_are_cut_to_the_budget_and_never_to_none():
    plan = Plan(items=100, batch=10, epochs=20, learning_rate=1.0)
    assert cut(plan, StepSeconds(0.5), None) == plan
    assert cut(plan, StepSeconds(0.5), 100.0) == plan
    assert cut(plan, StepSeconds(0.5), 99.0).epochs == 19
    assert cut(plan, StepSeconds(0.5), 1.0).epochs == 1


@pytest.fixture(scope="module")
def tiny():
    return api.dry_run("quickstart", settings=TINY, reporter=QUIET).result


def test_every_stage_is_there_and_what_is_not_estimated_says_so(tiny):
    parts = {part["name"]: part for part in tiny["parts"]}
    assert list(parts) == [
        "open images", "pretrain", "evaluate", "finetune", "extract and export", "bench",
    ]  # fmt: skip
    assert parts["pretrain"]["note"] == "30 epochs of 8 steps"
    # scratch and sacl-xd: two rates on the first of five draws, the better one on four
    assert parts["finetune"]["note"] == "12 trainings"
    assert parts["extract and export"]["seconds"] is None
    assert "not estimated" in parts["extract and export"]["note"]
    known = [part["seconds"] for part in tiny["parts"] if part["seconds"] is not None]
    assert all(seconds > 0 for seconds in known)
    assert tiny["seconds"] == pytest.approx(sum(known), abs=0.1)
    assert tiny["warnings"] == []


def test_time_is_steps_times_the_measured_step(tiny):
    """And what monitors and recalibration take on top."""
    step_s = 1.1 * sum(tiny["step_ms"].values()) / 1e3
    (seconds,) = (part["seconds"] for part in tiny["parts"] if part["name"] == "pretrain")
    assert seconds > 0.99 * 240 * step_s
    assert tiny["measured_steps"] == {"pretraining": 8, "fine-tuning": 8}


def test_the_state_that_is_counted_is_the_state_that_is_saved(tiny, tmp_path):
    changes = TINY | {"pretrain.epochs": 1, "data.labels": "digits"}
    api.pretrain(settings=changes, out=tmp_path / "run", reporter=QUIET)
    (state,) = (tmp_path / "run/pretrain/last").glob("*.safetensors")
    encoder = tmp_path / "run/pretrain/encoder.safetensors"
    assert tiny["disk_mb"]["pretraining states"] == pytest.approx(
        state.stat().st_size / 1e6, rel=0.1, abs=0.1
    )
    assert tiny["disk_mb"]["encoders"] == pytest.approx(
        encoder.stat().st_size / 1e6, rel=0.1, abs=0.1
    )
    disk = dict(tiny["disk_mb"])
    assert disk.pop("free") > (total := disk.pop("total"))
    assert total == pytest.approx(sum(disk.values()), abs=0.4)


def test_the_bottleneck_is_the_largest_share_and_comes_with_a_suggestion(tiny):
    worst = tiny["bottleneck"]
    assert tiny["step_ms"][worst["part"]] == max(tiny["step_ms"].values())
    assert worst["share"] == pytest.approx(
        max(tiny["step_ms"].values()) / sum(tiny["step_ms"].values()), abs=1e-3
    )
    assert worst["suggestion"]


def test_a_budget_that_cuts_epochs_is_told(capsys):
    changes = TINY | {"pretrain.epochs": 100_000, "pretrain.max_seconds": 30}
    result = api.dry_run("quickstart", settings=changes, until="pretrain", reporter=QUIET).result
    (warning,) = result["warnings"]
    assert "cuts 100000 epochs to" in warning
    assert [part["name"] for part in result["parts"]] == ["open images", "pretrain"]
    assert warning in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path):
    changes = {k: json.dumps(v) for k, v in TINY.items() if k.startswith(("data", "pre"))}
    arguments = ("pretrain", "--dry-run", "--width", "0.5x-0.25x", *settings(changes))
    out, err = edgessl(*arguments, cwd=tmp_path)
    assert out.startswith("part")
    assert "30 epochs of 8 steps" in out
    assert "next: the same command without --dry-run" in err
    out, _ = edgessl("run", "quickstart", "--dry-run", "--until", "pretrain", "--json",
                     *settings(changes), cwd=tmp_path)  # fmt: skip
    assert json.loads(out)["result"]["bottleneck"]["suggestion"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_run_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataInvalid, match="fewer than one batch"):
        api.dry_run("quickstart", settings=TINY | {"pretrain.batch": 5000}, reporter=QUIET)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"{i}.png")
    values = {"data.unlabeled": str(folder), "data.labels": None, "pretrain.batch": 2}
    with pytest.raises(DataInvalid, match="only unlabeled ones") as caught:
        api.dry_run("quickstart", settings=TINY | values, reporter=QUIET)
    assert "--until pretrain" in caught.value.hint


def test_what_people_read(tiny):
    shown = text(tiny)
    for word in (
        "pretrain",
        "together",
        "memory: ",
        "disk: ",
        "to be faster: ",
        "8 of pretraining",
    ):
        assert word in shown
    assert [duration(s) for s in (3, 99, 100, 5400, 7200)] == [
        "3 s",
        "99 s",
        "2 min",
        "90 min",
        "2.0 h",
    ]


def test_the_size_of_a_module_is_that_of_its_tensors():
    layer = torch.nn.BatchNorm1d(10)  # 4 x 10 float32 and one int64 counter
    assert module_bytes(layer) == 4 * 10 * 4 + 8

"""Commands one after another, in one process: what they inherit, refuse and never mix up."""

import shutil

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, Diverged, FileInvalid, UsageProblem
from edgessl.core.ledger import Ledger
from edgessl.core.recipe_text import read_recipe_values

pytestmark = pytest.mark.slow
QUIET = Reporter(quiet=True)
TINY = {
    "data.imgsz": 16, "encoder.width": "0.5x-0.25x", "pretrain.epochs": 1, "pretrain.batch": 32,
    "pretrain.options": {"projector": [16, 16]}, "labels.per_class": 3, "labels.draws": 2,
    "finetune.epochs": 1, "finetune.learning_rates": [1e-3], "export.targets": ["onnx"],
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The first 300 digits of four classes as PNG files in class folders."""
    root = tmp_path_factory.mktemp("images") / "digits"
    data = load_digits(n_class=4)
    for i, (image, label) in enumerate(zip(data.images[:300], data.target[:300], strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).save(root / str(label) / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def pretrained(digits, tmp_path_factory):
    """A pretraining run on the training split of those digits."""
    out = tmp_path_factory.mktemp("runs") / "pretrain"
    return api.pretrain(settings=TINY | {"data.labels": str(digits)}, out=out, reporter=QUIET).run


def values(run, **wanted):
    return {row.id: row.value for row in Ledger.open(run).find(**wanted)}


def test_images_that_were_pretrained_on_are_never_measured_on(digits, tmp_path):
    settings = TINY | {"data.unlabeled": str(digits)}
    run = api.pretrain(settings=settings, out=tmp_path / "p", reporter=QUIET).run
    for command in (api.finetune, api.evaluate):
        with pytest.raises(DataInvalid, match="also in the pretraining images"):
            command(run, settings={"data.labels": str(digits)}, reporter=QUIET,
                    out=tmp_path / command.__name__)  # fmt: skip


def test_another_size_keeps_the_roles(pretrained, tmp_path):
    settings = {"data.imgsz": 24, "finetune.scratch": False}
    run = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    assert values(run, stage="finetune")


def test_a_changed_fine_tuning_starts_again_and_an_unchanged_one_is_kept(pretrained, tmp_path):
    out = tmp_path / "f"
    api.finetune(pretrained, out=out, reporter=QUIET)
    first = values(out, stage="finetune")
    api.finetune(pretrained, out=out, resume=True, reporter=QUIET)
    assert values(out, stage="finetune") == first
    changed = {"finetune.learning_rates": [3e-3], "finetune.epochs": 3, "labels.draws": 3}
    api.finetune(pretrained, settings=changed, out=out, resume=True, reporter=QUIET)
    again = api.finetune(pretrained, settings=changed, out=tmp_path / "g", reporter=QUIET).run
    assert values(out, stage="finetune") == values(again, stage="finetune")
    assert not (out / "finetune/training").exists()


def test_resuming_keeps_the_ledger_of_the_run_itself(pretrained, tmp_path):
    first = api.finetune(pretrained, out=tmp_path / "f", reporter=QUIET).run
    shutil.copytree(pretrained / "pretrain", first / "pretrain")  # a run with both stages
    changed = {"finetune.epochs": 4, "finetune.learning_rates": [1e-2]}
    second = api.finetune(first, settings=changed, out=tmp_path / "g", reporter=QUIET).run
    assert values(second, stage="finetune") != values(first, stage="finetune")
    before = Ledger.open(second).rows
    api.finetune(first, settings=changed, out=second, resume=True, reporter=QUIET)
    assert Ledger.open(second).rows == before


def test_a_refused_resume_changes_nothing(pretrained, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(pretrained, run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    for change in ({"pretrain.epochs": 7}, {"data.test_share": 0.4}, {"encoder.width": "0.25x"}):
        settings = TINY | {"data.labels": labels_of(run)} | change
        with pytest.raises(FileInvalid, match=next(iter(change)).split(".")[1]):
            api.pretrain(settings=settings, out=run, resume=True, reporter=QUIET)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def labels_of(run):
    return read_recipe_values(run / "recipe.yaml")["data"]["labels"]


def test_a_rate_that_diverges_loses_the_search_and_only_that(pretrained, tmp_path):
    settings = {"finetune.learning_rates": [1e25, 1e-3], "finetune.scratch": False}
    settings["finetune.epochs"] = 4  # the first step still has a finite loss
    run = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    notes = {row.note for row in Ledger.open(run).find(stage="finetune") if row.draw is not None}
    assert all("learning rate 0.001" in note for note in notes)
    with pytest.raises(Diverged, match="became"):
        api.finetune(
            pretrained, settings=settings | {"finetune.learning_rates": [1e25]},
            out=tmp_path / "g", reporter=QUIET,
        )  # fmt: skip


@pytest.mark.parametrize(
    "settings", [{"encoder.name": "mobilenet_v3_small"}, {"encoder.width": "1x"}]
)
def test_a_checkpoint_keeps_its_encoder(pretrained, tmp_path, settings):
    with pytest.raises(UsageProblem, match=r"has (name|width)"):
        api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET)
    assert not (tmp_path / "f").exists()


def test_bad_sources_and_budgets_cost_nothing(digits, tmp_path):
    few = TINY | {"data.labels": str(digits), "labels.per_class": 500}
    with pytest.raises(DataInvalid, match="500"):
        api.run("quickstart", settings=few, out=tmp_path / "a", reporter=QUIET)
    assert not (tmp_path / "a/pretrain").exists()  # found before the first stage
    missing = TINY | {"data.labels": str(tmp_path / "nowhere")}
    with pytest.raises(DataInvalid, match="nowhere"):
        api.pretrain(settings=missing, out=tmp_path / "b", reporter=QUIET)
    assert not (tmp_path / "b").exists()  # and the folder is still free


def test_an_embedding_model_is_proven_on_its_own_images_and_claims_no_accuracy(digits, tmp_path):
    settings = TINY | {"data.unlabeled": str(digits), "bench.allow_unstable": True}
    run = api.pretrain(settings=settings, out=tmp_path / "p", reporter=QUIET).run
    extracted = api.extract(run, out=tmp_path / "e", reporter=QUIET)
    assert extracted.result["equivalence"]["images"] == 256
    exported = api.export(extracted.run, out=tmp_path / "x", reporter=QUIET)
    (folder,) = (item["folder"] for item in exported.result["exports"].values())
    parity = exported.result["exports"]["0.25x-onnx-none"]["parity"]
    assert parity["images"]["split"] == "unlabeled"
    assert parity["checks"][0]["pass"]
    assert exported.errors == ()
    measured = api.bench([folder], out=tmp_path / "b", reporter=QUIET)
    (result,) = measured.result["results"]
    assert result["accuracy"] is None
    assert Ledger.open(measured.run).rows == ()


def test_a_lone_bench_compares_with_the_workstation(pretrained, tmp_path):
    tuned = api.finetune(pretrained, out=tmp_path / "f", reporter=QUIET).run
    plain = api.extract(tuned, out=tmp_path / "e", reporter=QUIET).run
    exported = api.export(plain, out=tmp_path / "x", reporter=QUIET).run
    settings = {"bench.allow_unstable": True}
    measured = api.bench([exported], settings=settings, out=tmp_path / "b", reporter=QUIET)
    (result,) = measured.result["results"]
    assert result["accuracy"]["agreement"] == 1.0
    (row,) = Ledger.open(measured.run).find(stage="bench")
    assert row.compared_with == "export/0.25x-onnx-none"
    assert (row.delta, row.variant, row.labels_per_class) == (0.0, "sacl-xd", 3)
    stages = {r.stage for r in Ledger.open(measured.run).rows}
    assert stages == {"finetune", "extract", "export", "bench"}
    page = api.report([measured.run], out=tmp_path / "r.html")
    assert page.result["report"] == str(tmp_path / "r.html")

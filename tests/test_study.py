"""Fine-tuning and probing over widths, budgets, folds and rivals: what the ledger then says."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, RecipeInvalid, UsageProblem
from edgessl.core.ledger import Ledger
from edgessl.encoders import ENCODERS
from edgessl.stages.recipes import validated

pytestmark = pytest.mark.slow
QUIET = Reporter(quiet=True)
TINY = {
    "data.imgsz": 16, "data.folds": None, "encoder.width": "0.5x-0.375x-0.25x",
    "pretrain.epochs": 1, "pretrain.batch": 32, "pretrain.options": {"projector": [16, 16]},
    "labels.per_class": 3, "labels.draws": 2, "finetune.epochs": 1,
    "finetune.learning_rates": [1e-3], "export.targets": ["onnx"],
}  # fmt: skip


def write_digits(root, per_class, classes=4):
    data = load_digits(n_class=classes)
    for label in range(classes):
        (root / str(label)).mkdir(parents=True)
        chosen = np.flatnonzero(data.target == label)
        count = per_class[label] if isinstance(per_class, list) else per_class
        for i in chosen[:count]:
            picture = Image.fromarray((data.images[i] * 15.9).astype("uint8"))
            picture.save(root / str(label) / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("images") / "digits", 75)


@pytest.fixture(scope="module")
def pretrained(digits, tmp_path_factory):
    """A host with two slim nets."""
    out = tmp_path_factory.mktemp("runs") / "pretrain"
    return api.pretrain(settings=TINY | {"data.labels": str(digits)}, out=out, reporter=QUIET).run


def ledger(run):
    return Ledger.open(run)


def test_every_slim_width_is_tuned_and_extracted_on_its_own(pretrained, tmp_path):
    tuned = api.finetune(pretrained, out=tmp_path / "f", reporter=QUIET).run
    assert sorted(p.name for p in (tuned / "finetune").iterdir()) == ["0.25x", "0.375x"]
    for width in ("0.375x", "0.25x"):
        names = {r.variant for r in ledger(tuned).find(stage="finetune", width=width, draw=None)}
        assert names == {"scratch", "sacl-xd"}
    plain = api.extract(tuned, out=tmp_path / "e", reporter=QUIET)
    assert [m["equivalence"]["width"] for m in plain.result["models"]] == ["0.375x", "0.25x"]
    assert all(m["equivalence"]["pass"] for m in plain.result["models"])
    for width in ("0.375x", "0.25x"):  # an extracted net answers as its fine-tuned slice did
        (row,) = ledger(plain.run).find(stage="extract", width=width)
        (before,) = ledger(tuned).find(id=f"finetune/{width}/sacl-xd/3/draw0")
        assert (row.value, row.delta, row.compared_with) == (before.value, 0.0, before.id)
    one = api.extract(tuned, width="0.25x", out=tmp_path / "one", reporter=QUIET)
    assert [p.name for p in (one.run / "extract").iterdir()] == ["0.25x"]
    with pytest.raises(UsageProblem, match=r"width 0\.5x-0\.375x-0\.25x, not 1x"):
        api.extract(tuned, width="1x", out=tmp_path / "no", reporter=QUIET)


def test_one_width_of_several_can_be_tuned(pretrained, tmp_path):
    settings = {"encoder.width": "0.25x", "finetune.scratch": False}
    run = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    assert (run / "finetune/0.25x/model.safetensors").is_file()
    assert {r.width for r in ledger(run).find(stage="finetune")} == {"0.25x"}


def test_the_label_budget_curve_has_a_point_per_budget(pretrained, tmp_path):
    settings = {"labels.curve": [1, 3, 500, None], "finetune.widths": ["0.25x"],
                "finetune.curve": True}  # fmt: skip
    warned = []
    reporter = Reporter(quiet=True)
    reporter.warn = warned.append
    run = api.evaluate(pretrained, settings=settings, out=tmp_path / "e", reporter=reporter).run
    assert len([text for text in warned if "500 labelled images per class" in text]) == 1
    probes = ledger(run).find(stage="evaluate", metric="linear_top1", draw=None, variant="pixels")
    assert [row.labels_per_class for row in probes] == [3, 1, None]
    assert probes[2].interval == "Wilson 95 %"  # all labels can be drawn in one way only
    more, fewer, everything = (row.value for row in probes)
    assert fewer < more < everything
    run = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    means = ledger(run).find(stage="finetune", metric="top1", draw=None)
    assert {(r.variant, r.labels_per_class) for r in means} == {
        (variant, budget) for variant in ("scratch", "sacl-xd") for budget in (3, 1, None)
    }
    for row in means:
        if row.variant != "scratch":
            assert row.compared_with == row.id.replace("sacl-xd", "scratch")


def test_few_labels_are_folded_and_the_shipped_model_claims_no_accuracy(tmp_path):
    folder = write_digits(tmp_path / "few", 12)
    settings = TINY | {
        "data.labels": str(folder), "data.folds": "auto", "data.repeats": 2, "name": "few",
        "encoder.width": "0.5x-0.25x", "finetune.epochs": 2, "bench.allow_unstable": True,
    }  # fmt: skip
    outcome = api.run({}, settings=settings, out=tmp_path / "r", reporter=QUIET)
    assert outcome.errors == ()
    run = outcome.run
    draws = ledger(run).find(stage="finetune", variant="scratch", metric="top1")
    mean, folds = draws[-1], draws[:-1]
    assert {row.split for row in draws} == {"folds"}
    assert sum(row.n for row in folds) == 2 * 48  # every image once per repeat
    assert mean.n == 48
    assert mean.value == pytest.approx(sum(r.value for r in folds) / len(folds))
    assert mean.interval == f"corrected resampled t over {len(folds)} folds, 95 %"
    facts = json.loads((run / "finetune/model.json").read_text())["facts"]
    assert facts["trained_on"] == "all labels"
    # no image is left that the shipped model has not seen
    assert not (run / "extract/0.25x/predictions.csv").exists()
    exported = ledger(run).find(stage="export")
    assert {(row.metric, row.value) for row in exported} == {("agreement", 1.0)}
    assert {row.stage for row in ledger(run).rows} == {"evaluate", "finetune", "export"}
    (bench,) = run.glob("bench/*/*/result.json")
    assert json.loads(bench.read_text())["accuracy"] is None
    parity = json.loads((run / "export/0.25x-onnx-none/parity.json").read_text())
    assert parity["checks"][0]["pass"]


def test_imbalanced_labels_get_the_mean_recall(tmp_path):
    folder = write_digits(tmp_path / "skewed", [120, 120, 24, 24])
    settings = TINY | {"data.labels": str(folder), "encoder.width": "0.25x"}
    run = api.finetune(
        scratch=True, settings=settings | {"finetune.balanced": True}, out=tmp_path / "f",
        reporter=QUIET,
    ).run  # fmt: skip
    top1, balanced = (
        ledger(run).find(stage="finetune", draw=None, metric=m)[0]
        for m in ("top1", "balanced_top1")
    )
    lines = [json.loads(x) for x in (run / "finetune/draws.jsonl").read_text().splitlines()]
    answers = [np.array(list(x["correct"])) == "1" for x in lines if "correct" in x]
    splits = json.loads((run / "splits.json").read_text())["splits"]["test"]["items"]
    labels = np.array([int(item.split("/")[0]) for item in splits])
    recall = [np.mean([a[labels == c].mean() for c in range(4)]) for a in answers]
    assert balanced.value == pytest.approx(np.mean(recall))
    assert top1.value == pytest.approx(np.mean([a.mean() for a in answers]))


def test_the_best_net_of_all_can_be_shipped(pretrained, tmp_path):
    settings = {"finetune.ship": "best", "finetune.widths": ["0.25x"], "finetune.epochs": 3}
    run = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    lines = [json.loads(x) for x in (run / "finetune/0.25x/draws.jsonl").read_text().splitlines()]
    means = {
        v: np.mean([x["validation"] for x in lines if x.get("variant") == v])
        for v in ("scratch", "sacl-xd")
    }
    facts = json.loads((run / "finetune/0.25x/model.json").read_text())["facts"]
    assert facts["variant"] == max(means, key=lambda name: means[name])


def test_stock_weights_are_a_rival_and_a_start(digits, tmp_path):
    """With weights at hand every table has scratch, imagenet, own and imagenet + own rows."""
    stock = ENCODERS.load("mobilenet_v3_small").network(1.0, classes=7, seed=5)
    save_file(stock.state_dict(), tmp_path / "stock.safetensors")
    settings = TINY | {
        "data.labels": str(digits), "encoder.name": "mobilenet_v3_small", "data.imgsz": 32,
        "encoder.width": "1x", "encoder.weights": str(tmp_path / "stock.safetensors"),
        "pretrain.method": "barlow", "labels.draws": 1, "name": "rivals",
    }  # fmt: skip
    run = api.run({}, settings=settings, out=tmp_path / "r", until="finetune", reporter=QUIET).run
    variants = ["scratch", "imagenet", "barlow", "imagenet+barlow"]
    means = ledger(run).find(stage="finetune", metric="top1", draw=None)
    assert [row.variant for row in means] == variants
    probes = ledger(run).find(stage="evaluate", metric="linear_top1", draw=None)
    assert [row.variant for row in probes] == ["pixels", *variants[1:]]
    facts = json.loads((run / "pretrain-imagenet/encoder.json").read_text())["facts"]
    assert facts["variant"] == "imagenet+barlow"
    alone = api.finetune(settings=settings, out=tmp_path / "alone", reporter=QUIET).run
    means = ledger(alone).find(stage="finetune", metric="top1", draw=None)
    assert [row.variant for row in means] == variants[:2]  # no checkpoint: only the rivals


def test_contradicting_widths_and_starts_are_refused():
    with pytest.raises(RecipeInvalid, match=r"finetune\.widths names 2x"):
        validated({}, {"finetune.widths": ["2x"]})
    with pytest.raises(RecipeInvalid, match=r"encoder\.weights is null"):
        validated({}, {"pretrain.starts": ["weights"]})


def test_a_net_is_never_measured_on_what_it_has_learned_from(pretrained, digits, tmp_path):
    settings = {"finetune.widths": ["0.25x"], "finetune.scratch": False}
    tuned = api.finetune(pretrained, settings=settings, out=tmp_path / "f", reporter=QUIET).run
    other = {"seed": 5}  # other splits: some of its test images were trained on
    for command in (api.evaluate, api.extract):
        with pytest.raises(DataInvalid, match=r"also in the images that .* was trained on"):
            command(tuned, settings=other, out=tmp_path / command.__name__, reporter=QUIET)
    plain = api.extract(tuned, out=tmp_path / "e", reporter=QUIET).run
    refused = api.export(plain, settings=other, out=tmp_path / "x", reporter=QUIET)
    assert [type(error) for error in refused.errors] == [DataInvalid]
    rows = ledger(api.evaluate(tuned, out=tmp_path / "v", reporter=QUIET).run).rows
    assert {(r.variant, r.width) for r in rows} == {
        ("pixels", None), ("sacl-xd, fine-tuned", "0.25x"),
    }  # fmt: skip
    with pytest.raises(UsageProblem, match="fine-tuned already"):
        api.finetune(tuned / "finetune/0.25x", out=tmp_path / "again", reporter=QUIET)


def test_changed_test_images_are_measured_again(pretrained, tmp_path):
    test = write_digits(tmp_path / "test", 20)
    shifted = [path for path in test.rglob("*.png")]
    for path in shifted:  # images that no split of the training images holds
        Image.open(path).rotate(90).save(path)
    settings = {
        "data.test": str(test), "finetune.widths": ["0.25x"], "finetune.scratch": False,
        "bench.allow_unstable": True, "labels.draws": 1,
    }  # fmt: skip
    recipe = pretrained / "recipe.yaml"
    run = tmp_path / "r"
    assert api.run(recipe, settings=settings, out=run, reporter=QUIET).errors == ()
    for path in shifted[:10]:
        path.unlink()
    changed = api.run(recipe, settings=settings, out=run, resume=True, reporter=QUIET)
    assert changed.errors == ()
    measured = {r.stage: r.n for r in ledger(run).rows if r.metric == "top1"}
    assert measured == dict.fromkeys(("finetune", "extract", "export", "bench"), 70)


def test_other_stock_weights_are_pretrained_from_again(digits, tmp_path):
    architecture, file = ENCODERS.load("mobilenet_v3_small"), tmp_path / "stock.safetensors"
    settings = TINY | {
        "data.labels": str(digits), "encoder.name": "mobilenet_v3_small", "data.imgsz": 32,
        "encoder.width": "1x", "encoder.weights": str(file), "pretrain.method": "barlow",
        "pretrain.starts": ["weights"], "labels.draws": 1, "finetune.scratch": False,
        "pretrain.options": {"projector": [8, 8]},
    }  # fmt: skip
    seals = []
    for seed in (1, 2):
        save_file(architecture.network(1.0, classes=7, seed=seed).state_dict(), file)
        run = api.run(
            {}, settings=settings, out=tmp_path / "r", resume=seed > 1, until="finetune",
            reporter=QUIET,
        )  # fmt: skip
        assert run.errors == ()
        tuned = json.loads((run.run / "finetune/model.json").read_text())
        encoder = json.loads((run.run / "pretrain-imagenet/encoder.json").read_text())
        assert tuned["parents"] in ([encoder["seal"]], [])
        seals.append(encoder["seal"])
    assert seals[0] != seals[1]
    save_file(architecture.network(1.0, classes=7, seed=3).state_dict(), file)
    stale = api.run({}, settings=settings, out=tmp_path / "r", start="evaluate", until="finetune",
                    reporter=QUIET)  # fmt: skip
    assert "no finished pretraining of this recipe" in stale.errors[0].message

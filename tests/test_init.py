"""`edgessl init`: what is seen decides, the reason is beside it, and `edgessl run` takes it."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import ENVIRONMENT, edgessl
from PIL import Image

from edgessl import api_light
from edgessl.core.errors import DataInvalid, UsageProblem
from edgessl.core.recipe_text import load_yaml
from edgessl.stages import choices
from edgessl.stages.choices import Asked, Seen
from edgessl.stages.init import recipe_text
from edgessl.stages.recipes import validated
from edgessl.stages.survey import Survey, look_at


def pictures(folder, n, size=(40, 32), *, grey=False, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    for i in range(n):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "photos", 30)
    for i, (name, n) in enumerate({"cat": 24, "dog": 12, "owl": 8}.items()):
        pictures(tmp_path / "labelled" / name, n, seed=i + 1)
    return tmp_path


def survey(images, short, classes=None, grey=0.0):
    size = (short, short)
    return Survey("x", images, classes, size, size, size, short, grey, 48, 0)


def test_a_survey_tells_counts_classes_sizes_and_colour(place):
    pictures(place / "labelled/cat/large", 3, (300, 200), grey=True)
    (place / "labelled/dog/broken.jpg").write_text("no picture")
    (place / "labelled/dog/empty.jpg").touch()
    found = look_at("labelled", labelled=True)
    assert found.classes == {"cat": 27, "dog": 13, "owl": 8}
    assert (found.images, found.sampled, found.unreadable) == (48, 47, 2)
    assert (found.smallest, found.typical, found.largest) == ((40, 32), (40, 32), (300, 200))
    assert found.short_side == 32
    assert found.grey == pytest.approx(3 / 47)
    assert not found.is_grey
    assert found.imbalance == 27 / 8
    assert look_at("labelled", labelled=False).classes is None
    grey = look_at(str(pictures(place / "grey", 4, grey=True)), labelled=False)
    assert grey.is_grey


@pytest.mark.parametrize(
    ("short", "gpu", "side", "name", "stem"),
    [
        (8, False, 16, "mobilenet_v1_short", "stock"),
        (28, False, 32, "mobilenet_v1_short", "stock"),
        (64, False, 64, "mobilenet_v1_short", "stock"),
        (96, False, 96, "mobilenet_v3_large", "stock"),
        (480, False, 128, "mobilenet_v3_large", "stock"),
        (480, True, 224, "mobilenet_v3_large", "stock"),
    ],
)
def test_the_size_of_the_images_decides_side_and_encoder(monkeypatch, short, gpu, side, name, stem):
    monkeypatch.setattr(choices, "has_gpu", lambda: gpu)
    seen = Seen(unlabeled=survey(10_000, short))
    recipe = validated(load_yaml(recipe_text(seen, Asked()), "recipe"))
    assert (recipe.data.imgsz, recipe.encoder.name, recipe.encoder.stem) == (side, name, stem)
    assert f"the median short side is {short} px" in recipe_text(seen, Asked())


def test_what_was_asked_for_is_written():
    asked = Asked("mobilenet_v3_small", "1x", 48, "local", False)
    seen = Seen(labels=survey(5_000, 300, {"a": 4_000, "b": 1_000}))
    recipe = validated(load_yaml(recipe_text(seen, asked), "recipe"))
    assert (recipe.encoder.name, recipe.encoder.width) == ("mobilenet_v3_small", "1x")
    assert (recipe.data.imgsz, recipe.encoder.stem) == (48, "small")
    assert (recipe.pretrain.views.flip, recipe.finetune.flip) == (0, 0)


def test_labels_decide_curve_balance_and_batches():
    few = Seen(labels=survey(60, 64, {"a": 40, "b": 20}))
    recipe = validated(load_yaml(recipe_text(few, Asked()), "recipe"))
    assert recipe.labels.per_class is None  # every label that there is
    assert recipe.labels.curve == (1, 5, 10)  # 60 % of 20 are trained on
    assert recipe.finetune.balanced
    assert recipe.evaluate.neighbours == 12
    assert "5 folds" in recipe_text(few, Asked())
    many = Seen(survey(80_000, 64), survey(4_000, 64, {"a": 2_000, "b": 2_000}))
    recipe = validated(load_yaml(recipe_text(many, Asked()), "recipe"))
    assert recipe.labels.curve == (1, 5, 10, 50)
    assert not recipe.finetune.balanced
    assert (recipe.pretrain.batch, recipe.pretrain.epochs) == (256, 40)
    tiny = Seen(labels=survey(20, 64, {"a": 10, "b": 10}))
    recipe = validated(load_yaml(recipe_text(tiny, Asked()), "recipe"))
    assert recipe.pretrain.batch <= tiny.pretraining_images == 12


@pytest.mark.parametrize(
    ("names", "mirrors"),
    [
        (["cat", "dog"], True), (["0", "1", "12"], False), (["a", "b"], False),
        (["turn left", "turn right"], False), ([], True),
    ],
)  # fmt: skip
def test_signs_are_not_mirrored(names, mirrors):
    labels = survey(100, 64, dict.fromkeys(names, 50)) if names else None
    assert choices.mirrors_well(labels) is mirrors


@pytest.mark.parametrize(
    "name",
    ["a: b # c", "tab\there", "null", "-x", "new\nline", "q\"uo'te\\", "\N{OCTOPUS}", "2024"],
)
def test_any_name_of_folder_and_class_survives(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for label in (name, "other"):
        pictures(Path(name) / label, 6)
    finding = api_light.init(labels=name)
    assert finding.next == "edgessl run --dry-run"
    values = load_yaml(Path("edgessl.yaml").read_text("utf-8"), "recipe")
    assert values["data"]["labels"] == name
    assert set(finding.result["seen"]["labels"]["classes"]) == {name, "other"}
    validated(values)


def test_a_recipe_elsewhere_names_whole_paths(place):
    (place / "configs").mkdir()
    finding = api_light.init(labels="labelled", out=Path("configs/mine.yaml"))
    values = load_yaml(Path("configs/mine.yaml").read_text(), "recipe")
    assert values["data"]["labels"] == str(place / "labelled")
    assert finding.next == "edgessl run configs/mine.yaml --dry-run"


def test_a_file_is_never_replaced_unasked(place):
    Path("edgessl.yaml").write_text("name: precious\n")
    with pytest.raises(UsageProblem, match="already exists"):
        api_light.init(labels="labelled")
    assert Path("edgessl.yaml").read_text() == "name: precious\n"
    _, err = edgessl("init", "--labels", "labelled", cwd=place, expect=2)
    assert "--yes" in err
    edgessl("init", "--labels", "labelled", "--yes", cwd=place)
    assert "name: labelled" in Path("edgessl.yaml").read_text()


def test_bad_folders_are_refused_with_their_cause(place):
    (place / "empty").mkdir()
    (place / "text.txt").write_text("x")
    pictures(place / "one/only", 3)
    (place / "bad").mkdir()
    (place / "bad/a.jpg").write_text("no picture")
    for given, part in (
        ({"labels": "nowhere"}, "no such folder"),
        ({"unlabeled": "empty"}, "no image in empty"),
        ({"labels": "photos"}, "do not lie in class folders"),
        ({"labels": "one"}, "at least two are needed"),
        ({"unlabeled": "bad"}, "none of 1 sampled"),
        ({"labels": "labelled", "test": "photos"}, "do not lie in class folders"),
    ):
        with pytest.raises(DataInvalid, match=part):
            api_light.init(**given)
    out, _ = edgessl("init", "--unlabeled", "empty", "--json", cwd=place, expect=3)
    assert json.loads(out)["error"]["type"] == "DataInvalid"
    with pytest.raises(UsageProblem, match="no images were named"):
        api_light.init()
    edgessl("init", "--labels", "labelled", "--encoder", "mobilenet", cwd=place, expect=2)
    assert not Path("edgessl.yaml").exists()


def test_without_labels_pretraining_is_what_remains(place):
    finding = api_light.init(unlabeled="photos")
    assert finding.next == "edgessl pretrain --dry-run"
    text = Path("edgessl.yaml").read_text()
    assert "one sub-folder per class" in text
    assert validated(load_yaml(text, "recipe")).data.labelled is None
    assert finding.result["warnings"] == ["30 images are few to pretrain on"]


def at_a_terminal(arguments, answers, cwd):
    """Run with a terminal in front of it; every question gets the next answer."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgessl", *arguments], cwd=cwd, env=ENVIRONMENT, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    os.close(theirs)
    for answer in answers:
        os.write(ours, f"{answer}\n".encode())
        time.sleep(0.05)
    out, _ = process.communicate(timeout=100)
    os.close(ours)
    return process.returncode, out


def test_questions_are_asked_and_answers_checked_on_the_spot(place):
    code, out = at_a_terminal(
        ["init"],
        ["photoss", "photos", "photos", "labelled", "", "7", "64", "mobilnet", "",
         "1x-2x", "1x", "n", "nowhere", ""],
        place,
    )  # fmt: skip
    assert code == 0, out
    for part in (
        "no such folder or dataset: 'photoss'", "do not lie in class folders",
        "'7' is not a number from 8 to 1024", "unknown encoder 'mobilnet'", "slim <= host",
        "unknown device 'nowhere'", "photos: 30 images; 40 x 32 px; colour",
    ):  # fmt: skip
        assert part in out, out
    recipe = validated(load_yaml(Path("edgessl.yaml").read_text(), "recipe"))
    assert (recipe.data.unlabeled, recipe.data.labels, recipe.data.test) == (
        "photos", "labelled", None,
    )  # fmt: skip
    assert (recipe.data.imgsz, recipe.encoder.name) == (64, "mobilenet_v1_short")
    assert (recipe.encoder.width, recipe.pretrain.views.flip) == ("1x", 0)
    code, out = at_a_terminal(["init"], ["n"], place)
    assert code == 2
    assert "edgessl.yaml was kept" in out


@pytest.mark.slow
@pytest.mark.chain
def test_the_written_recipe_runs(place):
    edgessl("init", "--unlabeled", "photos", "--labels", "labelled", "--width", "0.5x-0.25x",
            cwd=place)  # fmt: skip
    cut = ("pretrain.epochs=1", "pretrain.options={projector: [16, 16]}", "finetune.epochs=1",
           "finetune.learning_rates=[0.003]", "data.repeats=1", "data.folds=2")  # fmt: skip
    arguments = [part for setting in cut for part in ("--set", setting)]
    _, err = edgessl("run", *arguments, "--until", "extract", cwd=place)
    assert "44 images in 2 folds" in err
    out, _ = edgessl("predict", "last", "labelled/owl/0.png", "--json", cwd=place)
    assert json.loads(out)["result"]["labels"] == ["cat", "dog", "owl"]

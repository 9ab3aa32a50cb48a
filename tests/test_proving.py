"""Images that calibrate, choose and prove: never the same ones, never those trained on."""

import numpy as np
import pytest
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.images import image_sha256
from edgessl.core.recipe import Data, Export, Recipe
from edgessl.stages.flips import read_labels, with_labels, write_flips
from edgessl.stages.proving import gather, held_out_count, held_out_rows
from edgessl.stages.roles import Images, check_sources
from edgessl.stages.workshop import Workshop

SPEC = InputSpec.square(8)


def images_of(folder, **data):
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe.model_validate({"data": {"imgsz": 8} | data})
    return Images(recipe, SPEC, folder, Reporter(quiet=True))


def identities(pixels):
    return {image_sha256(image) for image in pixels}


def photos(folder, n, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i:04d}.png")
    return str(folder)


def test_no_image_has_two_roles(tmp_path):
    images = images_of(tmp_path, labels="digits")
    made = gather(images, None, 200, images.splits.train.source_sha256)
    roles = [
        identities(made.calibration), set(made.selection.sha256), set(made.proof.sha256),
    ]  # fmt: skip
    assert [len(r) for r in roles] == [200, len(made.selection.labels), 449]
    assert not roles[0] & roles[1]
    assert not roles[0] & roles[2]
    assert not roles[1] & roles[2]
    assert set(images.splits.validation.sha256) <= roles[1]
    assert made.sources == ({"name": "test", "n": 449, "labelled": 449},)
    assert not made.trained_on
    assert not identities(made.training) & (roles[0] | roles[1] | roles[2])


def test_the_same_run_takes_the_same_images(tmp_path):
    first, second = (
        gather(images_of(tmp_path / name, labels="digits"), None, 64, ()) for name in "ab"
    )
    np.testing.assert_array_equal(first.calibration, second.calibration)
    assert first.selection.data_sha256 == second.selection.data_sha256


def test_unlabeled_images_are_kept_back_and_prove(tmp_path):
    pool = photos(tmp_path / "pool", 1000, 1)
    images = images_of(tmp_path / "run", labels=None, unlabeled=pool)
    kept_back = images.held_out
    assert kept_back is not None
    assert len(kept_back.labels) == 100  # a tenth
    assert len(images.pool.images) == 900
    assert not set(kept_back.source_sha256) & set(images.pool.source_sha256)
    made = gather(images, None, 64, images.pool.source_sha256)
    assert set(made.proof.source_sha256) == set(kept_back.source_sha256)
    assert (made.sources[0]["labelled"], made.trained_on) == (0, False)


def test_how_many_are_kept_back():
    data = Data()
    assert held_out_count(999, 0, data) == 0  # too few to give any away
    assert held_out_count(1000, 0, data) == 100
    assert held_out_count(50_000, 0, data) == 2000
    assert held_out_count(50_000, 1500, data) == 500  # test images prove as well
    assert held_out_count(50_000, 10_000, data) == 0
    assert held_out_count(50_000, 0, data.model_copy(update={"held_out": 0})) == 0
    rows = held_out_rows(1000, 0, data, 7)
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() != held_out_rows(1000, 0, data, 8).tolist()


def test_images_named_for_the_proof_that_were_used_before_are_left_out(tmp_path):
    named = photos(tmp_path / "proof", 40, 2)
    images = images_of(tmp_path / "run", labels="digits", proof=named)
    whole = gather(images, None, 64, ())
    assert whole.sources[1] == {"name": "proof", "n": 40, "labelled": 0}
    learned_from = whole.proof.source_sha256[-5:]
    assert gather(images, None, 64, learned_from).sources[1]["n"] == 35
    # named for both, they calibrate
    both = gather(images, named, 64, ())
    assert len(both.calibration) == 40
    assert [part["name"] for part in both.sources] == ["test"]


def test_calibrating_on_test_images_is_refused(tmp_path):
    images = images_of(tmp_path / "run", labels="digits")
    rows = np.stack([images.splits.test.images[3], images.splits.test.images[4]])
    (tmp_path / "calib").mkdir()
    for i, row in enumerate(rows):  # digits are 8 px, so prepared pixels are the source's
        Image.fromarray(row).save(tmp_path / "calib" / f"{i}.png")
    with pytest.raises(DataInvalid, match="test images"):
        gather(images, str(tmp_path / "calib"), 64, ())


def test_in_folds_the_proof_says_that_the_net_has_learned_from_it(tmp_path):
    images = images_of(tmp_path, labels="digits", folds=5)
    made = gather(images, None, 256, images.folds.all.source_sha256)
    assert made.trained_on
    assert made.sources[0]["n"] == 1797


def test_with_one_training_image_left_the_choice_is_refused(tmp_path):
    pool = photos(tmp_path / "pool", 1, 3)
    images = images_of(tmp_path / "run", labels=None, unlabeled=pool)
    with pytest.raises(DataInvalid, match="left to choose"):
        gather(images, None, 64, ())


def flipped(tmp_path):
    images = images_of(tmp_path / "run", labels="digits")
    proof = images.splits.test
    logits = np.eye(10, dtype=np.float32)[proof.labels]
    return proof, logits, np.roll(logits, 1, axis=1)


def test_labels_of_flips_come_back_by_the_picture(tmp_path):
    proof, float_logits, got = flipped(tmp_path)
    names = [f"class {i}" for i in range(10)]
    folder = tmp_path / "export"
    table = write_flips(folder, proof, (3, 5, 8), (float_logits, got), names, {})
    lines = table.read_text().splitlines()
    assert lines[0] == "file,sha256,float,quantised,label"
    assert len(lines) == 4
    assert lines[1].split(",")[2:] == [
        f"class {proof.labels[3]}", f"class {(proof.labels[3] + 1) % 10}", "",
    ]  # fmt: skip
    with Image.open(folder / "flips" / lines[2].split(",")[0]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), proof.images[5])
    assert read_labels(folder, names) == {}
    # as a person fills it in: one label, one nobody can tell
    lines[1] += "class 4"
    lines[3] += " ? "
    table.write_text("\n".join(lines))
    known = read_labels(folder, names)
    assert known == {proof.sha256[3]: 4}
    bare = proof.labels * 0 - 1
    unknown = type(proof)(**{n: getattr(proof, n) for n in proof.__slots__} | {"labels": bare})
    labels = with_labels(unknown, known)
    assert labels[3] == 4
    assert (np.delete(labels, 3) == -1).all()
    # written again, what was filled in stays
    write_flips(folder, unknown, (5,), (float_logits, got), names, known)
    assert read_labels(folder, names) == known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,sha256,float,quantised\na,b,c,d\n", "a column is missing"),
        ("file,sha256,float,quantised,label\na,b,c,d,clas 1\n", "'clas 1' is not a class"),
        ("file;sha256;label\na;b;class 1\n", "a column is missing"),
    ],
)
def test_a_garbled_table_is_told_with_its_line(tmp_path, text, message):
    (tmp_path / "flips").mkdir()
    (tmp_path / "flips" / "flips.csv").write_text(text)
    with pytest.raises(DataInvalid, match=message) as caught:
        read_labels(tmp_path, ["class 0", "class 1"])
    assert "line 2" in caught.value.message


def test_a_try_that_failed_leaves_no_folder_in_the_way(tmp_path):
    with Workshop("onnx", Export(), tmp_path / "log") as shop:
        first = shop.place("try-0")
        (first / "half.onnx").write_bytes(b"x")
        second = shop.place("try-0")
        assert second != first
        assert list(second.iterdir()) == []
    assert not first.exists()


def test_calibration_images_that_are_not_there_cost_no_conversion():
    recipe = Recipe.model_validate({"export": {"quantize": "int8", "calibration": "/nowhere"}})
    with pytest.raises(DataInvalid, match="/nowhere"):
        check_sources(recipe)

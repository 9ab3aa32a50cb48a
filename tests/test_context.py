"""Roles of images: what is pretrained on, what is measured, and that they never mix."""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.core.runs import RunFolder
from edgessl.stages.context import Context
from edgessl.stages.recipes import validated

SIDE = 96
PLAIN = ("imgsz", "folds", "repeats")  # not paths


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of real photo crops, 12 each, in class folders."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for i in range(12):
            top, left = generator.integers(0, 427 - 200), generator.integers(0, 640 - 240)
            Image.fromarray(photo[top : top + 200, left : left + 240]).save(
                root / name / f"{i}.png"
            )
    return root


def context(tmp_path, **data):
    recipe = validated(
        {
            "data": {"imgsz": SIDE, "folds": None}
            | {k: data[k] if k in PLAIN else str(data[k]) for k in data}
        }
    )
    return Context(recipe, RunFolder.create(tmp_path / "run", "t"), Reporter(quiet=True))


def test_pretraining_sees_the_training_split_at_storage_size(tmp_path, photos):
    made = context(tmp_path, labels=photos)
    pool = made.images.pool
    stored = pool.images
    splits = made.splits
    side = made.spec.resize
    assert side == 110
    assert stored.shape == (len(splits.train.labels), side, side, 3)
    edge = (side - SIDE) // 2
    crops = {bytes(image[edge : edge + SIDE, edge : edge + SIDE].tobytes()) for image in stored}
    assert crops == {image.tobytes() for image in splits.train.images}
    assert set(pool.source_sha256) == set(splits.train.source_sha256)


def test_the_stored_assignment_is_used_again(tmp_path, photos):
    first = context(tmp_path, labels=photos)
    train = first.splits.train.sha256
    again = Context(first.recipe, RunFolder(tmp_path / "run"), Reporter(quiet=True))
    assert again.splits.train.sha256 == train


def test_a_separate_test_folder_keeps_the_class_numbers_of_the_training_labels(tmp_path, photos):
    test = tmp_path / "test"
    (test / "flower").mkdir(parents=True)
    with Image.open(photos / "flower/0.png") as image:
        for i in range(3):
            image.crop((i, 5, 180 + i, 190)).save(test / "flower" / f"{i}.png")
    (test / "china").mkdir()
    with Image.open(photos / "china/0.png") as image:
        image.crop((3, 3, 180, 190)).save(test / "china/0.png")
    made = context(tmp_path, labels=photos, test=test)
    assert made.splits.class_names == ("china", "flower")
    assert sorted(made.splits.test.labels.tolist()) == [0, 1, 1, 1]
    total = len(made.splits.train.labels) + len(made.splits.validation.labels)
    assert total == 24


def test_unknown_classes_in_the_test_folder_are_named(tmp_path, photos):
    test = tmp_path / "test"
    shutil.copytree(photos / "flower", test / "rose")
    shutil.copytree(photos / "china", test / "china")
    with pytest.raises(DataInvalid, match="rose"):
        context(tmp_path, labels=photos, test=test).splits  # noqa: B018


def test_a_test_image_among_the_training_labels_is_an_error(tmp_path, photos):
    test = tmp_path / "test"
    shutil.copytree(photos, test)
    with pytest.raises(DataInvalid, match="also in"):
        context(tmp_path, labels=photos, test=test).splits  # noqa: B018


def test_a_test_image_among_the_unlabeled_is_an_error(tmp_path, photos):
    mixed = tmp_path / "unlabeled"
    mixed.mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, mixed / f"{path.parent.name}-{path.name}")
    with pytest.raises(DataInvalid, match=r"the (validation|test) images"):
        context(tmp_path, labels=photos, unlabeled=mixed).images.pool  # noqa: B018


def test_unlabeled_images_of_their_own_are_used_whole(tmp_path, photos):
    own = tmp_path / "unlabeled"
    own.mkdir()
    with Image.open(photos / "china/0.png") as image:
        for i in range(5):
            image.crop((7 * i, 0, 150 + 7 * i, 190)).save(own / f"{i}.jpg", quality=95)
    made = context(tmp_path, labels=photos, unlabeled=own)
    assert made.images.pool.images.shape == (5, 110, 110, 3)


def test_the_assignment_does_not_depend_on_the_size(tmp_path, photos):
    small = context(tmp_path / "a", labels=photos, imgsz=32).splits
    large = context(tmp_path / "b", labels=photos, imgsz=160).splits
    assert set(small.train.source_sha256) == set(large.train.source_sha256)
    assert set(small.test.source_sha256) == set(large.test.source_sha256)


def test_unlabeled_images_alone_need_no_labels_and_give_their_own_proof(tmp_path, photos):
    made = context(tmp_path, unlabeled=photos)
    assert not made.images.has_labels
    assert made.images.proof.images.shape == (24, SIDE, SIDE, 3)
    assert set(made.images.proof.labels.tolist()) == {-1}
    with pytest.raises(DataInvalid, match="labelled images are needed"):
        made.splits  # noqa: B018

"""Images by role: groups, folds for few labels, and what is written down about the data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from edgessl.core.errors import DataInvalid
from edgessl.core.runs import RunFolder
from edgessl.stages.context import Context
from edgessl.stages.recipes import validated
from edgessl.stages.roles import check_sources

SIDE = 16


class Heard:
    """A reporter that remembers."""

    def __init__(self):
        self.lines: list[str] = []
        self.log = None

    def say(self, text: str) -> None:
        self.lines.append(text)

    detail = say

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def pictures(root, classes: dict[str, int], seed: int = 0):
    rng = np.random.default_rng(seed)
    for name, n in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"day{i // 4}_{i}.png")
    return root


def opened(tmp_path, budgets=None, **data):
    recipe = validated({"data": {"imgsz": SIDE, **data}, "labels": budgets or {}})
    folder = RunFolder.create(tmp_path / "run", "t", resume=(tmp_path / "run").exists())
    return Context(recipe, folder, Heard()).images


def document(tmp_path):
    return json.loads((tmp_path / "run/data.json").read_text())


def test_few_labels_give_folds_of_all_images(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 12, "b": 9, "c": 4})
    images = opened(tmp_path, labels=str(photos))
    folds = images.folds
    assert folds.count == 4  # the smallest class has four images
    assert len(folds.parts) == 8
    assert folds.class_names == ("a", "b", "c")
    assert np.bincount(folds.all.labels).tolist() == [12, 9, 4]
    for part in folds.parts:
        assert set(folds.all.labels[part.test]) == {0, 1, 2}
    with pytest.raises(DataInvalid, match="25 labelled images, too few for a test split"):
        images.splits  # noqa: B018
    assert set(images.proof.labels.tolist()) == {-1}
    assert images.proof.source_sha256 == folds.all.source_sha256
    assert images.pool.images.shape == (25, images.spec.resize, images.spec.resize, 3)
    assert any("also those that the folds test on" in line for line in images.reporter.lines)
    found = document(tmp_path)
    assert (found["splits"], found["folds"], found["groups"]) == (None, 4, None)
    assert found["sources"][0]["classes"] == {"a": 12, "b": 9, "c": 4}
    # the same folds again, and no others
    again = opened(tmp_path, labels=str(photos)).folds
    for one, two in zip(folds.parts, again.parts, strict=True):
        np.testing.assert_array_equal(one.test, two.test)
    with pytest.raises(DataInvalid, match="repeats=2; now asked for: repeats=3"):
        opened(tmp_path, labels=str(photos), repeats=3).folds  # noqa: B018


def test_in_folds_unlabeled_images_may_be_those_of_the_test_and_one_line_says_so(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 6, "b": 6})
    images = opened(tmp_path, labels=str(photos), unlabeled=str(photos))
    assert len(images.pool.images) == 12
    images.check_unseen(images.pool.source_sha256, "the checkpoint")
    told = [line for line in images.reporter.lines if line.startswith("warning")]
    assert len(told) == 1
    assert "12 labelled image(s) are also in --unlabeled" in told[0]
    apart = pictures(tmp_path / "apart", {"x": 5}, seed=1)
    other = opened(tmp_path / "2", labels=str(photos), unlabeled=str(apart))
    assert len(other.pool.images) == 5
    assert not [line for line in other.reporter.lines if line.startswith("warning")]


def test_in_folds_it_is_written_how_many_labelled_images_the_pretraining_saw(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 6, "b": 6})
    copy = (photos / "a/day0_0.png").read_bytes()
    (photos / "a/copy.png").write_bytes(copy)
    some = pictures(tmp_path / "some", {"x": 4}, seed=1)
    (some / "x/same.png").write_bytes(copy)
    (some / "x/other.png").write_bytes((photos / "b/day0_1.png").read_bytes())
    expected = {None: 13, str(photos): 13, str(some): 3, str(tmp_path / "apart"): 0}
    pictures(tmp_path / "apart", {"x": 3}, seed=2)
    for i, (unlabeled, overlap) in enumerate(expected.items()):
        sources = {"labels": str(photos), "unlabeled": unlabeled}
        images = opened(tmp_path / str(i), **sources)
        assert images.folds is not None
        assert "pretraining_overlap" not in document(tmp_path / str(i))
        images.pool  # noqa: B018
        assert document(tmp_path / str(i))["pretraining_overlap"] == overlap
        assert opened(tmp_path / str(i), **sources).folds is not None  # a later command keeps it
        found = document(tmp_path / str(i))
        assert (found["pretraining_overlap"], found["folds"]) == (overlap, 5)
    # a checkpoint from elsewhere says which images it has seen
    late = opened(tmp_path / "late", labels=str(photos))
    late.check_unseen([], "a checkpoint that does not say")
    assert "pretraining_overlap" not in document(tmp_path / "late")
    late.check_unseen([late.folds.all.source_sha256[-1], "0" * 64], "the checkpoint")
    assert document(tmp_path / "late")["pretraining_overlap"] == 1
    split = opened(tmp_path / "split", labels=str(photos), folds=None)
    split.pool  # noqa: B018
    assert "pretraining_overlap" not in document(tmp_path / "split")


def test_budgets_that_folds_leave_out_are_told(tmp_path):
    photos = str(pictures(tmp_path / "photos", {"a": 6, "b": 6}))
    said = "folds use all labels: labels.per_class and labels.curve are left out"
    for i, (budgets, folds, told) in enumerate(
        [
            ({"per_class": 2}, "auto", 1),
            ({"curve": [1, None]}, "auto", 1),
            ({}, "auto", 0),
            ({"per_class": None, "curve": [None]}, "auto", 0),
            ({"per_class": 2}, None, 0),
        ]
    ):
        images = opened(tmp_path / str(i), budgets, labels=photos, folds=folds)
        assert (images.folds is None) == (folds is None)
        assert images.reporter.lines.count(said) == told, budgets


def test_copies_among_labelled_images_are_told(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 12, "b": 12})
    test = pictures(tmp_path / "test", {"a": 3, "b": 3}, seed=1)
    clean = opened(tmp_path / "1", labels=str(photos), test=str(test))
    assert clean.splits is not None
    assert not [line for line in clean.reporter.lines if "are copies" in line]
    for i in range(2):
        (photos / f"a/x{i}.png").write_bytes((photos / "a/day0_0.png").read_bytes())
    (test / "a/y.png").write_bytes((test / "a/day0_0.png").read_bytes())
    images = opened(tmp_path / "2", labels=str(photos), test=str(test))
    assert len(images.splits.test.labels) == 7
    first, second = [line for line in images.reporter.lines if "are copies" in line]
    assert first.startswith(f"warning: {photos}: 2 of 26 labelled images are copies of another")
    assert "first 'a/x0.png' of 'a/day0_0.png'" in first
    assert "count as images in every figure" in first
    assert second.startswith(f"warning: {test}: 1 of 7 labelled")


def test_the_same_source_in_both_roles_is_refused_beside_a_test_split(tmp_path):
    photos = str(pictures(tmp_path / "photos", {"a": 6, "b": 6}))
    images = opened(tmp_path, labels=photos, unlabeled=photos, folds=None)
    with pytest.raises(DataInvalid, match="as labelled and as unlabeled") as caught:
        images.pool  # noqa: B018
    assert "leave out --unlabeled" in caught.value.hint


def test_groups_of_a_list_stay_together_and_are_counted(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 40, "b": 40})
    rows = ["path,label,day"]
    for path in sorted(photos.rglob("*.png")):
        day = path.stem.split("_")[0]
        rows.append(f"{path.relative_to(tmp_path)},{path.parent.name},{day}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    source = str(tmp_path / "list.csv")
    images = opened(tmp_path, labels=source, group_by="column:day", folds=None)
    splits = images.splits
    days = [
        {item.split("/")[-1].split("_")[0] for item in role.items}
        for role in (splits.train, splits.validation, splits.test)
    ]
    assert len(days[0] | days[1] | days[2]) == sum(map(len, days)) == 10
    found = document(tmp_path)
    assert found["groups"] == 10
    assert sum(found["splits"].values()) == 80
    assert found["sources"][0]["sizes"] == {"min": [24, 20], "median": [24, 21], "max": [24, 22]}
    with pytest.raises(DataInvalid, match="no column 'dya'"):
        check_sources(validated({"data": {"labels": source, "group_by": "column:dya"}}))
    with pytest.raises(DataInvalid, match="exclude each other"):
        check_sources(validated({"data": {"labels": source, "test": source, "folds": 3}}))
    # a test source that shares a day is told, not refused
    (tmp_path / "test.csv").write_text("path,label,day\nextra.png,a,day3\n")
    with pytest.raises(DataInvalid, match=r"no image of .*test\.csv is there"):
        opened(tmp_path / "3", labels=source, test=str(tmp_path / "test.csv")).splits  # noqa: B018
    pictures(tmp_path / "more", {"a": 1, "b": 1}, seed=5)
    lines = "path,label,day\nmore/a/day0_0.png,a,day3\nmore/b/day0_0.png,b,day77\n"
    (tmp_path / "test.csv").write_text(lines)
    shared = opened(
        tmp_path / "4", labels=source, test=str(tmp_path / "test.csv"), group_by="column:day"
    )
    assert len(shared.splits.test.labels) == 2
    assert any("1 group(s) have images in" in line for line in shared.reporter.lines)


def test_findings_of_all_roles_are_kept_across_openings(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 60, "b": 8})
    (photos / "a/torn.png").write_bytes(b"\x89PNG\r\n")
    (photos / "a/empty.png").touch()
    copy = (photos / "a/day0_0.png").read_bytes()
    (photos / "a/copy.png").write_bytes(copy)
    more = pictures(tmp_path / "more", {"x": 3}, seed=9)
    options = {"labels": str(photos), "unlabeled": str(more), "folds": None}
    images = opened(tmp_path, **options)
    assert len(images.pool.images) == 3
    found = document(tmp_path)
    assert found["kind"] == "data-findings"
    roles = {entry["role"]: entry for entry in found["sources"]}
    assert set(roles) == {"labels", "unlabeled"}
    assert roles["unlabeled"]["classes"] == {"x": 3}
    assert (roles["labels"]["images"], roles["labels"]["duplicates"]) == (69, 1)
    assert roles["labels"]["skipped_count"] == 2
    reasons = {entry["item"]: entry["reason"] for entry in roles["labels"]["skipped"]}
    assert reasons["a/empty.png"] == "the file is empty"
    assert any("finetune.balanced=true" in line for line in images.reporter.lines)
    assert found["near_duplicates"] == []
    later = opened(tmp_path, **options)
    assert len(later.splits.train.labels)
    assert {entry["role"] for entry in document(tmp_path)["sources"]} == {"labels", "unlabeled"}


def test_near_duplicates_across_splits_are_told_with_their_splits(tmp_path):
    photos = pictures(tmp_path / "photos", {"a": 30, "b": 30})
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    for i in range(8):  # one picture, saved with different quality
        Image.fromarray(smooth).save(photos / f"a/same{i}.jpg", quality=40 + 7 * i)
    images = opened(tmp_path, labels=str(photos), folds=None)
    assert len(images.splits.test.labels)
    pairs = document(tmp_path)["near_duplicates"]
    assert {pair[k] for pair in pairs for k in "ab"} == {f"a/same{i}.jpg" for i in range(8)}
    side = {i: r.name for r in _roles(images.splits) for i in r.items}
    assert all(side[p["a"]] == p["a_split"] and side[p["b"]] == p["b_split"] for p in pairs)
    crossing = [p["a_split"] != p["b_split"] for p in pairs]
    assert crossing == sorted(crossing, reverse=True)
    assert any("two sides of a split" in line for line in images.reporter.lines)


def _roles(splits):
    return splits.train, splits.validation, splits.test

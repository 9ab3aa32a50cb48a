"""Splits and label draws: nothing on two sides, nothing left to chance."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.data.decode import Prepared, prepare
from edgessl.data.groups import grouped
from edgessl.data.image_set import ImageSet, Skipped
from edgessl.data.splits import Splits, check_leaks, draw_labels, load_splits, make_splits


def images(
    shas: list[str], labels: list[int], classes: int, groups: tuple[str, ...] | None = None
) -> Prepared:
    n = len(shas)
    return Prepared(
        images=np.zeros((n, 1, 1, 3), np.uint8),
        labels=np.array(labels, np.int64),
        class_names=tuple(f"class {c}" for c in range(classes)),
        items=tuple(f"{i}.png" for i in range(n)),
        sha256=("resized to one grey",) * n,  # no part in who goes where
        source_sha256=tuple(shas),
        source_sizes=np.ones((n, 2), np.int64),
        groups=groups,
        kept=np.arange(n),
        skipped=(),
    )


def distinct(per_class: int, classes: int = 3) -> Prepared:
    n = per_class * classes
    return images([f"sha{i}" for i in range(n)], [i % classes for i in range(n)], classes)


def assignment(splits: Splits) -> dict[str, str]:
    return {sha: name for name, pairs in splits.members.items() for sha, _ in pairs}


def test_shares_hold_in_every_class():
    data = distinct(100)
    splits = make_splits(data, seed=0, val=0.15, test=60)
    rows = splits.indices(data.source_sha256)
    assert {name: len(r) for name, r in rows.items()} == {"train": 195, "val": 45, "test": 60}
    assert np.bincount(data.labels[rows["val"]]).tolist() == [15, 15, 15]
    assert np.bincount(data.labels[rows["test"]]).tolist() == [20, 20, 20]
    assert sorted(np.concatenate(list(rows.values()))) == list(range(300))
    assert set(make_splits(data, seed=0, val=0.2, test=0).members) == {"train", "val"}


def test_unequal_classes_keep_their_mix_and_none_is_left_out():
    labels = [0] * 200 + [1] * 50 + [2] * 3
    data = images([f"s{i}" for i in range(253)], labels, 3)
    rows = make_splits(data, seed=1, val=0.1, test=0.2).indices(data.source_sha256)
    counts = {name: np.bincount(data.labels[r], minlength=3).tolist() for name, r in rows.items()}
    assert counts["val"] == [20, 5, 1]
    assert counts["test"] == [40, 10, 1]
    assert counts["train"] == [140, 35, 1]


def test_exact_copies_stay_together():
    rng = np.random.default_rng(0)
    shas = [f"s{k}" for k in rng.integers(0, 60, 400)]
    labels = [int(sha[1:]) % 3 for sha in shas]
    data = images(shas, labels, 3)
    splits = make_splits(data, seed=0, val=0.2, test=0.2)
    rows = splits.indices(shas)
    sides = [{shas[i] for i in r} for r in rows.values()]
    assert sum(map(len, sides)) == len(set(shas))
    assert sum(map(len, rows.values())) == 400
    assert splits.duplicates == 400 - len(set(shas))
    assert abs(len(rows["test"]) - 80) <= 12
    # a copy under another label does not tear its group apart
    data.labels[0] = (data.labels[0] + 1) % 3
    torn = make_splits(data, seed=0, val=0.2, test=0.2).indices(shas)
    assert sum(len({shas[i] for i in r}) for r in torn.values()) == len(set(shas))


def test_big_groups_leave_an_image_for_every_split():
    data = images(["a"] * 3 + ["b"] * 3 + ["c"], [0] * 7, 1)
    rows = make_splits(data, seed=0, val=0.15, test=0.15).indices(data.source_sha256)
    assert all(len(r) for r in rows.values())


def test_content_and_seed_decide_not_order_or_names():
    data = distinct(40)
    first = make_splits(data, seed=7)
    order = np.random.default_rng(0).permutation(120)
    shuffled = images(
        [data.source_sha256[i] for i in order], [int(data.labels[i]) for i in order], 3
    )
    again = make_splits(shuffled, seed=7)
    assert assignment(first) == assignment(again)
    assert first.data_sha256 == again.data_sha256
    assert assignment(first) != assignment(make_splits(data, seed=8))


def test_the_size_of_the_net_input_decides_nothing():
    """Another image size must not make another split: test images would have been trained on."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 24, 20, 3), dtype=np.uint8)
    pixels[31] = pixels[1]  # an exact copy
    pixels[2] = pixels[32] = 7
    pixels[32, 0, 0] = 8  # cropped away below: two images, one of prepared pixels
    source = ImageSet(
        "pool", tuple(f"#{i}" for i in range(60)), pixels.__getitem__,
        np.arange(60) % 3, ("a", "b", "c"),
    )  # fmt: skip
    small, large, some = (
        prepare(source, rows, InputSpec(height=side, width=side, resize=side))
        for rows, side in ((None, 8), (None, 20), (range(5, 40), 12))
    )
    assert small.source_sha256 == large.source_sha256 == (
        *small.source_sha256[:5], *some.source_sha256, *small.source_sha256[40:]
    )  # fmt: skip
    assert small.sha256 != large.sha256
    assert large.sha256[2] == large.sha256[32]
    assert len(set(large.source_sha256)) == 59
    splits = make_splits(small, seed=0)
    assert splits == make_splits(large, seed=0)
    assert splits.duplicates == 1
    with pytest.raises(DataInvalid, match="'#31'"):
        check_leaks(small.source_sha256[:3], large.source_sha256[30:], "x", "y", large.items[30:])


def test_too_few_images_are_named_with_counts():
    data = images(["a", "b", "c", "d", "d"], [0, 0, 0, 1, 1], 3)
    with pytest.raises(DataInvalid, match="'class 1': 1, 'class 2': 0"):
        make_splits(data, seed=0)
    with pytest.raises(DataInvalid, match="take all of the 30"):
        make_splits(distinct(10), seed=0, val=15, test=15)
    with pytest.raises(DataInvalid, match="neither a fraction"):
        make_splits(distinct(10), seed=0, val=-0.1)


def test_splits_survive_the_file_and_notice_changed_data(tmp_path):
    data, path = distinct(10), tmp_path / "splits.json"
    splits = make_splits(data, seed=3)
    splits.save(path, [Skipped("7/cut.jpg", "truncated")])
    assert load_splits(path, data, seed=3, val=0.15, test=0.15) == splits
    body = json.loads(path.read_text())
    assert body["kind"] == "splits"
    assert body["skipped"] == [{"item": "7/cut.jpg", "reason": "truncated"}]
    assert {sha for part in body["splits"].values() for sha in part["sha256"]} == set(
        data.source_sha256
    )
    with pytest.raises(
        DataInvalid, match=r"with seed=3, test=0\.15; now asked for: seed=4, test=0"
    ):
        load_splits(path, data, seed=4, val=0.15, test=0.0)
    with pytest.raises(DataInvalid, match="1 new, 1 gone"):
        load_splits(path, images(["new", *data.source_sha256[1:]], data.labels.tolist(), 3))
    relabelled = images(list(data.source_sha256), [(c + 1) % 3 for c in data.labels.tolist()], 3)
    with pytest.raises(DataInvalid, match="labels or groups differ"):
        load_splits(path, relabelled)
    path.write_text('{"kind": "splits", "schema": 1, "splits": {}}')
    with pytest.raises(FileInvalid, match="not a whole file"):
        load_splits(path, data)


def test_a_leak_between_sources_is_refused():
    check_leaks(["a", "b"], ["c"], "--unlabeled", "test")
    with pytest.raises(
        DataInvalid, match=r"4 image\(s\) of test are also in --unlabeled: 'v', 'w'"
    ) as caught:
        check_leaks("abcd", "abcde", "--unlabeled", "test", list("vwxyz"))
    assert "remove them from --unlabeled" in caught.value.hint


def test_groups_stay_on_one_side_and_classes_keep_their_shares():
    rng = np.random.default_rng(0)
    n = 900
    day = rng.integers(0, 45, n)  # days of unequal size, each with several classes
    labels = np.where(rng.random(n) < 0.5, day % 3, rng.integers(0, 3, n))
    shas = [f"s{i}" for i in range(n)]
    shas[700] = shas[0]  # a copy ties two days together
    data = images(shas, labels.tolist(), 3, tuple(f"day {d}" for d in day))
    splits = make_splits(data, seed=0, val=0.15, test=0.25, group_by="column:day")
    rows = splits.indices(shas)
    side = {int(i): name for name, r in rows.items() for i in r}
    for d in range(45):
        assert len({side[i] for i in np.flatnonzero(day == d)}) == 1
    assert side[0] == side[700]
    for name, share in (("val", 0.15), ("test", 0.25)):
        counts = np.bincount(labels[rows[name]], minlength=3) / np.bincount(labels)
        assert np.abs(counts - share).max() < 0.04, name
    order = rng.permutation(n)
    shuffled = images(
        [shas[i] for i in order], labels[order].tolist(), 3, tuple(f"day {day[i]}" for i in order)
    )
    again = make_splits(shuffled, seed=0, val=0.15, test=0.25)
    assert assignment(again) == assignment(splits)


def test_scarce_classes_move_until_every_split_has_them():
    # the class 1 lies in three groups only, each mostly of class 0
    labels = [0] * 30 + [1, 0, 0, 0] * 3
    day = [f"a{i}" for i in range(30)] + [f"b{i // 4}" for i in range(12)]
    for seed in range(10):
        data = images([f"s{i}" for i in range(42)], labels, 2, tuple(day))
        rows = make_splits(data, seed=seed, val=0.15, test=0.15).indices(data.source_sha256)
        assert all((data.labels[r] == 1).sum() == 1 for r in rows.values())


def test_groups_that_cannot_be_split_say_why(tmp_path):
    one_day = images([f"s{i}" for i in range(20)], [0, 1] * 10, 2, ("monday",) * 20)
    with pytest.raises(DataInvalid, match=r"'class 0': 10 image\(s\) in 1 group") as caught:
        make_splits(one_day, seed=0)
    assert "--test" in caught.value.hint
    # each class is in three groups, but no side can have both without tearing
    crossed = images([f"s{i}" for i in range(4)], [0, 0, 1, 1], 2, ("a", "b", "a", "b"))
    with pytest.raises(DataInvalid, match="2 group"):
        make_splits(crossed, seed=0)
    data = images([f"s{i}" for i in range(9)], [0, 1, 2] * 3, 3, tuple("aaabbbccc"))
    splits = make_splits(data, seed=0, group_by="folder")
    splits.save(tmp_path / "splits.json")
    assert load_splits(tmp_path / "splits.json", data, group_by="folder") == splits
    with pytest.raises(DataInvalid, match="group_by=folder; now asked for: group_by=None"):
        load_splits(tmp_path / "splits.json", data)
    moved = images([f"s{i}" for i in range(9)], [0, 1, 2] * 3, 3, tuple("aaabbbccd"))
    with pytest.raises(DataInvalid, match="labels or groups differ"):
        load_splits(tmp_path / "splits.json", moved, group_by="folder")


def source(items: list[str], **columns: tuple[str, ...]) -> ImageSet:
    return ImageSet("src", tuple(items), lambda _: np.zeros((1, 1, 3), np.uint8), columns=columns)


def test_groups_are_told_by_folder_column_or_pattern():
    items = ["cat/cam1/a_01.png", "cat/cam2/b_01.png", "dog/cam1/c_02.png"]
    listed = source(items, day=("mon", "tue", "mon"))
    assert grouped(listed, None).groups is None
    assert grouped(listed, "folder").groups == ("cam1", "cam2", "cam1")
    assert grouped(listed, "column:day").groups == ("mon", "tue", "mon")
    assert grouped(listed, r"regex:_(\d+)\.png").groups == ("01", "01", "02")
    for wrong, problem in (
        ("colour", "write folder, column:NAME or regex:PATTERN"),
        ("column:dya", "did you mean 'day'"),
        ("regex:(", "for example"),
        ("regex:cam.", r"regex:\(cam\.\)"),
        ("regex:(cam2)", "the pattern is searched for"),
    ):
        with pytest.raises(DataInvalid) as caught:
            grouped(listed, wrong)
        assert re.search(problem, caught.value.hint), wrong
    with pytest.raises(DataInvalid, match="2 of the 3 images of src have no group; 'cat/cam1/"):
        grouped(listed, "regex:(cam2)")
    with pytest.raises(DataInvalid, match=r"'loose\.png' lies in no folder"):
        grouped(source(["loose.png"]), "folder")


def test_draws_are_stratified_nested_and_differ():
    labels = np.random.default_rng(0).integers(0, 5, 500)
    draws = {k: draw_labels(labels, k, seed=0, draw=2) for k in (5, 10, 40)}
    for k, rows in draws.items():
        assert np.bincount(labels[rows]).tolist() == [k] * 5
        assert (np.diff(rows) > 0).all()
    assert set(draws[5]) < set(draws[10]) < set(draws[40])
    np.testing.assert_array_equal(draws[5], draw_labels(labels, 5, seed=0, draw=2))
    assert set(draws[5]) != set(draw_labels(labels, 5, seed=0, draw=3))
    assert set(draws[5]) != set(draw_labels(labels, 5, seed=1, draw=2))
    with pytest.raises(DataInvalid, match="class 1: 2") as caught:
        draw_labels(np.array([0, 0, 0, 1, 1]), 3, seed=0, draw=0)
    assert "1 to 2" in caught.value.hint
    with pytest.raises(DataInvalid, match="'dog': 2"):
        draw_labels(np.array([0, 0, 0, 1, 1]), 3, seed=0, draw=0, class_names=("cat", "dog"))


def test_draws_take_copies_only_when_nothing_else_is_left():
    labels = np.repeat([0, 1], 20)
    # class 0 is five pictures, four times each; class 1 has one copy of a picture of class 0
    shas = [f"{i % 5:064x}" for i in range(20)] + [f"{i:064x}" for i in range(4, 24)]
    before: set[int] = set()
    for per_class in (1, 3, 5, 7, 20):
        rows = draw_labels(labels, per_class, seed=0, draw=1, source_sha256=shas)
        assert np.bincount(labels[rows]).tolist() == [per_class] * 2
        assert len({shas[row] for row in rows if row < 20}) == min(per_class, 5)
        assert before < set(rows)
        before = set(rows)
    assert any(
        len({shas[row] for row in draw_labels(labels, 5, seed=0, draw=draw)[:5]}) < 5
        for draw in range(5)
    )
    # without copies nothing changes
    distinct = [f"{i:064x}" for i in range(40)]
    np.testing.assert_array_equal(
        draw_labels(labels, 6, seed=3, draw=0, source_sha256=distinct),
        draw_labels(labels, 6, seed=3, draw=0),
    )


def test_digits_split_without_leaks():
    pytest.importorskip("sklearn", reason="ships the digits")
    from edgessl.data.sources import open_source

    data = prepare(open_source("digits"), None, InputSpec(height=16, width=16, resize=16))
    rows = make_splits(data, seed=0, val=0.15, test=0.25).indices(data.source_sha256)
    part = {name: [data.source_sha256[i] for i in r] for name, r in rows.items()}
    check_leaks(part["train"], part["test"], "train", "test")
    check_leaks(part["val"], part["test"], "val", "test")
    for name, share in (("val", 0.15), ("test", 0.25)):
        counts = np.bincount(data.labels[rows[name]])
        assert np.abs(counts - share * np.bincount(data.labels)).max() <= 1

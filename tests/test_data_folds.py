"""Repeated stratified K-fold: every image is tested once per repeat, unseen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgessl.core.errors import DataInvalid, FileInvalid
from edgessl.data.decode import Prepared
from edgessl.data.folds import folds_for, load_folds, make_folds, save_folds

ASKED = {"seed": 0, "group_by": None, "folds": 5, "repeats": 2, "val": 0.15}


def images(
    shas: list[str], labels: list[int], classes: int, groups: tuple[str, ...] | None = None
) -> Prepared:
    n = len(shas)
    return Prepared(
        images=np.zeros((n, 1, 1, 3), np.uint8),
        labels=np.array(labels, np.int64),
        class_names=tuple(f"class {c}" for c in range(classes)),
        items=tuple(f"{i}.png" for i in range(n)),
        sha256=tuple(shas),
        source_sha256=tuple(shas),
        source_sizes=np.ones((n, 2), np.int64),
        groups=groups,
        kept=np.arange(n),
        skipped=(),
    )


def balanced(per_class: int, classes: int = 3) -> Prepared:
    n = per_class * classes
    return images([f"s{i}" for i in range(n)], [i % classes for i in range(n)], classes)


def test_folds_are_made_when_a_test_split_would_be_too_small():
    assert folds_for(balanced(60), "auto", 0.25, False) == 5  # 45 test images
    assert folds_for(balanced(70), "auto", 0.25, False) is None  # 52
    assert folds_for(balanced(60), "auto", 0.25, True) is None
    assert folds_for(balanced(60), None, 0.25, False) is None
    assert folds_for(balanced(3), "auto", 0.25, False) == 3
    assert folds_for(balanced(70), 10, 0.25, False) == 10
    with pytest.raises(DataInvalid, match="exclude each other"):
        folds_for(balanced(60), 5, 0.25, True)
    with pytest.raises(DataInvalid, match=r"10 folds need .* 'class 0': 6") as caught:
        folds_for(balanced(6), 10, 0.25, False)
    assert "at most 6 folds" in caught.value.hint
    copies = images(["a", "a", "b", "c"], [0, 0, 1, 1], 2)
    with pytest.raises(DataInvalid, match=r"at least two folds .* distinct .* 'class 0': 1$"):
        folds_for(copies, "auto", 0.25, False)


def test_every_image_is_tested_once_per_repeat_and_classes_are_spread():
    data = balanced(23)
    parts = make_folds(data, seed=0, folds=5, repeats=3, validation_share=0.15)
    assert [(p.repeat, p.fold) for p in parts] == [(r, f) for r in range(3) for f in range(5)]
    for r in range(3):
        tested = np.concatenate([p.test for p in parts if p.repeat == r])
        assert sorted(tested) == list(range(69))
    for p in parts:
        together = np.concatenate([p.train, p.validation, p.test])
        assert sorted(together) == list(range(69))
        assert set(np.bincount(data.labels[p.test])) <= {4, 5}
        assert set(np.bincount(data.labels[p.validation])) <= {2, 3}
    assert any(
        (a.test.tolist() != b.test.tolist()) for a, b in zip(parts[:5], parts[5:], strict=False)
    )


def test_copies_and_groups_never_lie_on_two_sides_of_a_fold():
    rng = np.random.default_rng(0)
    day = rng.integers(0, 20, 150)
    shas = [f"{d}-{k}" for d, k in zip(day, rng.integers(0, 6, 150), strict=True)]
    shas[3] = shas[40]  # ties two days together
    labels = rng.integers(0, 3, 150).tolist()
    data = images(shas, labels, 3, tuple(map(str, day)))
    for p in make_folds(data, seed=1, folds=4, repeats=2, validation_share=0.2):
        sides = [p.train, p.validation, p.test]
        for values in (np.array(shas), day):
            found = [set(values[side]) for side in sides]
            assert len(found[0] | found[1] | found[2]) == sum(map(len, found))
        assert all(len(set(np.array(labels)[side])) == 3 for side in sides)


def test_two_images_per_class_are_enough_for_a_figure_but_not_for_choices():
    parts = make_folds(balanced(2), seed=0, folds=2, repeats=2, validation_share=0.15)
    for p in parts:
        assert len(p.validation) == 0
        assert sorted(np.concatenate([p.train, p.test])) == list(range(6))
        assert len(p.train) == len(p.test) == 3


def test_folds_survive_the_file_whatever_the_order_of_the_images(tmp_path):
    data, path = balanced(8), tmp_path / "splits.json"
    parts = make_folds(data, seed=0, folds=5, repeats=2, validation_share=0.15)
    save_folds(path, data, parts, asked=ASKED)
    order = np.random.default_rng(0).permutation(24)
    shas = [data.source_sha256[i] for i in order]
    shuffled = images(shas, data.labels[order].tolist(), 3)
    for before, after in zip(parts, load_folds(path, shuffled, asked=ASKED), strict=True):
        for name in ("train", "validation", "test"):
            rows = getattr(after, name)
            assert (np.diff(rows) > 0).all()
            assert sorted(order[rows]) == getattr(before, name).tolist()
    again = make_folds(shuffled, seed=0, folds=5, repeats=2, validation_share=0.15)
    assert [sorted(order[p.test]) for p in again] == [p.test.tolist() for p in parts]
    with pytest.raises(DataInvalid, match="with folds=5; now asked for: folds=4"):
        load_folds(path, data, asked=ASKED | {"folds": 4})
    changed = images(["new", *data.source_sha256[1:]], data.labels.tolist(), 3)
    with pytest.raises(DataInvalid, match="1 new, 1 gone"):
        load_folds(path, changed, asked=ASKED)
    body = json.loads(path.read_text())
    del body["folds"]
    path.write_text(json.dumps(body))
    with pytest.raises(FileInvalid, match="holds no folds"):
        load_folds(path, data, asked=ASKED)

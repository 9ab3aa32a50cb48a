"""data check and data prepare: what they find, and what they leave alone."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from edgessl import api_data
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid, UsageProblem
from edgessl.data.near import THRESHOLD, near_duplicates, thumbnail
from edgessl.data.sources import open_source

QUIET = Reporter(quiet=True)


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth picture of random blobs: like a photograph, most of it is in low frequencies."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def small(images: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(image)) for image in images])


def test_near_duplicates_are_copies_with_another_size_quality_or_exposure():
    originals = [scene(seed) for seed in range(40)]
    one, two = originals[3], originals[7]
    alike = [jpeg(one, 30), one.resize((60, 45)), ImageEnhance.Brightness(two).enhance(0.8),
             two.crop((1, 1, 159, 119))]  # fmt: skip
    found = near_duplicates(small([*originals, *alike]))
    assert found.group[[40, 41]].tolist() == [3, 3]
    assert found.group[[42, 43]].tolist() == [7, 7]
    others = [i for i in range(40) if i not in (3, 7)]
    assert found.group[others].tolist() == others
    assert len(found.pairs) == 4  # a chain through each group, not every pair
    assert [p.distance for p in found.pairs] == sorted(p.distance for p in found.pairs)


def test_the_search_misses_no_pair_within_the_threshold():
    rng = np.random.default_rng(0)
    base = small([scene(seed) for seed in range(30)]).astype(np.int64)
    noise = rng.normal(0, 1, (30, 20, 32, 32, 3)) * rng.uniform(1, 12, (30, 20, 1, 1, 1))
    thumbnails = (base[:, None] + noise).clip(0, 255).astype(np.uint8).reshape(-1, 32, 32, 3)
    flat = thumbnails.reshape(600, -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / np.maximum(flat.std(1, keepdims=True), 8)
    squares = (flat**2).sum(1)  # all pairs, by the book
    gaps = squares[:, None] + squares[None] - 2 * flat @ flat.T
    distance = np.sqrt(np.maximum(gaps, 0) / flat.shape[1])
    near = distance <= THRESHOLD
    group = np.arange(600)
    for _ in range(600):
        lowest = np.where(near, group[None], 600).min(1)
        if (lowest == group).all():
            break
        group = lowest
    found = near_duplicates(thumbnails)
    np.testing.assert_array_equal(found.group, group)
    assert len(found.pairs) == 600 - len(set(group.tolist()))
    for pair in found.pairs:
        assert pair.distance == pytest.approx(distance[pair.a, pair.b], abs=1e-3)


def test_flat_pictures_and_exact_copies_do_not_multiply_pairs():
    grey = np.full((50, 32, 32, 3), 120, np.uint8)
    grey[:, 0, 0, 0] += np.arange(50, dtype=np.uint8)
    assert len(near_duplicates(grey).pairs) == 49
    copies = near_duplicates(np.repeat(grey[:1], 9, axis=0), ["same"] * 9)
    assert copies.pairs == ()
    assert set(copies.group) == {0}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            scene(100 * k + i).save(tmp_path / "photos" / name / f"{i}.jpg")
    whole = (tmp_path / "photos/cat/0.jpg").read_bytes()
    (tmp_path / "photos/cat/torn\n<b>.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/dog/empty.png").touch()
    scene(5).convert("L").save(tmp_path / "photos/dog/grey.png")
    return tmp_path


def test_what_is_in_a_folder(photos):
    finding = api_data.data_check(["photos"], settings={"data.imgsz": 140}, reporter=QUIET)
    (source,) = finding.result["sources"]
    assert finding.errors == ()
    assert (source["images"], source["skipped_count"]) == (61, 2)
    assert source["classes"] == {"cat": 30, "dog": 31}
    assert source["modes"] == {"RGB": 60, "L": 1}
    assert source["aspect"]["median"] == pytest.approx(4 / 3, abs=1e-3)
    assert any(
        "61 of 61 images have a short side below 140" in r for r in finding.result["remarks"]
    )
    page = (photos / "data-check.html").read_text()
    assert "torn\n&lt;b&gt;.jpg" in page
    assert "<script" not in page
    assert "http://" not in page and "https://" not in page  # noqa: PT018
    assert page.count("data:image/jpeg;base64") == 1  # what is left of the torn file


def test_shared_images_are_errors_and_look_alikes_only_notes(photos):
    (photos / "test/cat").mkdir(parents=True)
    (photos / "test/dog").mkdir()
    (photos / "test/cat/x.jpg").write_bytes((photos / "photos/cat/3.jpg").read_bytes())
    jpeg(scene(104), 60).save(photos / "test/dog/y.png")
    settings = {"data.labels": "photos", "data.test": "test"}
    finding = api_data.data_check(settings=settings, reporter=QUIET)
    (error,) = finding.errors
    assert error.exit_code == 3
    assert "'cat/3.jpg' is 'cat/x.jpg'" in error.message
    (pair,) = finding.result["near_duplicates"]
    assert {pair["a"], pair["b"]} == {"dog/4.jpg", "dog/y.png"}
    assert {pair["a_split"], pair["b_split"]} - {"train", "validation"} == {"test"}
    assert finding.result["splits"] == {"train": 52, "validation": 9}
    # labels among the unlabeled: refused beside a test split, told in folds
    settings = {"data.labels": "photos", "data.unlabeled": "photos"}
    folds = api_data.data_check(settings=settings, reporter=QUIET)
    assert (folds.errors, folds.result["folds"]) == ((), 5)
    assert any("are also in" in remark for remark in folds.result["remarks"])
    held = api_data.data_check(settings={**settings, "data.folds": None}, reporter=QUIET)
    assert "61 image(s)" in held.errors[0].message


def test_near_duplicates_become_groups_of_a_list(photos):
    for i in range(6):
        jpeg(scene(2), 40 + 9 * i).save(photos / f"photos/cat/again{i}.png")
    out = photos / "lists/grouped.csv"
    finding = api_data.data_check(
        settings={"data.labels": "photos"}, group_list=out, out=photos / "p.html", reporter=QUIET
    )
    assert finding.result["near_groups"] == 1
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row["path"])
    together = max(groups.values(), key=len)
    assert sorted(path.rsplit("/", 1)[1] for path in together) == sorted(
        ["2.jpg", *(f"again{i}.png" for i in range(6))]
    )
    listed = open_source(str(out))
    assert len(listed) == 67
    assert listed.class_names == ("cat", "dog")
    checked = api_data.data_check(
        settings={
            "data.labels": str(out), "data.group_by": "column:group", "data.folds": None,
            "data.test_share": 0.2,
        },
        reporter=QUIET,
    )  # fmt: skip
    assert checked.result["near_across"] == 0
    assert checked.result["groups"] == 61
    with pytest.raises(UsageProblem, match="not overwritten"):
        api_data.data_check(["photos"], group_list=out, reporter=QUIET)
    with pytest.raises(UsageProblem, match="no files of their own"):
        api_data.data_check(["digits"], group_list=photos / "d.csv", reporter=QUIET)


def test_sources_come_from_the_defaults_file_or_must_be_named(photos):
    with pytest.raises(UsageProblem, match="no images were named"):
        api_data.data_check(reporter=QUIET)
    (photos / "edgessl.yaml").write_text("data: {labels: photos, folds: 3}\n")
    assert api_data.data_check(reporter=QUIET).result["folds"] == 3
    (photos / "few/a").mkdir(parents=True)
    scene(1).save(photos / "few/a/1.png")
    assert [s["role"] for s in api_data.data_check(["few"], reporter=QUIET).result["sources"]] == [
        "images"
    ]
    (photos / "few/b").mkdir()
    scene(2).save(photos / "few/b/1.png")
    lone = api_data.data_check(settings={"data.labels": "few"}, reporter=QUIET)
    assert isinstance(lone.errors[0], DataInvalid)
    assert "'a': 1" in lone.errors[0].message


def test_prepare_makes_a_cache_that_is_a_source(photos):
    with pytest.raises(UsageProblem, match="say where the cache goes"):
        api_data.data_prepare("photos", reporter=QUIET)
    made = api_data.data_prepare("photos", side=48, out=photos / "c48", reporter=QUIET)
    assert (made.result["images"], len(made.result["skipped"])) == (61, 2)
    assert made.result["bytes"] == 61 * 48 * 64 * 3
    found = api_data.data_check(settings={"data.labels": "c48"}, reporter=QUIET)
    assert found.result["sources"][0]["sizes"]["max"] == [160, 120]  # of the originals
    for name, fetched in (("digits", False), ("cars", False), ("cifar10:test", True)):
        with pytest.raises(UsageProblem) as caught:
            api_data.data_prepare(name, reporter=QUIET)
        assert ("--download" in caught.value.hint) == fetched, name
    with pytest.raises(UsageProblem, match="no dataset that can be downloaded"):
        api_data.data_prepare("photos", download=True, reporter=QUIET)


@pytest.mark.slow
def test_nothing_here_calls_the_network(photos):
    """Sockets are blocked: importing, listing, checking and preparing must not notice."""
    code = """
import socket, sys
def refuse(*a, **k): raise AssertionError(f"network call: {a}")
class Blocked(socket.socket):
    connect = connect_ex = sendto = refuse
socket.socket = Blocked
socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
from edgessl import api_data
from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.data import SOURCES
from edgessl.data.sources import open_source
for name in SOURCES:
    try: open_source(name)
    except DataInvalid: pass
q = Reporter(quiet=True)
api_data.data_check(settings={"data.labels": "photos"}, reporter=q)
api_data.data_prepare("photos", side=32, out=Path("c"), reporter=q)
"""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(photos), "EDGESSL_DATA": str(photos)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_command_prints_a_table_or_one_document(photos):
    command = [sys.executable, "-m", "edgessl", "data", "check", "photos"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cat 30" in told.stdout
    assert "skipped cat/torn\\n<b>.jpg" in told.stdout
    assert "next: open data-check.html" in told.stderr
    (photos / "again").mkdir()
    (photos / "again/x.jpg").write_bytes((photos / "photos/cat/3.jpg").read_bytes())
    both = subprocess.run(
        [*command, "again", "--json"], capture_output=True, text=True, check=False
    )
    document = json.loads(both.stdout)
    assert both.returncode == document["error"]["code"] == 3
    assert document["result"]["near_across"] == 0

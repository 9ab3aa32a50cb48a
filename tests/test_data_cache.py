"""The cache of reduced images: same identities, whole or absent, refused where too small."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.errors import DataInvalid, DiskFull, EdgeSSLError
from edgessl.data import cache
from edgessl.data.cache import open_cache, write_cache
from edgessl.data.decode import prepare
from edgessl.data.groups import grouped
from edgessl.data.image_set import ImageUnreadable
from edgessl.data.sources import open_source
from edgessl.data.splits import make_splits


def spec(side: int) -> InputSpec:
    return InputSpec(height=side, width=side, resize=side)


def nothing(done: int) -> None:
    pass


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            size = [(60, 40), (40, 60), (20, 24), (50, 50)][i % 4]
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos/a/torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "photos/b/9.png").write_bytes((tmp_path / "photos/b/1.png").read_bytes())
    return open_source(str(tmp_path / "photos"))


def test_a_cache_keeps_who_is_who_and_the_pixels_of_its_side(tmp_path, photos):
    write_cache(photos, 32, tmp_path / "small", nothing)
    small = open_source(str(tmp_path / "small"))
    assert [s.item for s in small.skipped] == ["a/torn.png"]
    assert small.class_names == ("a", "b")
    direct, cached = prepare(photos, None, spec(32)), prepare(small, None, spec(32))
    assert cached.items == direct.items
    assert cached.source_sha256 == direct.source_sha256
    np.testing.assert_array_equal(cached.source_sizes, direct.source_sizes)
    np.testing.assert_array_equal(cached.labels, direct.labels)
    np.testing.assert_array_equal(cached.images, direct.images)  # resized once, to the same
    assert min(small.load(2).shape[:2]) == 20  # never enlarged
    less = prepare(small, None, spec(16))  # resized twice: close, not equal
    assert np.abs(less.images.astype(int) - prepare(photos, None, spec(16)).images).mean() < 12
    one = make_splits(direct, seed=0, val=0.2, test=0.2)
    assert one == make_splits(cached, seed=0, val=0.2, test=0.2)
    # a cache of a cache still knows the originals
    write_cache(small, 16, tmp_path / "tiny", nothing)
    tiny = prepare(open_source(str(tmp_path / "tiny")), None, spec(16))
    assert tiny.source_sha256 == direct.source_sha256
    with pytest.raises(DataInvalid, match="short side of 32 pixels; 40 are wanted"):
        write_cache(small, 40, tmp_path / "more", nothing)


def test_a_larger_side_than_cached_is_refused_with_numbers(tmp_path, photos):
    write_cache(photos, 32, tmp_path / "small", nothing)
    with pytest.raises(
        DataInvalid, match=r"short side of 32 pixels; 48 are wanted here, and 13 of"
    ) as caught:
        prepare(open_source(str(tmp_path / "small")), None, spec(48))
    assert "--side 48" in caught.value.hint
    # where nothing was lost, nothing is refused
    write_cache(photos, 64, tmp_path / "whole", nothing)
    prepare(open_source(str(tmp_path / "whole")), None, spec(128))


def test_columns_for_groups_survive(tmp_path, photos):
    lines = [f"photos/{item},{item[0]},day {i % 3}" for i, item in enumerate(photos.items)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,day", *lines]))
    source = open_source(str(tmp_path / "list.csv"))
    write_cache(source, 16, tmp_path / "cached", nothing)
    cached = grouped(open_source(str(tmp_path / "cached")), "column:day")
    kept = [g for g, i in zip(grouped(source, "column:day").groups, source.items, strict=True)
            if "torn" not in i]  # fmt: skip
    assert list(cached.groups) == kept


def test_what_was_not_finished_is_not_there(tmp_path, photos, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_append", full)
        with pytest.raises(DiskFull, match="no space left"):
            write_cache(photos, 32, tmp_path / "small", nothing)
    with pytest.raises(KeyboardInterrupt):
        write_cache(
            photos, 32, tmp_path / "small", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos"]
    write_cache(photos, 32, tmp_path / "small", nothing)
    before = (tmp_path / "small/index.json").read_bytes()
    with pytest.raises(EdgeSSLError, match="exists and is not overwritten"):
        write_cache(photos, 16, tmp_path / "small", nothing)
    assert (tmp_path / "small/index.json").read_bytes() == before
    (tmp_path / "empty").mkdir()
    write_cache(photos, 32, tmp_path / "empty", nothing)
    with pytest.raises(EdgeSSLError, match="cannot write"):
        write_cache(photos, 32, Path("/proc/no/cache"), nothing)


def test_a_killed_writer_leaves_nothing_that_counts_and_two_do_not_mix(tmp_path, photos):
    code = (
        "import sys, time; from pathlib import Path;"
        "from edgessl.data.cache import write_cache; from edgessl.data.sources import open_source;"
        "write_cache(open_source(sys.argv[1]), 32, Path(sys.argv[2]), lambda n: time.sleep(60))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "photos"), str(tmp_path / "small")]
    writer = subprocess.Popen(command)
    part = tmp_path / ".small.part/pixels.bin"
    deadline = time.monotonic() + 60
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(EdgeSSLError, match="being written by another process"):
        write_cache(photos, 32, tmp_path / "small", nothing)
    assert part.exists()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not (tmp_path / "small").exists()
    assert len(write_cache(photos, 32, tmp_path / "small", nothing)) == 17
    assert not part.parent.exists()


def test_damaged_caches_are_refused(tmp_path, photos):
    folder = tmp_path / "small"
    write_cache(photos, 32, folder, nothing)
    pixels = bytearray((folder / "pixels.bin").read_bytes())
    pixels[5] ^= 1
    (folder / "pixels.bin").write_bytes(pixels)
    damaged = open_cache(folder, "x")
    with pytest.raises(ImageUnreadable, match="damaged"):
        damaged.load(0)
    damaged.load(1)
    (folder / "pixels.bin").write_bytes(pixels[:-1])
    with pytest.raises(DataInvalid, match="its index says"):
        open_source(str(folder))
    (folder / "pixels.bin").write_bytes(pixels)
    body = json.loads((folder / "index.json").read_text())
    body["images"]["item"].pop()
    (folder / "index.json").write_text(json.dumps(body))
    with pytest.raises(DataInvalid, match="not a whole index"):
        open_source(str(folder))


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(body):
        for key in path:
            body = body[key]
        body[last] = value

    return change


GARBLED = {
    "negative shape": (
        _set("images", "shape", 0, [-16, -19]),
        r"images.shape\[0\] is '\[-16, -19\]'",
    ),
    "fractional shape": (_set("images", "shape", 0, [48.0, 32.0]), "pair of positive integers"),
    "shape of one side": (_set("images", "shape", 0, [9]), "pair of positive integers"),
    "huge shape": (_set("images", "shape", 0, [4294967295, 4294967295]), "bytes, its index says"),
    "flag for a shape": (_set("images", "shape", 0, [True, 4608]), "pair of positive integers"),
    "too large a label": (_set("images", "label", 0, 99), "integer from 0 to 1"),
    "negative label": (_set("images", "label", 0, -1), "integer from 0 to 1"),
    "fractional label": (_set("images", "label", 0, 0.5), "integer from 0 to 1"),
    "few labels": (_set("images", "label", [0, 1]), "images.label has 2 values for 17 images"),
    "labels without classes": (_set("class_names", None), "class_names is no list"),
    "classes without labels": (_set("images", "label", None), "images.label is no list"),
    "numbered class": (_set("class_names", 1, 7), r"class_names\[1\] is '7', expected text"),
    "classes alike": (_set("class_names", ["a", "a"]), "names a class twice"),
    "text for classes": (_set("class_names", "ab"), "class_names is no list"),
    "numbered item": (_set("images", "item", 3, 3), r"images.item\[3\]"),
    "half a surrogate pair": (_set("images", "item", 3, "\ud800"), "surrogates"),
    "short column": (_set("columns", "day", ["mon"]), "columns.day has 1 values for 17"),
    "numbers in a column": (_set("columns", "day", [1] * 17), r"columns.day\[0\]"),
    "text for a column": (_set("columns", "day", "x" * 17), "columns.day is no list"),
    "no columns": (_set("columns", []), "columns is no object"),
    "cut hash": (_set("images", "source_sha256", 1, "ab12"), "64 hexadecimal digits"),
    "no hash": (_set("images", "source_sha256", 1, None), r"source_sha256\[1\] is 'None'"),
    "side of nothing": (_set("side", 0), r"side\[0\]"),
    "huge original": (_set("images", "source_size", 0, [10**30, 1]), "images.source_size"),
    "huge check sum": (_set("images", "crc32", 0, 1 << 80), "images.crc32"),
    "skipped of another form": (_set("skipped", ["torn.png"]), "skipped.0 is no object"),
    "source of another form": (_set("source", 3), "source"),
    "no table": (_set("images", None), "images is no object"),
    "no images": (lambda body: body["images"].update(item=[]), "lists no image"),
    "no side": (lambda body: body.pop("side"), "it lacks 'side'"),
}


@pytest.fixture
def whole(tmp_path, photos):
    """A cache and its index, with a column."""
    folder = tmp_path / "whole"
    write_cache(photos, 32, folder, nothing)
    body = json.loads((folder / "index.json").read_text())
    body["columns"] = {"day": ["mon"] * 17}
    return folder, body


def test_a_garbled_index_is_bad_data_and_not_a_bug(whole):
    folder, body = whole
    for what, (change, problem) in GARBLED.items():
        garbled = json.loads(json.dumps(body))
        change(garbled)
        (folder / "index.json").write_text(json.dumps(garbled))
        with pytest.raises(DataInvalid) as caught:
            open_source(str(folder))
        assert re.search(problem, caught.value.message), (what, caught.value.message)
        assert caught.value.hint == "prepare the cache again", what
    (folder / "index.json").write_text(json.dumps(body))
    assert grouped(open_source(str(folder)), "column:day").groups == ("mon",) * 17

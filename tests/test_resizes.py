"""What the usual ways to prepare a picture do, and what they cost a net that depends on them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from edgessl.core.artifact import InputSpec
from edgessl.core.runs import RunFolder
from edgessl.core.statistics import paired_difference
from edgessl.data import resizes as ways_of
from edgessl.data.decode import fit
from edgessl.data.resizes import WAYS
from edgessl.stages.context import Context
from edgessl.stages.recipes import validated
from edgessl.stages.resizes import FILE, chosen, measure_resizes

SIDE = 16
WHOLE = InputSpec(height=8, width=8, resize=8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_way_gives_the_size_of_the_net_and_the_first_is_the_contract():
    spec = InputSpec(height=24, width=20, resize=28)
    for picture in (noise(61, 90), noise(90, 61), noise(10, 400), noise(9, 7)):
        for way in WAYS:
            if way.available:
                assert way.prepare(picture, spec).shape == (24, 20, 3), way.name
                assert way.prepare(picture, spec).dtype == np.uint8
        np.testing.assert_array_equal(WAYS[0].prepare(picture, spec), fit(picture, 24, 20, 28))
    assert len({way.name for way in WAYS}) == len(WAYS)


def test_filters_do_what_they_are_called():
    picture = noise(32, 32)
    tiles = picture.astype(float).reshape(8, 4, 8, 4, 3)
    middle = tiles[:, 1:3, :, 1:3].mean((1, 3))  # the four pixels around each new centre
    assert np.abs(ways_of.without_antialias(picture, WHOLE) - middle).max() <= 0.5
    np.testing.assert_array_equal(ways_of.nearest(picture, WHOLE), picture[2::4, 2::4])
    np.testing.assert_array_equal(
        ways_of.in_bgr(picture, WHOLE), fit(picture, 8, 8, 8)[:, :, [2, 1, 0]]
    )


def test_opencv_averages_areas_and_otherwise_skips_pixels():
    pytest.importorskip("cv2", reason="OpenCV is optional")
    picture = noise(32, 32)
    tiles = picture.astype(float).reshape(8, 4, 8, 4, 3)
    assert np.abs(ways_of.opencv_area(picture, WHOLE) - tiles.mean((1, 3))).max() <= 1
    linear, plain = (
        way(picture, WHOLE).astype(int)
        for way in (ways_of.opencv_linear, ways_of.without_antialias)
    )
    assert np.abs(linear - plain).max() <= 1


def test_framing_is_kept_lost_or_shifted_as_the_names_say():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :10] = (255, 0, 0)  # beyond the square in the centre
    spec = InputSpec(height=16, width=16, resize=20)
    assert ways_of.as_agreed(picture, spec).max() == 0
    assert (ways_of.squashed(picture, spec)[:, :, 0] > 128).sum() == 2 * 16
    wide = np.repeat(np.arange(40, dtype=np.uint8)[None, :, None] * 6, 40, 0).repeat(3, 2)
    shown = {
        f: np.ptp(f(wide, spec).astype(int)) for f in (ways_of.as_agreed, ways_of.without_margin)
    }
    assert shown[ways_of.without_margin] > shown[ways_of.as_agreed] + 20


class Redder(torch.nn.Module):
    """Class 0 for pictures that are more red than blue; counts its passes."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 2, bias=False)
        self.passes = 0
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))

    def forward(self, x):
        self.passes += 1
        return self.head(x.mean((2, 3)))


def run_on(tmp_path, colours: dict[str, list[tuple[int, int, int]]], size=(40, 30), **data):
    """Return a context with pictures of one colour each in class folders, and a net for it."""
    for name, values in colours.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, colour in enumerate(values):
            picture = Image.new("RGB", size, colour)
            picture.putpixel((i % size[0], i // size[0]), (i, i, i))  # no two are alike
            picture.save(tmp_path / "photos" / name / f"{i}.png")
    recipe = validated(
        {"data": {"imgsz": SIDE, "test": str(tmp_path / "photos"), **data}}
        if "labels" in data
        else {"data": {"imgsz": SIDE, "unlabeled": str(tmp_path / "photos"), **data}}
    )
    reporter = SimpleNamespace(lines=[], log=None)
    reporter.say = reporter.detail = reporter.warn = reporter.lines.append
    context = Context(recipe, RunFolder.create(tmp_path / "run", "t"), reporter)
    artifact = SimpleNamespace(
        labels=("reddish", "bluish"), seal="5" * 64, input=InputSpec.square(SIDE)
    )
    return context, SimpleNamespace(network=Redder().eval(), artifact=artifact)


def colours(n, strong, weak, seed):
    grain = np.random.default_rng(seed).integers(0, 50, (n, 3))
    return [(strong + a, 90 + b, weak + c) for a, b, c in grain.tolist()]


@pytest.fixture
def with_labels(tmp_path):
    (tmp_path / "train").mkdir()
    for offset, name in ((0, "bluish"), (12, "reddish")):
        (tmp_path / "train" / name).mkdir()
        for i in range(12):
            picture = Image.fromarray(noise(20, 20, offset + i))
            picture.save(tmp_path / "train" / name / f"{i}.png")
    return run_on(
        tmp_path,
        {"reddish": colours(30, 180, 20, 1), "bluish": colours(20, 20, 180, 2)},
        labels=str(tmp_path / "train"), folds=None,
    )  # fmt: skip


def test_swapped_colours_flip_every_answer_of_a_net_that_looks_at_colour(with_labels):
    context, source = with_labels
    source.artifact.labels = context.class_names
    with torch.no_grad():  # class 0 is "bluish": folders are sorted
        source.network.head.weight.mul_(-1)
    body = measure_resizes(context, source)
    assert body is not None
    assert body["n"] == 50
    contract, *others = body["rows"]
    assert (contract["name"], contract["agreement"], contract["top1"]) == (WAYS[0].name, 1.0, 1.0)
    assert contract["delta"] is None
    rows = {row["name"]: row for row in others}
    low, high = paired_difference(0, 50, 50)
    swapped = rows["BGR instead of RGB"]
    assert (swapped["agreement"], swapped["top1"], swapped["delta"]) == (0.0, 0.0, -1.0)
    assert (swapped["delta_low"], swapped["delta_high"]) == (low, high)
    assert rows["nearest neighbour"]["delta"] == 0.0
    assert rows["nearest neighbour"]["delta_low"] < 0 < rows["nearest neighbour"]["delta_high"]
    assert "BGR" in context.reporter.lines[-1]
    assert json.loads((context.run.path / FILE).read_text())["rows"] == body["rows"]


def test_figures_are_kept_for_the_same_net_and_images_only(with_labels):
    context, source = with_labels
    source.artifact.labels = context.class_names
    first = measure_resizes(context, source)
    passes = source.network.passes
    kept = measure_resizes(context, source)
    assert kept is not None
    assert first is not None
    assert kept["rows"] == first["rows"]
    assert source.network.passes == passes
    source.artifact.seal = "6" * 64
    measure_resizes(context, source)
    assert source.network.passes == 2 * passes


def test_at_the_size_of_the_net_only_colours_and_normalisation_can_go_wrong(tmp_path):
    context, source = run_on(tmp_path, {"all": colours(9, 150, 60, 3)}, size=(SIDE, SIDE))
    body = measure_resizes(context, source)
    assert body is not None
    assert [row["name"] for row in body["rows"]] == [
        "Pillow, bilinear", "BGR instead of RGB", "mean and std left out",
    ]  # fmt: skip
    assert all(row["top1"] is None and row["delta"] is None for row in body["rows"])
    assert source.network.passes == 3


def test_grey_pictures_have_no_order_of_colours(tmp_path):
    grey = [(v, v, v) for v in range(40, 240, 20)]
    context, source = run_on(tmp_path, {"all": grey}, size=(SIDE, SIDE))
    source.artifact.input = InputSpec(
        height=SIDE, width=SIDE, resize=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    body = measure_resizes(context, source)
    assert body is not None
    assert len(body["rows"]) == 1
    assert "same input" in context.reporter.lines[-1]


def test_a_net_without_classes_is_not_measured(tmp_path):
    context, source = run_on(tmp_path, {"all": colours(4, 150, 60, 3)})
    source.artifact.labels = ()
    assert measure_resizes(context, source) is None
    assert not (context.run.path / FILE).exists()


def test_large_images_are_fewer_and_spread_over_all():
    small, large = InputSpec.square(32), InputSpec.square(224)
    assert len(chosen(5000, small)) == 2000
    assert 256 <= len(chosen(5000, large)) < 500
    assert len(chosen(30, large)) == 30
    rows = chosen(5000, large)
    assert (rows[0], rows[-1]) == (0, 4999)
    assert len(set(rows.tolist())) == len(rows)

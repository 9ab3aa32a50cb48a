"""The search for a quantised file: figures worked by hand, the order, and what is never chosen."""

import json

import numpy as np
import pytest

from edgessl.core.errors import ConversionFailed, DiskFull, GateFailed, Interrupted, NativeCrash
from edgessl.exporters.base import Scheme
from edgessl.exporters.parity import BROKEN
from edgessl.quantization.criteria import Bounds
from edgessl.quantization.figures import Deviation, Figures, holds, measure, pointless
from edgessl.quantization.search import Candidate, Ladder, search

ALL = ("dynamic", "fp16", "int8", "w8a16")
FLOAT_BYTES = 1000


def figures(kl=1.0, *, n=100, flips=50, shift=0.0, bytes=250, ratio=None):
    return Figures(Deviation(n, flips, kl, shift, 20.0), bytes, ratio and 2 * ratio, ratio)


def ladder(asked="int8", *, offered=ALL, layers=60, images=10_000, aware=True):
    """A ladder over layers L0, L1, ... by sensitivity, each fed by a layer F."""
    ranked = [(f"L{i}", "F") for i in range(layers)]
    return Ladder(Scheme(asked), offered, lambda: ranked, 256, images, aware)


def tried(of, try_one=lambda _: figures(), **options):
    return search(
        of.candidates, try_one, **({"bounds": Bounds(), "float_bytes": FLOAT_BYTES} | options)
    )


def names(outcome):
    return [one.candidate.name for one in outcome.tries]


# figures


def test_the_figures_of_two_answers_worked_by_hand():
    want = np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    got = np.log([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]) + 7.0  # a constant changes no softmax
    seen = measure(want, got)
    assert (seen.n, seen.flips, seen.agreement) == (2, 1, 0.5)
    # the first image: 0.5 log 2 + 0.25 log 1/2
    assert seen.kl == pytest.approx(0.25 * np.log(2) / 2)
    assert seen.shift == pytest.approx(0.0)
    assert measure(want, np.zeros((2, 3))).shift == pytest.approx(0.55 - 1 / 3)
    assert measure(want, want) == Deviation(2, 0, 0.0, 0.0, 300.0)
    assert measure(10 * want, 11 * want).snr_db == pytest.approx(20.0)


def test_an_answer_that_is_no_number_is_as_bad_as_can_be():
    want = np.array([[0.0, 9.0], [9.0, 0.0]])
    seen = measure(want, np.array([[np.nan, 9.0], [9.0, 0.0]]))
    assert (seen.flips, seen.kl) == (1, BROKEN)
    assert seen.shift == pytest.approx(0.5, abs=1e-3)
    assert seen.snr_db < -100
    with pytest.raises(GateFailed, match="itself"):
        measure(np.full((1, 2), np.inf), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("flips", "shift", "want"),
    [(29, 0.0, True), (30, 0.0, False), (0, 0.05, True), (0, 0.051, False), (0, -0.051, False)],
)
def test_a_bound_is_held_up_to_itself(flips, shift, want):
    # 0.29 * 100 is 28.999999999999996
    assert holds(figures(flips=flips, shift=shift), Bounds(max_drop=0.29)) is want


@pytest.mark.parametrize(
    ("bytes", "ratio", "want"),
    [(1000, 1.2, True), (999, 1.2, False), (1000, 1.04, False), (2000, None, False)],
)
def test_pointless_is_slower_and_no_smaller(bytes, ratio, want):
    assert pointless(figures(bytes=bytes, ratio=ratio), FLOAT_BYTES) is want


# the order


def test_all_rungs_of_int8_in_their_order():
    kls = {"int8, minmax": 0.9, "int8, percentile": 0.3, "int8, moving_average": 0.5}
    outcome = tried(ladder(), lambda c: figures(kls.get(c.name, 0.4)))
    best = "int8, percentile"
    assert names(outcome) == [
        *kls,
        f"{best}, 1024 images",
        f"{best}, 1 sensitive layer in float",
        f"{best}, 3 sensitive layers in float",
        f"{best}, 6 sensitive layers in float",
        f"{best}, quantisation-aware",
        "w8a16",
        "dynamic",
    ]
    three, aware, dynamic = (outcome.tries[i].candidate for i in (5, 7, 9))
    assert three.scheme == Scheme("int8", "percentile", ("L0", "F", "L1", "L2"))
    assert aware.scheme == Scheme("int8", "percentile")
    assert [c.aware for c in (three, aware)] == [False, True]
    assert (three.calibration_images, dynamic.calibration_images) == (256, 0)
    assert outcome.chosen == outcome.tries[1].candidate
    assert not outcome.held


def test_a_rung_that_cannot_be_is_left_out():
    poor = ladder(offered=("int8",), layers=2, images=100, aware=False)
    assert names(tried(poor))[3:] == ["int8, minmax, 1 sensitive layer in float"]
    some_more = tried(ladder(images=300)).tries[3].candidate
    assert some_more.calibration_images == 300
    assert names(tried(ladder("w8a16")))[-1] == "dynamic"
    assert names(tried(ladder("fp16"))) == ["fp16"]
    mine = Ladder(Scheme("int8", float_layers=("A",), integer_io=True), ALL, list, 9, 9)
    schemes = [one.candidate.scheme for one in tried(mine).tries]
    assert all(scheme.float_layers == ("A",) and scheme.integer_io for scheme in schemes)


def test_nothing_is_prepared_before_it_is_needed():
    def never():
        raise AssertionError("sensitivity was asked for")

    lazy = Ladder(Scheme("int8"), ALL, never, 256, 10_000)
    good = figures(0.1, flips=1)
    outcome = tried(lazy, lambda c: good if c.calibration_images == 1024 else figures())
    assert outcome.held
    assert outcome.chosen == outcome.tries[-1].candidate
    assert len(outcome.tries) == 4
    assert len(tried(lazy, lambda _: good).tries) == 1


# the choice


def test_what_is_slower_and_no_smaller_is_never_chosen():
    def try_one(candidate):  # int8 is exact and pointless, w8a16 holds, too, but comes later
        if candidate.scheme.precision == "int8":
            return figures(0.0, flips=0, bytes=FLOAT_BYTES, ratio=2.0)
        return figures(0.2, flips=1, ratio=8.0)

    outcome = tried(ladder(), try_one)
    assert outcome.chosen is not None
    assert outcome.chosen.name == "w8a16"
    assert outcome.held
    all_pointless = tried(ladder(), lambda _: figures(0.0, flips=0, bytes=1001, ratio=1.1))
    assert all_pointless.chosen is None


def test_a_candidate_that_fails_is_noted_and_the_search_goes_on():
    def try_one(candidate):
        if "percentile" in candidate.name:
            raise NativeCrash("the quantiser died in /home/ada/runs/x/model.onnx: signal 11")
        if candidate.scheme.calibration == "minmax":
            raise ConversionFailed("no such thing")
        return figures(0.7)

    outcome = tried(ladder(), try_one)
    assert [one.error is None for one in outcome.tries[:3]] == [False, False, True]
    assert names(outcome)[4] == "int8, moving_average, 1 sensitive layer in float"
    assert outcome.chosen is not None
    assert outcome.chosen.name == "int8, moving_average"
    text = json.dumps(outcome.record(seal="", selection={}, float_ms=None))
    assert "the quantiser died in model.onnx: signal 11" in text
    assert "ada" not in text

    def fail(_):
        raise ConversionFailed("no such thing")

    nothing = tried(ladder(), fail)
    assert nothing.chosen is None
    assert names(nothing)[3] == "int8, minmax, 1024 images"
    assert {one.error for one in nothing.tries} == {"no such thing"}


@pytest.mark.parametrize("error", [Interrupted, DiskFull])
def test_what_says_nothing_about_the_candidate_ends_the_search(error):
    def stop(_):
        raise error("now")

    with pytest.raises(error):
        tried(ladder(), stop)


def test_the_record_of_a_search():
    outcome = search(
        lambda _: [Candidate("int8, minmax", Scheme("int8", float_layers=("a",)), 64)],
        lambda _: figures(0.001, flips=1, ratio=0.5),
        bounds=Bounds(),
        float_bytes=FLOAT_BYTES,
    )
    body = outcome.record(seal="f" * 64, selection={"n": 100, "images": []}, float_ms=4.0)
    assert json.loads(json.dumps(body)) == body
    (row,) = body.pop("candidates")
    assert body == {
        "seal": "f" * 64,
        "asked": "int8",
        "chosen": "int8, minmax",
        "selection": {"n": 100, "images": []},
        "float": {"bytes": FLOAT_BYTES, "ms": 4.0},
    }
    assert row.pop("seconds") >= 0
    assert row == {
        "name": "int8, minmax",
        "scheme": {
            "precision": "int8", "calibration": "minmax", "float_layers": ["a"],
            "integer_io": False,
        },
        "calibration_images": 64, "aware": False, "n": 100, "agreement": 0.99, "kl": 0.001,
        "shift": 0.0, "snr_db": 20.0, "labelled": 0, "drop": 0.0, "bytes": 250,
        "ms": 1.0, "ratio": 0.5, "holds": True,
        "pointless": False, "error": None,
    }  # fmt: skip


def test_labels_let_harmless_flips_pass():
    """3 % of flips that cost nothing: with 5,000 labelled proof images the bound would hold."""
    reference = np.eye(4)[np.arange(400) % 4]
    got = reference.copy()
    labels = np.arange(400) % 4
    got[:12] = got[:12, [1, 0, 3, 2]]  # twelve flips
    labels[:6] = got[:6].argmax(1)  # six of them right, six wrong
    seen = measure(reference, got, labels)
    assert (seen.flips, seen.labelled, seen.drop) == (12, 400, 0.0)
    figures = Figures(seen, 1)
    assert not holds(figures, Bounds())
    assert not holds(figures, Bounds(), proof=1000)  # 1.645 sqrt(0.03 / 1000) = 0.90 points
    assert holds(figures, Bounds(), proof=5000)  # 0.40 points
    unknown = measure(reference, got, np.where(np.arange(400) < 12, -1, labels))
    assert (unknown.labelled, unknown.drop) == (388, 0.0)
    labels[:12] = np.arange(12) % 4  # all of them wrong
    assert measure(reference, got, labels).drop == pytest.approx(0.03)
    assert not holds(Figures(measure(reference, got, labels), 1), Bounds(), proof=5000)

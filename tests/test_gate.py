"""The gate's verdicts: worked cases, labels that settle flips, and outputs that are broken."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from edgessl.core.errors import DataInvalid, GateFailed
from edgessl.core.noninferiority import drop_lower, drop_upper
from edgessl.quantization.gate import UNKNOWN, Bounds, as_record, judge

CLASSES = 3


def answers(n, lost=0, gained=0, neither=0):
    """Return logits of a reference and a file, and all labels.

    The reference says 0. The file says 1 on the first images, where the label is 0 (lost), then
    1 (gained), then 2 (neither); elsewhere it says 0, which is right. The file is as confident.
    """
    flips = lost + gained + neither
    reference = np.tile([2.0, 0.0, 0.0], (n, 1))
    got = reference.copy()
    got[:flips] = [0.0, 2.0, 0.0]
    labels = np.zeros(n, np.int64)
    labels[lost:flips] = [1] * gained + [2] * neither
    return reference, got, labels


def test_no_flips_among_few_images_say_how_many_it_takes():
    verdict = judge(*answers(35))
    assert (verdict.outcome, verdict.flips, verdict.to_label) == ("INCONCLUSIVE", 0, ())
    assert verdict.needed == 299
    assert verdict.reasons == (
        "0 of 35 answers flip: that bounds the drop at 8.2 points; "
        "299 such images would bound it at 1",
    )
    assert judge(*answers(298)).outcome == "INCONCLUSIVE"
    enough = judge(*answers(299))
    assert (enough.outcome, enough.needed) == ("PASS", None)


def test_unlabelled_flips_are_lost_above_and_gained_below():
    reference, got, labels = answers(35, lost=6, gained=4, neither=2)
    verdict = judge(reference, got, np.full(35, UNKNOWN))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].startswith("12 of 35 answers flip; label these 12")
    assert verdict.to_label == tuple(range(12))
    assert (verdict.labelled, verdict.unlabelled_flips, verdict.drop) == (0, 12, None)
    assert verdict.drop_high == drop_upper(0, 12, 35)
    assert verdict.drop_low == drop_lower(12, 0, 35, 0.975)

    partly = labels.copy()
    partly[[0, 1, 7]] = UNKNOWN  # two that are lost and one that is gained
    verdict = judge(reference, got, partly)
    assert "and labels could not decide" in verdict.reasons[0]
    assert (verdict.lost, verdict.gained, verdict.to_label) == (4, 3, (0, 1, 7))
    assert verdict.drop_high == drop_upper(3, 7, 35)
    assert verdict.drop_low == drop_lower(6, 4, 35, 0.975)

    whole = judge(reference, got, labels)
    assert (whole.lost, whole.gained, whole.drop) == (6, 4, pytest.approx(2 / 35))
    assert "6 lost and 4 gained" in whole.reasons[0]


@pytest.mark.parametrize(
    ("lost", "gained", "neither", "outcome"),
    [(20, 55, 5, "PASS"), (75, 5, 0, "FAIL"), (45, 30, 5, "INCONCLUSIVE")],
)
def test_labels_of_the_flips_alone_settle_it(lost, gained, neither, outcome):
    reference, got, labels = answers(2000, lost, gained, neither)
    verdict = judge(reference, got, np.full(2000, UNKNOWN))
    assert (verdict.outcome, verdict.needed) == ("INCONCLUSIVE", 2000)
    assert verdict.reasons == ("80 of 2,000 answers flip; label these 80",)

    only_flips = np.full(2000, UNKNOWN)
    only_flips[list(verdict.to_label)] = labels[list(verdict.to_label)]
    settled = judge(reference, got, only_flips)
    assert settled.outcome == outcome
    assert settled.to_label == ()
    # what is known of images that did not flip changes nothing but the count
    every = judge(reference, got, labels)
    assert as_record(every, Bounds()) == as_record(settled, Bounds()) | {"labelled": 2000}


def test_no_label_can_overturn_a_decision():
    # every way to label the open flips, from where some of the labels are known already
    bounds = Bounds(max_drop=0.1)
    decided = 0
    for lost, gained, unlabelled in itertools.product((0, 3, 9), (0, 4), (0, 2, 4)):
        reference, got, labels = answers(60, lost, gained, unlabelled)
        open_ = slice(lost + gained, lost + gained + unlabelled)
        labels[open_] = UNKNOWN
        before = judge(reference, got, labels, bounds)
        for right in range(unlabelled + 1):
            labels[open_] = [0] * right + [1] * (unlabelled - right)
            after = judge(reference, got, labels, bounds)
            assert before.drop_low <= after.drop_low < after.drop_high <= before.drop_high
            if before.outcome != "INCONCLUSIVE":
                decided += 1
                assert after.outcome == before.outcome
    assert decided > 10


def test_flips_that_are_labelled_in_part_ask_for_the_rest():
    reference, got, labels = answers(2000, lost=30, gained=30, neither=40)
    labels[:50] = UNKNOWN
    verdict = judge(reference, got, labels)
    assert verdict.reasons == ("100 of 2,000 answers flip; label the 50 that lack one",)


def test_labels_that_could_decide_nothing_are_not_asked_for():
    reference, got, _ = answers(35, lost=1)
    verdict = judge(reference, got, np.full(35, UNKNOWN))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.needed is not None
    assert verdict.needed > 35
    assert verdict.reasons[0].startswith("1 of 35 answers flips, and labels could not decide")


def test_a_drop_at_the_very_limit_is_decided_by_no_number_of_images():
    verdict = judge(*answers(2000, lost=40, gained=20))
    assert (verdict.outcome, verdict.needed) == ("INCONCLUSIVE", None)
    assert "no number of such images would decide" in verdict.reasons[0]


def test_the_shift_of_confidence_has_students_interval():
    rng = np.random.default_rng(4)
    reference = rng.normal(0, 3, (400, 7)).astype(np.float32)
    got = reference + rng.normal(0, 0.01, (400, 7)).astype(np.float32)

    def top1(logits):
        wide = np.exp(logits.astype(np.float64))
        return (wide / wide.sum(axis=1, keepdims=True)).max(axis=1)

    verdict = judge(reference, got, reference.argmax(axis=1))
    want = stats.ttest_1samp(top1(reference) - top1(got), 0).confidence_interval(0.95)
    assert (verdict.shift_low, verdict.shift_high) == pytest.approx((want.low, want.high), abs=1e-9)
    assert verdict.shift == pytest.approx((top1(reference) - top1(got)).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("scale", "outcome", "verb"), [(0.5, "FAIL", "falls"), (2.0, "FAIL", "rises"), (1, "PASS", "")]
)
def test_the_same_answers_with_another_confidence_fail(scale, outcome, verb):
    reference, _, labels = answers(500)
    # e^2 / (e^2 + 2) = 0.787, e / (e + 2) = 0.576, e^4 / (e^4 + 2) = 0.965
    shifts = {0.5: 0.787 - 0.576, 2.0: 0.787 - 0.965, 1: 0.0}
    verdict = judge(reference, scale * reference, labels)
    assert verdict.outcome == outcome
    assert verdict.shift == pytest.approx(shifts[scale], abs=1e-3)
    assert verdict.flips == 0
    assert verb in verdict.reasons[-1]


def test_an_undecided_shift_says_what_it_takes():
    reference, _, labels = answers(500)
    got = reference.copy()
    got[:120] = [0.5, 0, 0]  # e^0.5 / (e^0.5 + 2) = 0.452: 0.335 less on 24 % is 8 points
    got[120:200] = [9, 0, 0]  # 0.213 more on 16 % takes 3.4 of them back
    verdict = judge(reference, got, labels)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.shift_low < 0.05 < verdict.shift_high
    half = (verdict.shift_high - verdict.shift_low) / 2
    margin = abs(0.05 - verdict.shift)
    assert verdict.needed == math.ceil(500 * (half / margin) ** 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_output_fails_whatever_its_label(value):
    reference, got, labels = answers(2000)
    got[[3, 8], [0, 2]] = value
    labels[3], labels[8] = 2, UNKNOWN  # the reference is wrong on the one, the other is unknown
    verdict = judge(reference, got, labels)
    assert verdict.outcome == "FAIL"
    assert verdict.reasons == ("2 of 2,000 outputs are NaN or infinite",)
    assert (verdict.flips, verdict.lost, verdict.unlabelled_flips, verdict.to_label) == (
        2,
        2,
        0,
        (),
    )
    assert verdict.drop == pytest.approx(0.001)
    assert verdict.shift == pytest.approx(2 * 0.787 / 2000, abs=1e-6)
    json.dumps(as_record(verdict, Bounds()), allow_nan=False)


def test_a_broken_reference_or_other_shapes_judge_nothing():
    reference, got, labels = answers(10)
    with pytest.raises(GateFailed, match="shape"):
        judge(reference, got[:, :2], labels)
    with pytest.raises(GateFailed, match="shape"):
        judge(reference[:0], got[:0], labels[:0])
    reference[0, 0] = np.nan
    with pytest.raises(GateFailed, match="reference itself"):
        judge(reference, got, labels)


@pytest.mark.parametrize(
    "labels", [np.zeros(9, np.int64), np.zeros(10), np.full(10, 3), np.full(10, -2)]
)
def test_labels_that_do_not_fit_are_refused(labels):
    reference, got, _ = answers(10)
    with pytest.raises(DataInvalid) as error:
        judge(reference, got, labels)
    assert error.value.hint


def test_bounds_that_mean_nothing_are_refused():
    for wrong in ({"max_drop": 1.0}, {"max_drop": -0.01}, {"confidence": 95.0}, {"max_shift": 0.0}):
        with pytest.raises(DataInvalid):
            Bounds(**wrong)


def test_the_record_is_json_and_counts_what_needs_a_label():
    reference, got, _ = answers(35, lost=12)
    verdict = judge(reference, got, np.full(35, UNKNOWN))
    record = json.loads(json.dumps(as_record(verdict, Bounds()), allow_nan=False))
    assert record["to_label"] == 12
    assert record["bounds"] == {"max_drop": 0.01, "confidence": 0.95, "max_shift": 0.05}
    assert record["drop"] is None
    assert set(record) == {
        "outcome", "n", "labelled", "flips", "unlabelled_flips", "gained", "lost", "drop",
        "drop_low", "drop_high", "shift", "shift_low", "shift_high", "needed", "to_label",
        "reasons", "bounds",
    }  # fmt: skip
    single = judge(reference[:1], got[:1], [UNKNOWN])  # one image tells nothing
    assert (single.outcome, single.shift_low, single.shift_high) == ("INCONCLUSIVE", -1, 1)

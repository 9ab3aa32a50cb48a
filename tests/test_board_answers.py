"""One file at two places: agreement and paired accuracy decide, and doubt is not failure."""

import pytest

from edgessl.core.noninferiority import drop_upper
from edgessl.stages.board_answers import Answer, compare_answers


def answers(*predicted, labels=None):
    labels = labels if labels is not None else [0] * len(predicted)
    return [
        Answer(f"image-{i}", label, p)
        for i, (label, p) in enumerate(zip(labels, predicted, strict=True))
    ]


def test_equal_answers_pass_once_there_are_enough_images():
    many = answers(*[0] * 400)
    parity = compare_answers(many, many, "none", 0.01)
    assert (parity.outcome, parity.agreement, parity.drop) == ("PASS", 1.0, 0.0)
    assert parity.drop_high == pytest.approx(drop_upper(0, 0, 400))
    few = answers(*[0] * 20)
    assert compare_answers(few, few, "none", 0.01).outcome == "INCONCLUSIVE"


def test_flips_are_counted_by_who_is_right():
    here = answers(*[0] * 997, 1, 2, 0)
    there = answers(*[0] * 997, 0, 1, 1)  # one gained, one as wrong as before, one lost
    parity = compare_answers(there, here, "int8", 0.01)
    assert (parity.gained, parity.lost, parity.drop) == (1, 1, 0.0)
    assert parity.agreement == pytest.approx(0.997)
    assert parity.outcome == "PASS"


def test_a_board_with_other_answers_fails_and_an_unlabelled_flip_leaves_the_drop_open():
    here, there = answers(*[0] * 200), answers(*[0] * 100, *[1] * 100)
    parity = compare_answers(there, here, "int8", 0.01)
    assert (parity.outcome, parity.lost, parity.drop) == ("FAIL", 100, 0.5)
    unlabelled = [-1] * 1000
    here, there = (answers(*[0] * 999, p, labels=unlabelled) for p in (0, 1))
    parity = compare_answers(there, here, "int8", 0.01)
    assert parity.drop is None
    assert parity.drop_low < 0 < parity.drop_high
    assert parity.outcome == "PASS"  # even if that one is lost


def test_answers_to_other_images_are_not_compared():
    assert compare_answers(answers(0), [Answer("another", 0, 0)], "none", 0.01) is None
    assert compare_answers([], [], "none", 0.01) is None

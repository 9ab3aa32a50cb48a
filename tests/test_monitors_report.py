"""Monitors as the report draws them."""

from edgessl.core import files
from edgessl.report.monitors import watched
from edgessl.report.read import Log


def rows(n=5):
    return [
        {
            "step": 10 * k, "alpha_req": {"host": 1.5, "1x": None},
            "view_retrieval": {"host": 0.1 * k, "1x": 0.05 * k, "host-1x": 0.04 * k},
            "view_retrieval_chance": 1 / 256,
            "correlation_diagonal": {"host": 0.2 * k}, "same_view_diagonal": {},
            "gradient_cosine": {"host / 1x": -0.3, "sacl / xd": 0.5},
            "gradient_norm_ratio": {"host / 1x": 0.9, "sacl / xd": 18.0}, "alarm": None,
        }
        for k in range(n)
    ]  # fmt: skip


def shown(lines):
    (found,) = watched([Log("pretrain", "from random weights", (), tuple(lines))])
    return {monitor.name: monitor for monitor in found.monitors}


def test_every_monitor_is_drawn_that_has_values_and_no_other(tmp_path):
    path = tmp_path / "monitor.jsonl"
    files.append_jsonl(path, rows())
    found = shown(files.read_jsonl(path))
    assert list(found) == [
        "Spectrum, alpha", "Views found, %", "Diagonal", "Gradients, cosine", "Gradients, ratio",
    ]  # fmt: skip
    assert found["Spectrum, alpha"].last == "1.50"  # of the slim net there is none
    assert found["Views found, %"].last == "host 40, 1x 20, host-1x 16"
    assert found["Views found, %"].meaning.endswith("chance 0.39")


def test_a_cosine_below_zero_is_inside_its_picture():
    picture = str(shown(rows())["Gradients, cosine"].picture)
    assert ">−0.5</text>" in picture.replace("-0.5", "−0.5")
    assert picture.count('class="line') == 2


def test_rows_of_an_older_version_and_damaged_ones_are_drawn_as_far_as_they_go():
    old = {"step": 3, "rankme": {"host": 9.0, "1x": 8.0}, "alarm": None}
    damaged = {"step": 4, "rankme": 7, "view_retrieval": [1], "view_retrieval_chance": "no"}
    assert list(shown([old, damaged])) == ["RankMe"]
    assert (
        "chance"
        not in shown([{"step": 1, "view_retrieval": {"1x": 0.5}}])["Views found, %"].meaning
    )

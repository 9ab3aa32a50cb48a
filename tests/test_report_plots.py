"""What the plots are made of: axes, bins, labels; curves and monitors of trainings."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import begun
from report_study import pretraining

from edgessl.core import files
from edgessl.report.monitors import watched
from edgessl.report.plot_lines import Series, lines, spread
from edgessl.report.plot_samples import Distribution, distributions
from edgessl.report.plots import Mark, scatter
from edgessl.report.read import read_run
from edgessl.report.svg import Axis
from edgessl.report.training import DRAWN, training_curves


def test_axes_cover_their_values_with_distinct_ticks() -> None:
    rng = random.Random(5)
    for _ in range(500):
        centre, reach = rng.uniform(-50, 50), 10 ** rng.uniform(-5, 3)
        values = [centre + rng.uniform(-reach, reach) for _ in range(rng.randint(1, 6))]
        axis = Axis.around(values)
        assert axis.low <= min(values) <= max(values) <= axis.high
        labels = [axis.text(tick) for tick in axis.ticks]
        assert len(set(labels)) == len(labels) >= 2
        for tick, label in zip(axis.ticks, labels, strict=True):
            written = float(label.replace("−", "-").replace(",", ""))
            assert written == pytest.approx(tick, abs=0.01 * (axis.high - axis.low))


def test_logarithmic_axes_give_equal_ratios_equal_room() -> None:
    rng = random.Random(6)
    for _ in range(300):
        values = [10 ** rng.uniform(-4, 5) for _ in range(rng.randint(1, 5))]
        axis = Axis.decades(values)
        assert axis.low <= min(values) * (1 + 1e-9)
        assert axis.high >= max(values) * (1 - 1e-9)
        assert [float(axis.text(t)) for t in axis.ticks] == pytest.approx(list(axis.ticks))
    axis = Axis.decades([1, 100])
    assert (axis.at(1), axis.at(10), axis.at(100)) == (0, 50, 100)


def test_labels_are_moved_apart_in_order() -> None:
    rng = random.Random(7)
    for _ in range(300):
        wanted = sorted(rng.uniform(0, 200) for _ in range(rng.randint(1, 8)))
        places = spread(wanted, 15, 4, 210)
        assert all(b - a >= 15 - 0.11 for a, b in pairwise(places))
        assert places[0] >= 4
        assert places[-1] <= 210.1
    assert spread([50, 120], 15, 0, 200) == [50, 120]  # what is apart stays


def test_a_line_runs_from_its_first_to_its_last_value() -> None:
    series = Series("net", "net, rising", [0, 5, 10], [0.0, 5.0, 10.0], [0, 4, 9], [1, 6, 10])
    axis = Axis(0, 10, (0, 10))
    svg = str(lines("t", [series], axis, axis, height=100))
    assert 'd="M0.0 1000.0L500.0 500.0L1000.0 0.0"' in svg
    assert "band" in svg
    assert "net, rising" in re.search("<desc.*?</desc>", svg)[0]


def test_every_sample_is_in_the_distribution_or_counted_as_beyond() -> None:
    rng = random.Random(8)
    rows = [
        Distribution(name, f"{scale}", [scale * rng.lognormvariate(0, 0.1) for _ in range(500)], {})
        for name, scale in (("board", 30.0), ("workstation", 0.4))
    ]
    rows.append(Distribution("straggler", "2", [2.0] * 499 + [900.0], {}))
    _, note = distributions("t", rows)
    assert "Logarithmic axis" in note
    beyond = re.search(r"([\d,]+) samples lie beyond", note)
    assert beyond
    assert 1 <= int(beyond[1]) <= 20  # the straggler, and at most the last percent of the widest


def test_many_points_get_letters_instead_of_labels() -> None:
    marks = [Mark(f"file {i}", 1.0 + i, 70.0 + i) for i in range(8)]
    few, lettered_few = scatter("t", marks[:3], "ms", "%")
    many, lettered = scatter("t", marks, "ms", "%")
    assert (lettered_few, lettered) == (False, True)
    assert ">file 1</text>" in few
    assert ">H</text>" in many
    assert ">file 1</text>" not in many
    assert "file 1: 2 ms" in many  # still in the description


def test_trainings_share_a_plot_and_alarms_are_marked(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    pretraining(run / "pretrain", weights=False)
    pretraining(run / "pretrain-imagenet", weights=True, alarm=True)
    torn = [{"step": k, "loss": {"total": float("nan") if k == 3 else k}} for k in range(1000)]
    files.append_jsonl(run / "finetune" / "1x" / "metrics.jsonl", torn)
    found = read_run(run)
    curves = {c.name: c for c in training_curves(found.pretrainings, "Pretraining")}
    assert list(curves) == [
        "Loss, total", "Loss, sacl", "Loss, xd", "Learning rate", "Images per second",
    ]  # fmt: skip
    assert str(curves["Loss, total"].picture).count('class="line') == 2
    (tuned,) = training_curves(found.finetunings, "Fine-tuning")
    assert "1 not finite and left out" in tuned.note
    assert "each point the mean of 3" in tuned.note
    assert str(tuned.picture).count("L") <= DRAWN + 20
    quiet, alarmed = watched(found.pretrainings)
    assert (quiet.alarms, alarmed.alarms) == ([], ["step 2,000: RankMe of 1x fell to 1.4 of 512"])
    assert [m.name for m in quiet.monitors] == [
        "RankMe", "Spread", "Online kNN, %", "Host and slim, %",
    ]  # fmt: skip
    for monitor in alarmed.monitors:
        assert ">alarm</text>" in str(monitor.picture)
        assert not math_error(str(monitor.picture))
    assert "host 7" in quiet.monitors[2].last  # kNN in percent


def math_error(svg: str) -> bool:
    return bool(re.search(r"\bnan|inf\b", re.sub(r"<(title|desc).*?</\1>", "", svg)))

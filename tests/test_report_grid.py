"""A grid of untrained nets in the report: times with their verdicts, and no word of accuracy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_boards import grid_run
from report_runs import Page, fake_run

from edgessl.report.html import write_report
from edgessl.report.model_card import write_model_card
from edgessl.report.read import read_run
from edgessl.report.summary import summarise


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grid_run(tmp_path_factory.mktemp("grid") / "run")


def page_of(run: Path) -> Page:
    target = write_report([run], run.parent / "report.html")
    return Page(target.read_text(encoding="utf-8").replace("\u00a0", " "))


def card_of(run: Path) -> str:
    return write_model_card(run, run.parent / "card.md").read_text().replace("\u00a0", " ")


def test_a_run_of_only_a_grid_is_a_page_about_times(grid: Path) -> None:
    page, card = page_of(grid), card_of(grid)
    for text in (page.text, card):
        assert "Untrained nets on Raspberry Pi 5 Model B Rev 1.0" in text
        assert "the answers are worth nothing, and the accuracy is unknown" in text
        assert "5 of 6 figures are VALID" in text
        assert not re.search("Not run|Not recorded|not tested", text)
    assert "Exports" not in page.text  # nobody ships random weights
    assert "Did pretraining pay" not in page.text
    rows = [row for row in page.rows if re.search(r"mobilenet_v3_small \S+x, \d+ px", row)]
    assert len(rows) == 6
    assert all(re.search(r"ms ✓ VALID\[[\d., ]+\]", row) for row in rows[:5])
    assert "withheld: the answers are wrong" in rows[5]
    assert not re.search(r"\d ms", rows[5])
    assert "| withheld  | withheld | withheld | WRONG_ANSWERS |" in card


def test_the_plot_of_a_grid_holds_what_was_answered_right_on_one_device(
    grid: Path, tmp_path: Path
) -> None:
    view = summarise(read_run(grid)).grid
    assert view is not None
    assert [line.point for line in view.lines] == ["A", "B", "C", "D", "E", ""]
    copy = shutil.copytree(grid, tmp_path / "run")
    body = json.loads((copy / "grid.json").read_text())
    body["rows"][0]["result"] = "bench/another/x/result.json"
    body["rows"][1] = {"encoder": "no figures"}
    (copy / "grid.json").write_text(json.dumps(body))
    read = read_run(copy)
    view = summarise(read).grid
    assert view is not None
    assert len(view.lines) == 4
    notes = " ".join(read.notes.lines)
    assert "grid.json: entry 2" in notes
    assert "1 row of another device left out" in notes


def test_a_grid_on_a_stand_in_has_no_fastest_net(tmp_path: Path) -> None:
    page = page_of(grid_run(tmp_path / "run", "EMULATED", emulated=True))
    assert "on Raspberry Pi 5 Model B Rev 1.0 (emulated)" in page.text
    assert page.text.count("these times say nothing about a board") >= 2
    assert "Fastest" not in page.text
    assert "those of trained nets" not in page.text


def test_a_grid_beside_a_trained_net_is_never_the_headline(grid: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    for name in ("bench/pi5", "export"):
        shutil.copytree(grid / name, run / name, dirs_exist_ok=True)
    shutil.copy(grid / "grid.json", run)
    summary = summarise(read_run(run))
    assert summary.headline.title == "mobilenet_v3_large at 1x"
    assert summary.headline.view is not None
    assert not summary.headline.view.bench.untrained
    assert len(summary.benches) == 3
    page = page_of(run)
    assert "Did pretraining pay?" in page.text
    assert page.ids.count("r1-grid") == 1
    (run / "grid.json").unlink()  # then its benches are a group of their own
    assert "Untrained nets The weights are random" in page_of(run).text

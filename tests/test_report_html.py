"""The page: text of users stays text, nothing is loaded, everything can be read aloud."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import Page, begun, fake_run, training_rows
from report_study import study_run

from edgessl.core import files
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.ledger import Ledger
from edgessl.report.html import writable, write_report
from edgessl.report.model_card import write_model_card


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "parts")


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return write_report([run_folder], run_folder.parent).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_text_of_users_stays_text(html: str, run_folder: Path) -> None:
    card = write_model_card(run_folder, run_folder.parent / "card.md").read_text()
    assert "<script" not in html
    assert "<script" not in card
    assert "&lt;script&gt;alert(&#39;cat&#39;)&lt;/script&gt;" in html
    assert "spring \\| coil" in card  # a bar would end a table cell


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    for tag, key, value in page.attributes:
        assert key not in ("srcset", "data", "xlink:href"), (tag, key)
        assert key != "src" or value.startswith("data:image/png;base64,"), (tag, value[:40])
        assert key != "href" or value.startswith("#"), value
        assert not key.startswith("on"), (tag, key)
    anchors = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert anchors <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_tables_and_plots_can_be_read_aloud(page: Page, html: str) -> None:
    assert len(page.tables) > 8
    for table in page.tables:
        assert table["caption"] == 1
        assert table["th"] == table["scoped"] > 0
    plots = html.count('role="img"')
    assert plots == html.count("<desc ") == html.count('aria-labelledby="plot') > 8


def test_only_a_ledger_is_enough(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    Ledger(tmp_path / "run" / "ledger.json").put(training_rows(random.Random(3)))
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    assert "Raw pixels, logistic regression" in page.text
    assert "Not run: no bench" in page.text
    assert "Not recorded: there is neither data.json nor splits.json" in page.text


def test_an_empty_run_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    assert page.text.count("Not run") >= 5
    assert "Not measured" in write_model_card(run, tmp_path).read_text()
    with pytest.raises(UsageProblem):
        write_report([], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("make", "said", "hint"),
    [
        (lambda _: None, "does not exist", "runs/<name>"),
        (lambda f: f.write_text("x"), "is a file", "runs/<name>"),
        (lambda f: f.mkdir(), "it holds nothing", "runs/<name>"),
        (lambda f: [files.write_text(f / n, "x") for n in "abcd"], "a, b, c and 1 more", "runs/"),
        (lambda f: begun(f / "own"), "no run.json", "what/own"),
        (lambda f: (begun(f.parent), f.mkdir()), "no run.json", "it lies in the run folder"),
        (lambda f: files.write_json(f / "run.json", "ledger", {}), "holds 'ledger'", ""),
        (lambda f: files.write_text(f / "run.json", "{"), "not readable JSON", ""),
        (lambda f: files.write_text(begun(f) / "ledger.json", "<p>"), "not readable", "ledger"),
        (
            lambda f: files.write_json(begun(f) / "ledger.json", "ledger", {"rows": [{"id": 1}]}),
            "malformed row",
            "ledger",
        ),
    ],
)
def test_what_is_no_run_folder_is_refused_and_stays_as_it_was(
    tmp_path: Path, make, said: str, hint: str
) -> None:
    what = tmp_path / "photos" / "what"
    what.parent.mkdir()
    make(what)
    before = sorted(tmp_path.rglob("*"))
    good = begun(tmp_path.parent / f"{tmp_path.name}-good")
    for write in (
        lambda: write_report([good, what], what / "report.html"),
        lambda: write_model_card(what, what),
    ):
        with pytest.raises(FileInvalid, match=said) as caught:
            write()
        assert caught.value.exit_code == 3
        assert hint in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_broken_files_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    (run / "splits.json").write_text("{")
    result = next(run.glob("bench/pi5/1x-onnx*/result.json"))
    result.write_text(json.dumps({"verdicts": ["FINE"]}))
    (run / "export" / "1x-tflite-none" / "model.tflite").write_bytes(b"other bytes")
    (run / "recipe.yaml").write_text("a: [")
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    problems = page.text[page.text.index("Some files could not be read") :][:1500]
    for name in ("splits.json", "result.json", "model.tflite", "recipe.yaml"):
        assert name in problems
    assert str(tmp_path) not in problems
    assert "✕ altered" in page.text
    assert "OpenVINO" in page.text


def test_several_runs_share_one_page(run_folder: Path, tmp_path: Path) -> None:
    other = begun(tmp_path / "ledger-only")
    Ledger(other / "ledger.json").put(training_rows(random.Random(3)))
    page = Page(write_report([run_folder, other], tmp_path / "r.html").read_text())
    assert "2 runs side by side" in page.text
    assert {"r1", "r2", "r1-latency", "r2-latency"} <= set(page.ids)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_run(tmp_path_factory.mktemp("study") / "fashion", samples=300)


def test_a_study_is_whole_and_small(study: Path, tmp_path: Path) -> None:
    html = write_report([study], tmp_path / "r.html").read_text()
    page = Page(html)
    assert "could not be read" not in page.text
    assert len(html) < 1_000_000
    for section in (
        "Did pretraining pay?", "How many labels it takes", "From probe to device",
        "Widths side by side", "Accuracy against latency", "How long single inferences took",
        "Confusion matrix", "Worst mistakes", "Class balance", "Monitors, pretraining",
        "The recipe as it was run", "What was not measured", "How to read this report",
    ):  # fmt: skip
        assert section in page.text, section
    assert "edgessl run recipes/fashion-mnist.yaml" in page.text
    for tag, key, value in page.attributes:
        assert tag != "script"
        assert not re.search(r"\bnan\b|\binf\b", value), (tag, key, value)


def test_headings_and_landmarks_are_in_order(study: Path, run_folder: Path, tmp_path: Path) -> None:
    for runs in ([study], [study, run_folder]):
        html = write_report(runs, tmp_path / "r.html").read_text()
        levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", html)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels))
        assert '<html lang="en">' in html
        for mark in ("<header>", "<main id=", "<footer>", "<nav aria-label=", "<legend>"):
            assert html.count(mark) == 1, mark
        page = Page(html)
        names = [v for tag, key, v in page.attributes if key == "aria-labelledby"]
        assert {word for name in names for word in name.split()} <= set(page.ids)
        assert len(page.ids) == len(set(page.ids))
        images = [v for tag, key, v in page.attributes if (tag, key) == ("img", "alt")]
        assert all(images)


def test_what_utf8_or_html_cannot_hold_is_replaced(tmp_path: Path) -> None:
    assert writable("a\x00b\udcffc\n") == "a\ufffdb?c\n"
    run = begun(tmp_path / "run")
    body = {"sources": [{"role": "labels", "name": "b\x01\u202e", "images": 1}]}
    (run / "data.json").write_text(json.dumps(body))
    html = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<bdi>b\ufffd\u202e</bdi>" in html

"""Latency in the report: never without its verdict, none at all for wrong answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_runs import Page, artifact_in, begun, bench, fake_run

from edgessl.core import files
from edgessl.core.ledger import Ledger
from edgessl.core.measurement import BenchResult
from edgessl.report.found import samples_by_part
from edgessl.report.html import write_report
from edgessl.report.model_card import write_model_card
from edgessl.report.plot_samples import group_size
from edgessl.report.read import read_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "parts")


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return write_report([run_folder], run_folder.parent).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


VERDICT = re.compile(r"VALID|WRONG_ANSWERS|WRONG_BACKEND|TOO_SHORT|UNSTABLE|BUSY|EMULATED")


def test_every_latency_stands_beside_its_verdict(page: Page) -> None:
    figures = [cell for cell in page.cells if re.search(r"\d\sms\b", cell)]
    assert len(figures) >= 5
    assert [cell for cell in figures if not VERDICT.search(cell)] == []


def test_report_holds_the_figures_of_the_files(page: Page, run_folder: Path) -> None:
    results = [
        BenchResult.model_validate(json.loads(path.read_text()))
        for path in run_folder.glob("bench/*/*/result.json")
    ]
    for result in results:
        if result.verdict != "WRONG_ANSWERS":
            p50 = result.latency_ms["infer"].p50
            cell = f"{p50:.2f} ms {'✓' if result.verdict == 'VALID' else '!'} {result.verdict}"
            assert any(" ".join(c.split()).startswith(cell) for c in page.cells), cell
    for row in Ledger.open(run_folder).rows:
        if row.draw is None:
            interval = f"[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
            assert f"{100 * row.value:.1f}%" in page.text
            assert interval in page.text
    for figure in ("74.8%", "[72.6, 76.9]", "1,600", "t over 5 draws", "12,400"):
        assert figure in page.text, figure


def test_latency_of_wrong_answers_is_withheld(html: str, page: Page, run_folder: Path) -> None:
    card = write_model_card(run_folder, run_folder.parent / "card.md").read_text()
    (path,) = run_folder.glob("bench/pi5/1x-tflite*/result.json")
    latency = json.loads(path.read_text())["latency_ms"]
    for part in ("infer", "e2e_from_uint8"):
        for name in ("p50", "p90", "max"):
            shown = re.escape(f"{latency[part][name]:.3g}")
            assert not re.search(rf"(?<![\d.]){shown}(?![\d.])\s*ms", page.text)
            assert not re.search(rf"\| {shown} ", card)
    rows = [row for row in page.rows if "WRONG_ANSWERS" in row and "tflite-rt" in row]
    assert len(rows) == 2
    assert all("withheld" in row and not re.search(r"\d\s*ms", row) for row in rows)
    assert card.count("withheld") == 4
    assert "distribution, TFLite" not in html


@pytest.mark.parametrize("timed", [True, False])
def test_a_run_whose_only_bench_is_wrong_has_no_latency(tmp_path: Path, timed: bool) -> None:
    run = begun(tmp_path / "run")
    made = artifact_in(run / "export" / "1x-tflite-none", "export", "tflite", 500)
    facts = {"device": "pi5", "runtime": "tflite", "target": "tflite", "median": 2.0}
    result = bench(run, made, verdict="WRONG_ANSWERS", top1=0.2, **facts)
    if not timed:  # as a bench leaves it: nothing is timed after a failed golden check
        (path,) = run.glob("bench/*/*/result.json")
        bare = result.model_copy(update={"latency_ms": {}, "accuracy": None})
        files.write_json(path, "bench-result", bare.model_dump(mode="json", by_alias=True))
        path.with_name("samples.jsonl").write_text("")
    card = write_model_card(run, tmp_path / "card.md").read_text()
    assert re.search(r"withheld.*WRONG", card)
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    assert "withheld ✕ WRONG_ANSWERS" in page.text
    assert any("TFLite" in row and "withheld" in row for row in page.rows)
    assert not re.search(r"\d\s*ms\b", page.text)
    assert "no bench has the verdict VALID" in page.text


def test_percentiles_below_their_floor_are_a_dash_with_the_reason(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    made = artifact_in(tmp_path / "run" / "export" / "1x-onnx-none", "export", "onnx", 500)
    bench(
        tmp_path / "run",
        made,
        device="pi5",
        runtime="onnx",
        target="onnx",
        median=2.0,
        verdict="TOO_SHORT",
        samples=20,
    )
    page = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text())
    row = next(row for row in page.rows if "Inference" in row)
    assert "p90 needs 64 samples" in row
    assert "–" in row


def test_a_verdict_and_its_reason_are_said_once(page: Page, html: str) -> None:
    assert "the last quarter is 21 % slower" in page.text
    assert not re.search(r"UNSTABLE\W+UNSTABLE|WRONG_ANSWERS\W+WRONG_ANSWERS", page.text)
    assert "<li>the last quarter is 21 %" in html


def test_other_verdicts_keep_their_name_beside_the_worst(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    made = artifact_in(run / "export" / "1x-onnx-none", "export", "onnx", 500)
    why = ("UNSTABLE: infer drifted", "BUSY: other work")
    facts = {"device": "pi5", "runtime": "onnx", "target": "onnx", "median": 2.0}
    result = bench(run, made, verdict="UNSTABLE", reasons=why, **facts)
    several = result.model_copy(update={"verdicts": ("UNSTABLE", "BUSY", "EMULATED")})
    (path,) = run.glob("bench/*/*/result.json")
    files.write_json(path, "bench-result", several.model_dump(mode="json", by_alias=True))
    html = write_report([run], tmp_path / "r.html").read_text()
    assert "<li>infer drifted</li>" in html
    assert "<li>BUSY: other work</li>" in html
    assert "; also EMULATED</p>" in html


def test_downsampling_starts_above_2000_samples_and_is_said(page: Page) -> None:
    assert group_size(2000) == 1
    assert group_size(6000) == 12
    assert "6,000 samples in the order taken, drawn as 500 groups of 12" in page.text


def test_samples_are_read_in_milliseconds_with_their_repeats() -> None:
    rows = [
        {"repeat": 1, "at_s": 0.1, "infer_ms": 2.0},
        {"repeat": 1, "at_s": 0.2, "infer_ms": 3.0},
        {"repeat": 2, "at_s": 0.1, "infer_ms": 4.0, "e2e_from_uint8_ms": 5.0, "copy_in_ms": 9.0},
    ]
    samples, starts = samples_by_part(rows)
    assert samples == {"infer": [2.0, 3.0, 4.0], "e2e_from_uint8": [5.0]}
    assert starts == [2]


def test_reading_a_run_keeps_raw_samples_in_order(run_folder: Path) -> None:
    found = {b.result.verdict: b for b in read_run(run_folder).benches}
    drifting = found["UNSTABLE"].samples["infer"]
    assert len(drifting) == 6000
    assert sum(drifting[-1500:]) > 1.1 * sum(drifting[:1500])
    assert list(found["UNSTABLE"].starts) == [2000, 4000]

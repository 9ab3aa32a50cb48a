"""One net from the probe to the device: paired, and flagged where it cannot be compared."""

from __future__ import annotations

from pathlib import Path

from report_runs import N, Page, begun, fake_run
from report_study import study_run

from edgessl.core import files
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.report.html import write_report
from edgessl.report.read import read_run
from edgessl.report.waterfall import waterfall


def predictions(path: Path, right: list[bool]) -> None:
    lines = [f"{i:064x},3,{3 if ok else 4},0.9,0.5\n" for i, ok in enumerate(right)]
    files.write_text(path, "sha256,label,predicted,score,margin\n" + "".join(lines))


def test_discordant_images_are_counted_from_the_answers(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    (place,) = run.glob("bench/pi5/1x-onnx*")
    before = run / "export" / "1x-onnx-none" / "predictions.csv"
    right = [i % 4 > 0 for i in range(N)]
    # one image gained, eight lost: p = 2 (C(9,0) + C(9,1)) / 2^9 = 20 / 512
    changed = [not ok if i in (0, *range(1, 32, 4)) else ok for i, ok in enumerate(right)]
    predictions(before, right)
    predictions(place / "predictions.csv", changed)
    ledger = Ledger.open(run)
    row = next(r for r in ledger.rows if r.id == "bench-onnx")
    claimed = {"delta": -7 / N, "value": row.value - 7 / N, "compared_with": "export-onnx"}
    ledger.put([row.model_copy(update=claimed)])
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "1 image gained, 8 lost; McNemar p 0.039" in text.replace("\u00a0", " ")
    assert "does not fit" not in text
    predictions(place / "predictions.csv", right)  # answers that the ledger does not speak of
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "does not fit the predictions.csv of both" in text
    before.write_text("sha256,label,predicted\n")  # other images: nothing can be paired
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "gained" not in text
    assert "the same images right" not in text


def test_rows_on_other_images_or_with_a_false_difference_are_flagged(tmp_path: Path) -> None:
    common = {"variant": "sacl-xd", "metric": "top1", "width": "1x"}
    rows = [
        LedgerRow(id="a", stage="extract", value=0.5, n=100, **common),
        LedgerRow(
            id="b",
            stage="export",
            target="onnx",
            parents=("a",),
            value=0.45,
            n=100,
            delta=0.0,
            **common,
        ),
    ]
    begun(tmp_path / "run")
    ledger = Ledger(tmp_path / "run" / "ledger.json")
    ledger.put(rows)
    text = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text()).text
    assert "does not fit the two figures" in text
    ledger.put([rows[1].model_copy(update={"n": 90})])
    text = Page(write_report([tmp_path / "run"], tmp_path / "r.html").read_text()).text
    assert "different numbers of images: 90, 100" in text


def test_the_probe_stands_first_and_every_width_has_its_own_steps(tmp_path: Path) -> None:
    run = read_run(study_run(tmp_path / "run", samples=70))
    steps = waterfall(run)
    for width in ("1x", "0.5x"):
        own = [step for step in steps if step.row.width == width]
        assert [step.row.stage for step in own[:3]] == ["evaluate", "finetune", "extract"]
        probe, tuned, net = own[:3]
        assert tuned.gain == tuned.row.value - probe.row.value
        assert tuned.row.draw == probe.row.draw  # the same labels
        assert net.before is tuned.row
        assert net.difference == "0.0 [−0.1, +0.1]"
        for step in own[3:]:
            assert step.before is not None
            expected = f"export/{width}-{step.row.target}-none"
            assert step.before.id == (expected if step.row.stage == "bench" else f"extract/{width}")
    assert [step.row.width for step in steps] == ["1x"] * 9 + ["0.5x"] * 9

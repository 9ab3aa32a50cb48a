"""Quantised exports in the report: outcomes in words, no tick where nothing is proven."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_exports import candidate, export_run, gate, search
from report_runs import Page, begun
from report_study import parity, study_run

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec, OutputSpec, Quantized
from edgessl.report.exports import export_views
from edgessl.report.html import write_report
from edgessl.report.model_card import write_model_card
from edgessl.report.proofs import Proof
from edgessl.report.read import read_run
from edgessl.report.records import LayerError
from edgessl.report.sensitivity import bars, relative_error
from edgessl.report.summary import summarise

OPEN, FAILED = "ONNX int8, 1x", "TensorRT int8, 1x"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(tmp_path_factory.mktemp("exports") / "run", samples=120)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return write_report([run], run.parent).read_text(encoding="utf-8").replace("\u00a0", " ")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def changed(path: Path, **values: Any) -> None:
    """Put other values into a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def packed(page: Page) -> list[str]:
    """The rows of all tables without blanks: line breaks inside a cell leave none."""
    return ["".join(row.split()) for row in page.rows]


def proof_at(run: Path, name: str) -> tuple[Proof, list[str]]:
    read = read_run(run)
    (found,) = (p for p in read.proofs if p.folder == f"export/{name}")
    return found, read.notes.lines


def test_every_export_has_its_outcome_and_figures_in_words(page: Page) -> None:
    section = page.text[page.text.index("Each file beside float32") :]
    for said in (
        "3 answers of 35 flipped (8.6%). Of the 1 whose label is known, 1 became wrong and 0 right",
        "Top-1 falls by at most 21.0 points (95% bound); 1.0 may be lost.",
        "20 images of test (all with labels) and 15 images of unlabeled (without labels)",
        "label 2 pictures: look at export/1x-onnx-int8/flips, fill in the column label of "
        "flips.csv there, and run the same command with --resume",
        "it would take about 1,150 images in all; there are 35.",
        "Top-1 falls by 5.5 points, by at least 4.6 (95% bound); 1.0 may be lost.",
        "the mean confidence moves by 6.1 points, 5.0 are allowed",
        "Top-1 stays the same, and falls by at most 0.3 points",
        "w8a16 is slower here (1.8x)",
        "int8 is faster here (2.0x)",
    ):
        assert said in section, said
    rows = packed(page)
    for row in (
        "ONNX, 1x int8 (fallback) ? INCONCLUSIVE 11.0 KB 28% of float32 91.4% 35 images",
        "TFLite, 1x int8, as w8a16 (fallback) ✓ PASS 11.4 KB",
        "TensorRT, 1x int8 ✕ FAIL 12.0 KB 30% of float32 90.5%",
        "OpenVINO, 1x float32 ✓ PASS 40.0 KB 100.0% 2,000 images",
        "OpenCV linear, not antialiased 96.2% 76.4% −1.2 [−2.0, −0.4]",
        "int8, percentile failed: the quantiser ended with signal 11 (SIGSEGV)",
    ):
        assert any(seen.startswith(row.replace(" ", "")) for seen in rows), row


def test_no_tick_stands_beside_a_file_that_is_not_proven(html: str, page: Page) -> None:
    mentions = [row for row in page.rows if re.search("(ONNX|TensorRT) int8", row)]
    mentions += [row for row in page.rows if re.search("export/1x-(onnx|tensorrt)-int8", row)]
    mentions += re.findall(r"<h\d[^>]*>((?:ONNX|TensorRT) int8.*?)</h\d>", html, re.DOTALL)
    assert len(mentions) > 8
    assert [text for text in mentions if "✓" in text] == []
    timed = [row for row in page.rows if OPEN in row and "VALID" in row]
    assert len(timed) > 1  # the verdict of its bench stays, without the tick
    assert all("? INCONCLUSIVE" in row for row in timed)
    assert any("✓ VALID" in row for row in page.rows if "OpenVINO int8" in row)


def test_the_headline_is_of_a_proven_file_even_where_another_is_faster(run: Path) -> None:
    head = summarise(read_run(run)).headline
    assert head.proof is not None
    assert (head.proof.folder, head.proof.outcome) == ("export/1x-openvino-int8", "PASS")
    assert "gives float32's answers within the bounds (PASS)" in head.achievement
    told = " ".join(remark.text for remark in head.remarks if remark.care)
    assert f"{OPEN}: INCONCLUSIVE." in told
    assert f"{FAILED}: FAIL. It does not give float32's answers, so it must not ship: top-1" in told
    assert "OpenVINO" not in told


def test_without_a_bench_the_proven_file_that_was_asked_for_is_shown(tmp_path: Path) -> None:
    run = export_run(tmp_path / "run", samples=70)
    for result in run.glob("bench/*/*/result.json"):
        result.unlink()
    head = summarise(read_run(run)).headline
    assert head.proof is not None
    assert head.proof.passed
    assert head.proof.asked == "int8"
    for path in sorted(run.glob("export/*/gate.json")):
        changed(path, outcome="FAIL")
    head = summarise(read_run(run)).headline
    assert head.proof is not None
    assert (head.proof.asked, head.proof.outcome) == ("none", "PASS")


def test_the_card_says_what_the_page_says(run: Path, tmp_path: Path) -> None:
    card = write_model_card(run, tmp_path).read_text().replace("\u00a0", " ")
    for said in (
        "- Its answers against float32: PASS",
        "| ONNX, 1x | int8 (fallback) | INCONCLUSIVE | 11.0 KB | 91.4% | 35 images | at most 21.0",
        "| TFLite, 1x | int8, as w8a16 (fallback) | PASS |",
        "w8a16 is slower here (1.8x)",
        "Whether ONNX int8, 1x keeps its accuracy: the images could not decide.",
        "the engine is built on the board",
    ):
        assert said in card, said
    assert "✓" not in card


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seal": "0" * 64}, "is about another file: its seal differs"),
        ({"outcome": "FINE"}, "outcome"),
        ({"flips": 3, "gained": 3, "lost": 5}, "do not fit each other"),
        ({"flips": 4000}, "do not fit each other"),
        ({"drop_high": 0.5}, "says PASS, but a drop of 0.5 is more than 0.01"),
        ({"drop_high": None}, "drop_high"),
        ({"shift": float("nan")}, "shift"),
    ],
)
def test_a_gate_that_cannot_be_believed_proves_nothing(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    run = begun(tmp_path / "run")
    seal = quantised(run / "export" / "1x-onnx-int8").seal
    path = run / "export" / "1x-onnx-int8" / "gate.json"
    files.write_json(path, "gate", gate(seal, "PASS"))
    assert proof_at(run, "1x-onnx-int8")[0].outcome == "PASS"
    changed(path, **values)
    proof, notes = proof_at(run, "1x-onnx-int8")
    assert proof.outcome == "NOT PROVEN"
    assert any(said in note and "gate.json" in note for note in notes)
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    assert "Nothing is known about its answers: there is no gate.json" in text
    assert "✓ PASS" not in text


def test_a_file_that_was_changed_after_its_gate_is_not_proven(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    folder = run / "export" / "1x-onnx-int8"
    files.write_json(folder / "gate.json", "gate", gate(quantised(folder).seal, "PASS"))
    (folder / "model.onnx").write_bytes(b"other bytes")
    proof, _ = proof_at(run, "1x-onnx-int8")
    assert (proof.outcome, proof.passed) == ("NOT PROVEN", False)
    assert "changed after they were sealed" in proof.why


@pytest.mark.parametrize(
    ("agreement", "passed", "outcome", "said"),
    [
        (0.999, True, "PASS", ""),
        (0.985, True, "FAIL", "another answer on more than 1.0%"),
        (0.999, False, "FAIL", "logits differ"),
    ],
)
def test_fp16_is_judged_by_its_parity(
    tmp_path: Path, agreement: float, passed: bool, outcome: str, said: str
) -> None:
    run = begun(tmp_path / "run")
    folder = run / "export" / "1x-onnx-fp16"
    seal = quantised(folder, facts={"target": "onnx", "quantize": "fp16", "width": 1.0}).seal
    parity(folder, seal, passed)
    check = json.loads((folder / "parity.json").read_text())["checks"][0]
    changed(folder / "parity.json", checks=[check | {"agreement": agreement}])
    proof, _ = proof_at(run, "1x-onnx-fp16")
    assert proof.outcome == outcome
    assert said in proof.why
    (view,) = export_views(read_run(run))
    assert view.precision == "fp16"


def test_where_nothing_could_be_made_the_tries_are_shown(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    none = dict.fromkeys(("n", "agreement", "kl", "shift", "snr_db", "bytes", "ms", "ratio"))
    tries = [candidate("int8, minmax", holds=False, error="signal 11 (SIGSEGV)", **none)]
    body = search("", "", *tries) | {"chosen": None}
    files.write_json(run / "export/0.5x-tflite-int8/search.json", "quantization-search", body)
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    assert "No int8 file was written: none of the files that were tried is worth having." in (
        page.text
    )
    assert "TFLite,0.5xint8✕FAILnofile" in "".join(packed(page))
    assert "failed: signal 11 (SIGSEGV)" in page.text
    assert "| TFLite, 0.5x | int8 | FAIL | no file |" in write_model_card(run, tmp_path).read_text()


def quantised(folder: Path, spec: InputSpec | None = None, **changes: Any) -> Artifact:
    """Seal a file of random content as an export."""
    files.write_bytes(folder / "model.onnx", b"\x08" * 100)
    return Artifact.sealed(
        folder, ["model.onnx"], artifact_kind="export", format="onnx",
        input=spec or InputSpec.square(32), labels=("a", "b"),
        **({"facts": {"target": "onnx", "quantize": "int8", "width": 1.0}} | changes),
    )  # fmt: skip


def test_the_card_tells_how_to_feed_pixels_and_integers(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    folder = run / "export" / "1x-onnx-int8"
    plain = InputSpec.square(32)
    pixels = plain.model_copy(update={"dtype": "uint8", "layout": "NHWC", "raw": (48, 64)})
    quantised(folder, pixels)
    card = write_model_card(run, tmp_path).read_text()
    assert "Hand over the whole picture of 48 x 64" in card
    assert "Leave the values 0 to 255 as they are" in card
    assert "uint8 in NHWC order, shape 1 x 48 x 64 x 3" in card
    integers = Quantized(scale=0.02, zero_point=-5)
    spec = plain.model_copy(update={"dtype": "int8", "quantized": integers})
    quantised(folder, spec, output=OutputSpec(dtype="int8", quantized=integers))
    card = write_model_card(run, tmp_path).read_text()
    assert "Then divide by 0.02, round, and add -5." in card
    assert "as integers: subtract -5 and multiply by 0.02" in card


# -------------------------------------------------------------------------------- sensitivity


def test_an_error_of_40_db_is_one_percent_and_the_worst_layers_are_named() -> None:
    assert relative_error(40) == pytest.approx(0.01)
    assert relative_error(0) == 1
    layers = [LayerError(module=f"block.{i}", alone_snr_db=60 - i) for i in range(20)]
    errors = [relative_error(60 - i) for i in range(19)] + [None]
    picture = str(bars("Layers", layers, errors))
    assert picture.count("<rect") == 19  # a layer without a figure has no bar
    assert picture.count('class="layer worst"') == 5
    labels = re.findall(r'class="label">(block\.\d+) ([\d.]+%)<', picture)
    assert {name for name, _ in labels} == {f"block.{i}" for i in range(14, 19)}
    assert dict(labels)["block.18"] == "0.79%"  # 10 ** (-42 / 20) = 0.79 %
    places = [float(x) for x in re.findall(r'<rect x="([\d.]+)%"', picture)]
    assert places == sorted(places)  # the order of execution


def test_layers_are_listed_by_module_in_the_order_of_execution(run: Path, page: Page) -> None:
    (view,) = (v for v in export_views(read_run(run)) if v.layers)
    assert view.layers is not None
    assert [row.number for row in view.layers.rows] == list(range(1, 53))
    assert view.layers.rows[0].module == "features.0.0"
    assert view.layers.rows[-1].op == "linear"
    assert sum(row.worst for row in view.layers.rows) == 5
    assert len(view.layers.pictures) == 2
    assert "All 52 layers in the order of execution" in page.text


# ------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "name", ["gate.json", "search.json", "sensitivity.json", "parity.json", "resizes.json"]
)
@pytest.mark.parametrize("body", ["{", "[]", '{"layers": 3, "rows": {}, "candidates": "x"}'])
def test_garbled_records_are_named_and_the_rest_is_shown(
    run: Path, tmp_path: Path, name: str, body: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    for path in copy.rglob(name):
        path.write_text(body)
    text = Page(write_report([copy], tmp_path / "r.html").read_text()).text
    write_model_card(copy, tmp_path)
    assert "Exports" in text
    if body != '{"layers": 3, "rows": {}, "candidates": "x"}':
        assert "Some files could not be read" in text
        assert name in text
    if name == "gate.json":
        assert "! NOT PROVEN" in text


def test_one_odd_candidate_does_not_hide_the_others(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "export" / "1x-tflite-int8" / "search.json"
    tried = json.loads(path.read_text())["candidates"]
    changed(path, candidates=[tried[0], {"name": 3}, "odd", tried[-1]])
    proof, notes = proof_at(copy, "1x-tflite-int8")
    assert proof.search is not None
    assert [c.name for c in proof.search.candidates] == ["int8, minmax", "w8a16"]
    assert sum("search.json: entry" in note for note in notes) == 2


def test_a_run_without_exports_has_no_section(tmp_path: Path) -> None:
    text = Page(write_report([begun(tmp_path / "run")], tmp_path / "r.html").read_text()).text
    assert "Each file beside float32" not in text
    assert "What a wrong resize costs" not in text


def test_float_files_alone_are_listed_with_what_their_parity_proves(tmp_path: Path) -> None:
    run = study_run(tmp_path / "run", ("1x",), samples=70)
    path = run / "export" / "1x-tflite-none" / "parity.json"
    check = json.loads(path.read_text())["checks"][0]
    changed(path, checks=[check | {"pass": False, "max_abs": 0.4}])
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    assert any(row.startswith("ONNX,1xfloat32✓PASS") for row in packed(page))
    assert any(row.startswith("TFLite,1xfloat32✕FAIL") for row in packed(page))
    assert "Quantised files: only float32 was exported" in page.text

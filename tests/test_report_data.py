"""Data findings, confusion, recall and mistakes: counted by hand, bounded, and named when odd."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import Page, artifact_in, begun
from report_study import NAMES, data_json, mistakes_file, predicted_answers

from edgessl.core import files
from edgessl.core.statistics import wilson
from edgessl.report.answers import answers
from edgessl.report.findings import find_out
from edgessl.report.html import write_report
from edgessl.report.mistakes import mistakes
from edgessl.report.model_card import write_model_card
from edgessl.report.read import read_run

HOSTILE = 'raw/"quoted" 🦊\n</script><script>alert(1)</script>.png'


def extracted(folder: Path, labels: tuple[str, ...]) -> Path:
    run = begun(folder)
    place = run / "extract" / "1x"
    artifact_in(place, "model", "safetensors", 500, labels=labels)
    return place


def written(run: Path) -> str:
    return write_report([run], run.parent / "r.html").read_text(encoding="utf-8")


def test_confusion_and_recall_are_counted(tmp_path: Path) -> None:
    place = extracted(tmp_path / "run", ("cat", "dog", "owl"))
    # cat: 3 of 4 right; dog: 1 of 2 right, one taken for a cat; owl: not tested
    pairs = [(0, 0), (0, 0), (0, 0), (0, 1), (1, 1), (1, 0)]
    lines = [f"{i:064x},{t},{p},0.9,0.5\n" for i, (t, p) in enumerate(pairs)]
    files.write_text(
        place / "predictions.csv", "sha256,label,predicted,score,margin\n" + "".join(lines)
    )
    (found,) = answers(read_run(tmp_path / "run"))
    numbers = [[cell.number for cell in row] for _, row in found.matrix]
    assert numbers == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert [cell.right for cell in found.matrix[1][1]] == [False, True, False]
    recalls = {r.name: (r.right, r.n, r.low, r.high) for r in found.recalls}
    assert recalls == {"cat": (3, 4, *wilson(3, 4)), "dog": (1, 2, *wilson(1, 2))}
    assert found.balanced == pytest.approx((0.75 + 0.5) / 2)
    assert found.worst.name == "dog"
    assert {(p.true, p.said, p.number, p.share) for p in found.pairs} == {
        ("cat", "dog", 1, "25.0%"), ("dog", "cat", 1, "50.0%"),
    }  # fmt: skip
    page = Page(written(tmp_path / "run"))
    assert "the lowest is dog with 50.0%" in page.text
    card = write_model_card(tmp_path / "run", tmp_path).read_text()
    assert "| dog | 50.0% |" in card


def test_many_classes_and_images_stay_small_and_are_listed_as_pairs(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(100))
    place = extracted(tmp_path / "run", names)
    predicted_answers(place, 100, 10_000, 0.8)
    mistakes_file(place, 224, 100)
    data_json(tmp_path / "run", names)
    html = written(tmp_path / "run")
    assert "Confusion matrix" not in html
    assert "Recall of all 100 classes" in html
    assert len(html) < 3_000_000
    (found,) = answers(read_run(tmp_path / "run"))
    assert found.matrix == []
    assert len(found.recalls) == 100
    assert found.pairs[0].number == max(p.number for p in found.pairs)


def test_mistakes_are_shown_as_they_were_kept(tmp_path: Path) -> None:
    place = extracted(tmp_path / "run", NAMES)
    mistakes_file(place, 28, len(NAMES), count=5)
    (found,) = mistakes(read_run(tmp_path / "run"))
    with np.load(place / "mistakes.npz") as kept:
        for index, shown in enumerate(found.shown):
            picture = Image.open(io.BytesIO(base64.b64decode(shown.picture.split(",")[1])))
            assert np.array_equal(np.asarray(picture), kept["images"][index])
            assert shown.true == NAMES[kept["label"][index]]
            assert shown.said == NAMES[kept["predicted"][index]]
            assert shown.score == kept["score"][index]
    predicted_answers(place, len(NAMES), 50, 0.5)
    page = Page(written(tmp_path / "run"))
    alts = [value for tag, key, value in page.attributes if (tag, key) == ("img", "alt")]
    assert alts[0] == "Test image 1: truly T-shirt, taken for trouser"
    assert len(alts) == 5


def test_pictures_of_all_widths_stay_within_the_room(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for width in ("1x", "0.5x"):
        artifact_in(run / "extract" / width, "model", "safetensors", 500, labels=NAMES)
        mistakes_file(run / "extract" / width, 224, len(NAMES))
    found = mistakes(read_run(run), room=300_000)
    assert [m.width for m in found] == ["1x", "0.5x"]
    assert sum(len(x.picture) for m in found for x in m.shown) <= 300_000
    for m in found:
        assert m.shown
        assert len(m.shown) + m.more == 24
        assert m.shown[0].score == pytest.approx(0.999)  # the worst stay in


@pytest.mark.parametrize(
    "broken",
    [
        {"images": np.zeros((2, 8, 8), np.uint8)},
        {"images": np.zeros((2, 8, 8, 3), np.float32)},
        {"images": np.zeros((2, 0, 8, 3), np.uint8)},
        {"label": np.zeros(3, np.int64)},
        {"predicted": np.zeros(2, np.float64)},
        {"score": np.array(["a", "b"])},
        {"label": np.array([{}, {}])},  # would need pickle
    ],
)
def test_odd_mistakes_are_named_and_left_out(tmp_path: Path, broken: dict) -> None:
    place = extracted(tmp_path / "run", NAMES)
    sound = {
        "images": np.zeros((2, 8, 8, 3), np.uint8), "label": np.zeros(2, np.int64),
        "predicted": np.ones(2, np.int64), "score": np.ones(2),
    }  # fmt: skip
    np.savez(place / "mistakes.npz", **(sound | broken))
    run = read_run(tmp_path / "run")
    assert mistakes(run) == []
    assert [line for line in run.notes.lines if "mistakes.npz could not be read" in line]


def test_data_findings_are_shown_and_say_what_to_beware_of(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    data_json(run, NAMES)
    body = files.read_json(run / "data.json", "data-findings")
    source = body["sources"][1]
    source["classes"] = {"cup": 900, 'b"<i>olt': 30}
    source["skipped"] = [{"item": HOSTILE, "reason": "truncated"}]
    source["skipped_count"] = 70
    files.write_json(run / "data.json", "data-findings", body)
    html = written(run)
    page = Page(html)
    for said in (
        "70 files of the labelled images could not be used",
        "4 exact duplicates among the labelled images: copies are kept on one side of a split, but "
        "each counts as an image in accuracy and n: n then overstates how many different images",
        "the largest class has 30.0 times the images of the smallest",
        "1 pair of near-duplicates lie on different sides of a split",
        "min 28 x 28, median 28 x 28, max 640 x 480 px",
        "12 groups were kept together",
        "(the first 1)",
    ):
        assert said in page.text.replace("\u00a0", " "), said
    assert "counted once" not in page.text
    assert "<script" not in html
    assert "<i>olt" not in html
    assert any(re.search(r"cup\s*900\s*96\.8%", row) for row in page.rows)
    card = write_model_card(run, tmp_path).read_text()
    assert "30.0 times" in card
    assert "<script" not in card


def test_findings_that_do_not_fit_are_named_and_the_others_shown(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    good = {"role": "test", "name": "t", "images": 7}
    bad = {"role": "labels", "images": "many"}
    data_json(run, NAMES, sources=[good, bad], near_duplicates="none", splits=[1])
    opened = read_run(run)
    found = find_out(opened)
    assert [s.images for s in found.sources] == [7]
    assert any("Source 2: images" in line for line in opened.notes.lines)
    assert any("a list of NearDuplicate" in line for line in opened.notes.lines)


def test_embeddings_without_labels_still_make_a_report(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    artifact_in(run / "export" / "1x-onnx-none", "export", "onnx", 500, labels=())
    data_json(run, NAMES, splits=None)
    page = Page(written(run))
    assert "It turns images into features; without labels no accuracy" in page.text
    assert "A network without a classifier" in page.text
    assert "no extracted net has answered labelled test images" in page.text

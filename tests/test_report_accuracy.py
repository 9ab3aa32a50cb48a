"""Did pretraining pay: against the best rival, on the same draws, said as it is."""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import fmean

import pytest
from report_runs import Page, begun
from report_study import NAMES, data_json, study_rows

from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.statistics import resampled_t_interval, student_t_interval
from edgessl.report.accuracy import accuracy_points
from edgessl.report.findings import Findings
from edgessl.report.html import write_report
from edgessl.report.judgement import Judgement, judge_pretraining
from edgessl.report.label_curve import label_curves
from edgessl.report.label_table import label_tables
from edgessl.report.model_card import write_model_card
from edgessl.report.read import read_run


def rows_of(variant: str, values: list[float], **changes: object) -> list[LedgerRow]:
    common = {
        "stage": "finetune", "variant": variant, "metric": "top1", "n": 500,
        "labels_per_class": 10, "split": "test", "width": "1x",
    } | changes  # fmt: skip
    name = f"{common['stage']}/{variant}/{common['labels_per_class']}/{common['width']}"
    return [
        LedgerRow(id=f"{name}/draw{k}", draw=k, value=value, **common)
        for k, value in enumerate(values)
    ]


def pixel_rows(values: list[float], **changes: object) -> list[LedgerRow]:
    facts = {"stage": "evaluate", "metric": "linear_top1", "width": None} | changes
    return rows_of("pixels", values, **facts)


def judged(rows: list[LedgerRow]) -> list[Judgement]:
    return judge_pretraining(accuracy_points(rows))


def page_of(folder: Path, rows: list[LedgerRow]) -> Page:
    run = begun(folder)
    Ledger(run / "ledger.json").put(rows)
    return Page(write_report([run], folder.parent / f"{folder.name}.html").read_text())


def test_draws_without_a_summary_are_summarised_with_t() -> None:
    (point,) = accuracy_points(rows_of("scratch", [0.50, 0.52, 0.54]))
    assert point.value == pytest.approx(0.52)
    assert point.low == pytest.approx(0.52 - 4.302653 * 0.02 / math.sqrt(3), abs=1e-6)
    assert list(point.draws.values()) == [0.50, 0.52, 0.54]
    assert point.interval == "t over 3 draws"


@pytest.mark.parametrize(
    ("differences", "answer", "said"),
    [
        ([0.05, 0.06, 0.07], "paid", "Pretraining paid here"),  # 0.06, sd 0.01: 0.035 to 0.085
        # mean 0.04, sd 0.02, t 4.303: -0.010 to 0.090
        ([0.02, 0.04, 0.06], "did not pay", "The interval includes zero"),
        ([-0.05, -0.06, -0.07], "did not pay", "6.0 points below its best rival"),
        ([0.30], "cannot tell", "Cannot tell with 1 draw"),  # one draw, however large
    ],
)
def test_whether_pretraining_paid_is_judged_pair_by_pair(differences, answer, said) -> None:
    # scratch differs far more between draws than the pairs do: only pairing can tell
    scratch = [0.4, 0.6, 0.5][: len(differences)]
    mine = [s + d for s, d in zip(scratch, differences, strict=True)]
    (judgement,) = judged(rows_of("scratch", scratch) + rows_of("sacl-xd", mine))
    assert judgement.answer == answer
    assert judgement.delta == pytest.approx(sum(differences) / len(differences))
    assert said in judgement.sentence.replace("\u00a0", " ")
    assert ("did not pay here" in judgement.sentence) == (answer == "did not pay")
    if answer == "paid":
        assert judgement.low == pytest.approx(0.06 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)


def test_the_rival_is_the_best_of_pixels_scratch_and_imagenet() -> None:
    rows = rows_of("sacl-xd", [0.70, 0.71, 0.72]) + rows_of("scratch", [0.50, 0.51, 0.52])
    assert judged(rows)[0].answer == "paid"
    rows += rows_of("imagenet", [0.75, 0.76, 0.77])
    (judgement,) = judged(rows)
    assert (judgement.answer, judgement.rival.variant) == ("did not pay", "imagenet")
    rows += rows_of("imagenet+sacl-xd", [0.80, 0.81, 0.82])
    rows += pixel_rows([0.90, 0.91, 0.92])
    own, both = judged(rows)
    assert (own.rival.variant, both.rival.variant) == ("pixels", "pixels")
    assert both.delta == pytest.approx(-0.10)
    assert "Pretraining did not pay here" in both.sentence
    assert "Pixels alone do better: these images do not show" in both.sentence


def test_a_rival_counts_with_its_better_measurement(tmp_path: Path) -> None:
    def probe(variant: str, level: float, **changes: object) -> list[LedgerRow]:
        facts = {"stage": "evaluate", "metric": "linear_top1"} | changes
        return rows_of(variant, [level - 0.01, level, level + 0.01], **facts)

    rows = probe("imagenet", 0.812) + rows_of("imagenet", [0.60, 0.61, 0.62])
    rows += probe("sacl-xd", 0.90) + rows_of("sacl-xd", [0.702, 0.712, 0.722])
    (judgement,) = judged(rows)
    # its own figure is the fine-tuned one, though its probe is better
    assert (judgement.mine.frozen, judgement.rival.frozen) == (False, True)
    assert judgement.delta == pytest.approx(-0.10)
    said = "SACL+XD and fine-tuning (71.2%) ends 10.0 points below its best rival, ImageNet "
    assert f"{said}weights, linear probe (81.2%)" in judgement.sentence
    page = page_of(tmp_path / "run", rows)
    assert "Pretraining paid" not in page.text.replace("Pretraining paid only if", "")
    assert "over ImageNet weights (linear probe), its best rival" in page.text
    assert "favours the rival" in page.text
    assert any("best rival: linear probe" in row for row in page.rows)
    # the fine-tuned figure of the rival, where that is the better one
    (other,) = judged(rows + rows_of("scratch", [0.84, 0.85, 0.86]))
    assert "the same net trained from scratch (85.0%)" in other.sentence
    # a probe of random weights is not called a training
    random = [*probe("scratch", 0.95), *rows]
    assert "the same net with random weights, linear probe" in judged(random)[0].sentence


def test_a_narrow_net_with_imagenet_weights_is_called_what_it_is(tmp_path: Path) -> None:
    rows = []
    for width in ("1x", "0.5x"):
        rows += rows_of("imagenet", [0.60, 0.61], width=width)
        rows += rows_of("sacl-xd", [0.50, 0.51], width=width)
    run = begun(tmp_path / "run")
    Ledger(run / "ledger.json").put(rows)
    found = accuracy_points(rows)
    wide, narrow = label_tables(read_run(run), found, judge_pretraining(found))
    assert [x.name for x in wide.budgets[0].lines] == ["ImageNet weights", "SACL+XD"]
    assert narrow.budgets[0].lines[0].name == "First channels of ImageNet weights"
    sentences = {j.mine.width: j.sentence for j in judge_pretraining(found)}
    assert "rival, the first channels of ImageNet weights, fine-tuned" in sentences["0.5x"]
    assert "rival, ImageNet weights, fine-tuned" in sentences["1x"]


def test_labels_used_for_choosing_stand_beside_the_labels_per_class(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    rows = rows_of("scratch", [0.5, 0.6]) + rows_of("sacl-xd", [0.7, 0.8])
    rows += rows_of("sacl-xd", [0.6, 0.7], labels_per_class=5)
    Ledger(run / "ledger.json").put(rows)
    data_json(run, NAMES)
    told = (
        "plus 600 labelled validation images for choices (learning rate, penalty, which net ships)"
    )
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text.replace("\u00a0", " ")
    assert f"Trained with 10 labels per class, {told}." in text
    table, curve = text.index("Label table"), text.index("How many labels it takes")
    assert f"Labels per class: what training was given, {told}." in text[table:curve]
    assert f"Labels per class: what training was given, {told}." in text[curve:]
    assert "which net ships) were made on 600 further labelled images" in text
    card = write_model_card(run, tmp_path / "card.md").read_text().replace("\u00a0", " ")
    assert card.count(told) == 2
    # nothing is made up where nobody wrote it down
    bare = page_of(tmp_path / "bare", rows).text
    assert "labelled validation image" not in bare


def test_budgets_and_widths_are_judged_apart() -> None:
    rows = []
    for width, budget, gain in (("1x", 10, 0.1), ("1x", None, -0.1), ("0.5x", 10, 0.0)):
        place = {"width": width, "labels_per_class": budget}
        rows += rows_of("scratch", [0.50, 0.52, 0.51], **place)
        rows += rows_of("sacl-xd", [0.50 + gain, 0.52 + gain, 0.51 + gain], **place)
    found = {(j.mine.width, j.labels_per_class): j.answer for j in judged(rows)}
    assert found == {("1x", 10): "paid", ("1x", None): "did not pay", ("0.5x", 10): "did not pay"}


def test_folds_are_judged_by_the_interval_of_folds_not_of_independent_draws() -> None:
    def folds(variant: str, values: list[float]) -> list[LedgerRow]:
        rows = rows_of(variant, values, split="folds")
        low, high = resampled_t_interval(values, 0.5) or (None, None)
        update = {"id": f"{variant}/all", "draw": None, "value": fmean(values)}
        update |= {"ci_low": low, "ci_high": high}
        return [*rows, rows[0].model_copy(update=update)]

    scratch = [0.50, 0.54, 0.49, 0.53, 0.52]
    mine = [s + d for s, d in zip(scratch, [0.02, 0.03, 0.01, 0.03, 0.01], strict=True)]
    pairs = [m - s for m, s in zip(mine, scratch, strict=True)]
    (judgement,) = judged(folds("scratch", scratch) + folds("sacl-xd", mine))
    assert (judgement.low, judgement.high) == pytest.approx(resampled_t_interval(pairs, 0.5))
    assert judgement.answer == "did not pay"
    plain = student_t_interval(pairs)
    assert plain
    assert plain[0] > 0  # what would be claimed if the folds were independent
    assert "paired over 5 folds" in judgement.sentence.replace("\u00a0", " ")
    # without the summaries of the ledger nobody knows how the folds depend on each other
    rows = rows_of("scratch", scratch, split="folds") + rows_of("sacl-xd", mine, split="folds")
    (unknown,) = judged(rows)
    assert (unknown.answer, unknown.low) == ("cannot tell", None)
    assert "interval of that difference is not known" in unknown.sentence
    assert [p.low for p in accuracy_points(rows)] == [None, None]


def test_without_draws_the_paired_difference_of_the_ledger_is_used() -> None:
    other = rows_of("scratch", [0.5])[0].model_copy(update={"draw": None, "id": "s"})
    mine = other.model_copy(
        update={
            "id": "m", "variant": "sacl-xd", "value": 0.6, "compared_with": "s",
            "delta": 0.1, "delta_low": 0.05, "delta_high": 0.15,
        }
    )  # fmt: skip
    (judgement,) = judged([other, mine])
    assert (judgement.answer, judgement.low) == ("paid", 0.05)


def test_raw_pixels_that_do_better_are_said_in_the_headline(tmp_path: Path) -> None:
    def headline(name: str, rows: list[LedgerRow]) -> str:
        text = page_of(tmp_path / name, rows).text
        return text[text.index("In short") : text.index("What pretraining without labels")]

    scratch, mine = rows_of("scratch", [0.4, 0.4]), rows_of("sacl-xd", [0.70, 0.72])
    beaten = headline("beaten", [*scratch, *mine, *pixel_rows([0.882, 0.882])])
    assert (
        "raw pixels without any net, logistic regression (88.2%) (95% interval [−29.9, −4.5]"
        in beaten
    )
    assert beaten.count("Pixels alone do better") == 1
    paid = headline("paid", [*scratch, *mine, *pixel_rows([0.5, 0.5])])
    assert "Pixels alone" not in paid
    assert "Pretraining paid here" in paid
    # nothing was pretrained: it is said all the same
    alone = headline("alone", [*scratch, *pixel_rows([0.5, 0.5])])
    assert "logistic regression reaches 50.0%, 10.0 points above the best net" in alone


def test_the_label_table_has_every_rival_and_names_what_was_not_run(tmp_path: Path) -> None:
    rows = rows_of("scratch", [0.5, 0.6]) + rows_of("sacl-xd", [0.7, 0.8])
    rows += pixel_rows([0.4, 0.5]) + pixel_rows([0.6], labels_per_class=50)
    run = begun(tmp_path / "run")
    Ledger(run / "ledger.json").put(rows)
    found = accuracy_points(rows)
    (table,) = label_tables(read_run(run), found, judge_pretraining(found))
    assert [b.labels_per_class for b in table.budgets] == [10, 50]
    ten, fifty = ([(x.name, x.ran) for x in b.lines] for b in table.budgets)
    assert ten == [("Raw pixels", True), ("From scratch", True), ("SACL+XD", True)]
    assert fifty == [("Raw pixels", True), ("From scratch", False), ("SACL+XD", False)]
    assert table.absent == ["ImageNet weights", "ImageNet + SACL+XD"]
    page = Page(write_report([run], tmp_path / "r.html").read_text())
    assert "Not run at any budget: ImageNet weights, ImageNet + SACL+XD" in page.text
    assert any("From scratch not run with 50" in " ".join(row.split()) for row in page.rows)


def test_label_curves_tell_probes_from_fine_tuned_and_place_all_labels() -> None:
    found = accuracy_points(study_rows(random.Random(0), ("1x", "0.5x")))
    findings = Findings(splits=[("train", 4000)], classes=10)
    curves = label_curves(found, findings)
    assert [c.width for c in curves] == ["1x", "0.5x"]
    assert [title for title, _ in curves[0].panels] == [
        "Linear probe on frozen features", "Fine-tuned",
    ]  # fmt: skip
    assert "400 training images per class" in curves[0].note
    assert "not to scale" in label_curves(found, Findings())[0].note
    probe, tuned = (str(picture) for _, picture in curves[0].panels)
    assert "scratch" in tuned
    assert "scratch" not in probe
    # a curve needs two budgets: one alone is in the table
    alone = [p for p in found if p.labels_per_class == 10]
    assert label_curves(alone, findings) == []


def test_fold_mode_says_how_the_figure_was_made_and_claims_agreement_only(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    rows = rows_of("scratch", [0.6, 0.7], split="folds")
    rows += rows_of("sacl-xd", [0.8, 0.9], split="folds")
    rows.append(
        LedgerRow(
            id="export/1x-onnx-none/agreement", stage="export", variant="sacl-xd", target="onnx",
            width="1x", artifact_sha256="a" * 64, metric="agreement", value=1.0, n=120,
            ci_low=0.97, ci_high=1.0,
        )
    )  # fmt: skip
    Ledger(run / "ledger.json").put(rows)
    splits = {"train": 100, "validation": 20, "test": 0}
    data_json(run, NAMES, folds=5, splits=splits)
    text = Page(write_report([run], tmp_path / "r.html").read_text()).text
    for said in (
        "Nets trained the same way name the right class for 85.0% of images whose labels",
        "mean over cross-validation folds",
        "for its files no accuracy is claimed, only that they agree",
        "no image is left to measure their accuracy on",
        "5 folds took its place",
        "The accuracy of the exported files: there is no test split",
    ):
        assert said in text, said
    chosen = "In every fold the learning rate was chosen on validation images of that fold"
    headline = text[: text.index("Did pretraining pay? What pretraining")]
    assert chosen in headline
    assert chosen in text[len(headline) : text.index("How to read this report", len(headline))]
    assert "every choice was made on validation images" not in text
    assert "labelled validation image" not in text  # there is no validation split
    card = write_model_card(run, tmp_path / "card.md").read_text()
    assert chosen in card
    assert "no accuracy is claimed" in card
    assert "| onnx | 1x | 100.0% | [97.0, 100.0] | 120 |" in card


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        ({"pretraining_overlap": 1200}, "saw 1,200 of the 3,535 labelled images, without"),
        # 4 of the 3,535 images are copies of others
        ({"pretraining_overlap": 3531}, "saw all 3,535 labelled images, without their labels"),
        ({"pretraining_overlap": 0}, ""),
        ({"pretraining_overlap": None}, ""),
        ({}, ""),
    ],
)
def test_folds_say_how_many_of_their_images_pretraining_saw(
    tmp_path: Path, overlap: dict[str, int | None], said: str
) -> None:
    run = begun(tmp_path / "run")
    rows = rows_of("scratch", [0.6, 0.7], split="folds")
    rows += rows_of("sacl-xd", [0.8, 0.9], split="folds")
    Ledger(run / "ledger.json").put(rows)
    (run / "recipe.yaml").write_text("data:\n  unlabeled: photos\n  labels: parts\n")
    data_json(run, NAMES, folds=5, splits=None, **overlap)
    card = write_model_card(run, tmp_path / "card.md").read_text()
    for text in (Page(write_report([run], tmp_path / "r.html").read_text()).text, card):
        words = text.replace("\u00a0", " ")
        assert ("Pretraining saw" in words) == bool(said)
        assert said in words

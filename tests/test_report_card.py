"""The model card: seals, files, contract and honest sentences."""

from __future__ import annotations

import re
from pathlib import Path

from report_runs import fake_run
from report_study import study_run

from edgessl.core.artifact import Artifact
from edgessl.report.model_card import write_model_card


def test_model_card_names_seal_files_verdict_and_contract(tmp_path: Path) -> None:
    run_folder = fake_run(tmp_path / "parts")
    card = write_model_card(run_folder, run_folder / "MODEL_CARD.md").read_text()
    artifact = Artifact.load(run_folder / "export" / "1x-onnx-none")
    assert artifact.seal in card
    assert artifact.files["model.onnx"] in card
    assert "edgessl run 'my recipe.yaml' --out runs/parts" in card
    for words in ("Top-1 74.8%", "1,600 images", "VALID", "shape 1 x 3 x 96 x 96", "Apache-2.0"):
        assert words in card, words
    assert not card.startswith("---")
    check_tables(card)


def test_model_card_of_a_study_has_the_same_honest_sentences(tmp_path: Path) -> None:
    card = write_model_card(study_run(tmp_path / "study", samples=100), tmp_path).read_text()
    words = card.replace("\u00a0", " ")
    for said in (
        "ends 4.5 points above its best rival, ImageNet weights, fine-tuned",
        "RankMe of 1x fell to 1.4 of 512",
        "Recall of each class, width 1x",
        "Recall of each class, width 0.5x",
        "1 pair of near-duplicates lie on different sides of a split",
        "| 0.5x | 1 label per class | SACL+XD, fine-tuned | Raw pixels, logistic regression |",
        "other cameras, places, light or classes need a measurement",
    ):
        assert said in words, said
    check_tables(card)


def check_tables(card: str) -> None:
    """Every line of a table has as many cells as its head."""
    width = 0
    for line in card.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (cells and width) or cells == width, line
        width = cells

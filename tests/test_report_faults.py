"""Every file of a run may be absent, cut or full of nonsense: the report names it and goes on."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from report_exports import export_run
from report_runs import Page

from edgessl.report.html import write_report
from edgessl.report.model_card import write_model_card

NONSENSE = (b"", b"\x00\xff\xfe not text", b"[]", b"null", b"[[[[", b'{"a": NaN}', b"{}\n{}\n1\n")
NEEDED = ("run.json", "ledger.json")  # without them nothing can be believed: an error, by contract
STRANGE = (
    None, True, -1, 1e308, float("nan"), float("inf"), "", "x" * 300, [], {}, [[1]], {"a": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(tmp_path_factory.mktemp("sound") / "run", samples=70)


def files_of(run: Path) -> list[Path]:
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return sorted(path for path in found if path.name not in NEEDED)


def written(run: Path) -> str:
    write_model_card(run, run.parent / "card.md")
    return Page(write_report([run], run.parent / "r.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize("seed", range(4))
def test_files_of_nonsense_are_named(sound: Path, tmp_path: Path, seed: int) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    rng = random.Random(seed)
    spoilt = [path for path in files_of(run) if rng.random() < 0.5]
    for path in spoilt:
        whole = (run / path).read_bytes()
        (run / path).write_bytes(rng.choice([*NONSENSE, whole[: len(whole) // 2]]))
    text = written(run)
    assert "Some files could not be read" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("seed", range(6))
def test_values_of_other_kinds_do_no_harm(sound: Path, tmp_path: Path, seed: int) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    rng = random.Random(seed)
    for path in files_of(run):
        if path.suffix == ".json":
            document = json.loads((run / path).read_text())
            (run / path).write_text(json.dumps(_spoil(document, rng)))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in (run / path).read_text().splitlines()]
            text = "\n".join(json.dumps(_spoil(row, rng)) for row in rows)
            (run / path).write_text(text)
        elif path.suffix == ".csv":
            lines = (run / path).read_text().splitlines()
            (run / path).write_text("\n".join(line[rng.randrange(2) * 30 :] for line in lines))
    for name in NEEDED:
        document = json.loads((run / name).read_text())
        kept = {key: document[key] for key in ("schema", "kind", "edgessl")}
        if name == "run.json":
            document = {key: _spoil(value, rng) for key, value in document.items()} | kept
        (run / name).write_text(json.dumps(document))
    written(run)


@pytest.mark.parametrize("missing", [".json", ".jsonl", ".csv", ".npz", ".yaml", "all"])
def test_absent_files_are_fine(sound: Path, tmp_path: Path, missing: str) -> None:
    run = shutil.copytree(sound, tmp_path / "run")
    for path in files_of(run):
        if missing in (path.suffix, "all"):
            (run / path).unlink()
    text = written(run)
    assert "could not be read" not in text
    assert "Pretraining paid here" in text  # the ledger alone says so


def _spoil(value: object, rng: random.Random) -> object:
    """Replace about one value in twenty by one of another kind."""
    if rng.random() < 0.05:
        return rng.choice(STRANGE)
    if isinstance(value, dict):
        return {key: _spoil(inner, rng) for key, inner in value.items()}
    if isinstance(value, list):
        return [_spoil(inner, rng) for inner in value]
    return value

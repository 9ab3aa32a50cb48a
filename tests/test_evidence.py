"""Pages of measured figures say what was measured, no more."""

import json
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

from edgessl.encoders import ENCODERS
from edgessl.methods import METHODS

ROOT = Path(__file__).parents[1]


def script(name):
    """The names of a script, which imports its neighbours."""
    with mock.patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
        return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))


PAGE = script("evidence_page")


def test_the_page_is_made_from_the_kept_result():
    result = json.loads((ROOT / "benchmarks/results/evidence.json").read_text("utf-8"))
    before = json.loads(PAGE["BEFORE"].read_text("utf-8"))
    assert (ROOT / "docs/evidence.md").read_text("utf-8") == PAGE["page"](result, before)
    for kind in ("epochs", "cost"):
        found = PAGE["runs"](result, kind)
        assert list(found) == list(PAGE["ORDER"])
        assert {len(found[m]) for m in found if m != "pixels"} == {3}
    for kind in ("longer", "longercost"):
        found = PAGE["runs"](result, kind)
        both = [{row["seed"] for row in found.get(PAGE[who], [])} for who in ("RIVAL", "OURS")]
        assert both[0] == both[1]


def rows(barlow, sacl_xd):
    made = []
    for method, values in (("barlow", barlow), ("sacl-xd", sacl_xd)):
        for seed, value in enumerate(values):
            top1 = dict.fromkeys(PAGE["COLUMNS"], value)
            made.append({"row": f"epochs-{method}-{seed}", "method": method, "seed": seed,
                         "top1": top1})  # fmt: skip
    return PAGE["runs"]({"rows": made}, "epochs")


def test_the_sentence_follows_the_figures():
    say = PAGE["verdict"]
    assert "SACL+XD is above" in say(rows([70, 71, 72], [75, 76.1, 77]), "x")
    assert "SACL+XD is below" in say(rows([75, 76.1, 77], [70, 71, 72]), "x")
    assert "no difference" in say(rows([70, 71, 72], [71, 70, 72]), "x")
    assert "too few" in say(rows([70], [75]), "x")


@pytest.mark.parametrize(
    ("made_by", "result", "written"),
    [
        ("switches_page", "sacl_xd_switches", "switches"),
        ("matrix_page", "methods", "matrix"),
    ],
)
def test_other_pages_are_made_from_their_kept_results(made_by, result, written):
    kept = json.loads((ROOT / f"benchmarks/results/{result}.json").read_text("utf-8"))
    assert (ROOT / f"docs/{written}.md").read_text("utf-8") == script(made_by)["page"](kept)


def test_the_kept_matrix_is_full():
    kept = json.loads((ROOT / "benchmarks/results/methods.json").read_text("utf-8"))["rows"]
    encoders = {row["encoder"] for row in kept}
    assert encoders <= set(ENCODERS)
    assert len(encoders) >= 3
    assert {(r["method"], r["encoder"]) for r in kept} == {
        (m, e) for m in METHODS for e in encoders
    }


def test_every_switch_was_measured_as_often():
    kept = json.loads((ROOT / "benchmarks/results/sacl_xd_switches.json").read_text("utf-8"))
    rows = {row["switch"]: row for row in kept["table"]}
    assert list(rows) == list(script("sacl_xd_switches")["SWITCHES"]) == list(kept["cost"]["steps"])
    assert len({tuple(row["seeds"]) for row in rows.values()}) == 1


def test_a_difference_is_named_only_beyond_the_seeds():
    def switch(name, gaps):
        return {"switch": name, "against": "default", "knn_difference": gaps,
                "linear_difference": [-1.0, 0.1, 1.0]}  # fmt: skip

    say = script("switches_page")["beyond"]
    zero = switch("default", [0.0, 0.0, 0.0])
    found = say({"table": [zero, switch("sacl", [-1.0, -1.1, -0.9])]})
    assert found.startswith("Beyond the seeds, below: no cross distillation")
    assert "linear" not in found
    assert say({"table": [zero, switch("sacl", [-1.0, 1.1, -0.9])]}).startswith("No switch differs")

"""The page of evidence says what was measured, no more."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = runpy.run_path(str(ROOT / "benchmarks" / "evidence_page.py"))


def test_the_page_is_made_from_the_kept_result():
    result = json.loads((ROOT / "benchmarks/results/evidence.json").read_text("utf-8"))
    assert (ROOT / "docs/evidence.md").read_text("utf-8") == PAGE["page"](result)
    for kind in ("epochs", "cost"):
        found = PAGE["runs"](result, kind)
        assert list(found) == list(PAGE["ORDER"])
        assert {len(found[m]) for m in found if m != "pixels"} == {3}


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

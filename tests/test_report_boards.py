"""Boards in the report: like stands beside like, and every figure beside what qualifies it."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from report_boards import HEAT, board_parity, boards_run, energy, grid_run, layer_profile
from report_runs import Page, artifact_in, begun
from report_study import study_run

from edgessl.cli.info import _schema
from edgessl.devices.energy import KEYS
from edgessl.report.bench_groups import bench_groups
from edgessl.report.board_facts import all_facts, board_facts
from edgessl.report.board_records import Energy, LayerProfile
from edgessl.report.energy import energy_view
from edgessl.report.formats import flatten
from edgessl.report.html import write_report
from edgessl.report.layer_times import layer_times
from edgessl.report.model_card import write_model_card
from edgessl.report.read import read_run
from edgessl.report.summary import summarise

EMULATED = "On a stand-in (emulated): these times say nothing about a board"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boards_run(tmp_path_factory.mktemp("boards") / "run", samples=120)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grid_run(tmp_path_factory.mktemp("grid") / "run")


def page_of(run: Path) -> Page:
    target = write_report([run], run.parent / "report.html")
    return Page(target.read_text(encoding="utf-8").replace("\u00a0", " "))


def card_of(run: Path) -> str:
    return write_model_card(run, run.parent / "card.md").read_text().replace("\u00a0", " ")


def place(run: Path, device: str) -> Path:
    return next((run / "bench" / device).iterdir())


def spoilt(run: Path, to: Path, device: str, name: str, **values: Any) -> Path:
    """A copy of a run in which one record of a bench has other values."""
    copy = shutil.copytree(run, to)
    path = place(copy, device) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return copy


def test_browser_and_stand_in_are_groups_of_their_own(run: Path) -> None:
    page = page_of(run)
    native, rest = page.text.split(" In a browser ", 1)
    browser, stand_in = rest.split(f" {EMULATED} ", 1)
    latency = native[native.index("A figure counts only") :]
    assert "Pixel 8" not in latency
    assert "(emulated)" not in latency
    assert "Pixel 8, Chrome 141" in browser
    assert "Raspberry Pi" not in browser
    assert "Raspberry Pi 4 Model B Rev 1.4 (emulated)" in stand_in
    groups = {g.sort: g for g in bench_groups(summarise(read_run(run)).benches)}
    assert [len(g.views) for g in groups.values()] == [3, 1, 1]
    tradeoff, distributions = groups["native"].tradeoff, groups["native"].distributions
    assert tradeoff is not None
    assert distributions is not None
    for picture in (tradeoff.picture, distributions[0]):
        assert "Raspberry Pi 5" in picture
        assert "Pixel" not in picture
        assert "emulated" not in picture
    assert groups["emulated"].tradeoff is groups["emulated"].distributions is None
    card = card_of(run)
    assert card.index("### In a browser") < card.index(f"### {EMULATED}")


def test_the_headline_is_a_board_even_where_a_stand_in_was_faster(
    run: Path, tmp_path: Path
) -> None:
    view = summarise(read_run(run)).headline.view
    assert view is not None
    assert view.device == "Raspberry Pi 5 Model B Rev 1.0"  # the fastest of those that agree
    less = shutil.copytree(run, tmp_path / "run")
    for device in ("pi4", "pi5", "orin"):
        shutil.rmtree(less / "bench" / device)
    head = summarise(read_run(less)).headline
    assert head.view is None
    assert "answered by" not in head.top1.about
    why = "benches ran only in a browser and on a stand-in (emulated)"
    page = page_of(less)
    assert f"How fast it is on a board was not measured: {why}." in head.achievement
    assert f"not measured {why}" in page.text
    assert f"Latency: {why}." in page.text
    assert f"Latency: {why}." in card_of(less)


def test_what_a_board_told_is_short_and_the_rest_is_folded(run: Path) -> None:
    device = json.loads((place(run, "orin") / "result.json").read_text())["device"]
    facts = dict(board_facts(device))
    assert facts["Board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["Cores"].replace("\u00a0", " ") == "6, 4 usable, 4 x 2.40 GHz"
    assert facts["Governor"] == "schedutil"
    assert not any("wheels" in name for name in facts)
    everything = dict(all_facts(device))
    assert everything["runtimes.onnxruntime"] == "1.31.1"
    page = page_of(run)
    assert not any(len(cell) > 700 for cell in page.cells)  # no endless line
    for condition in HEAT:
        assert page.text.count(condition) >= 4


def test_a_board_may_tell_anything_of_any_size() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"a": deep}
    assert flatten(deep)[0][1] == "…"
    hostile = {
        "board": "x" * 10**6, "cores": [1], "policies": [1], "clusters": {"a": 1}, "os": deep,
        "memory_mb": {"MemTotal": "much"}, "affinity": "all", "power_supplies": {"b": deep},
        "many": {str(i): i for i in range(5000)},
    }  # fmt: skip
    assert all(len(text) <= 160 for _, text in board_facts(hostile))
    assert len(all_facts(hostile)) < 200


def test_energy_stands_beside_what_the_sensor_sees(run: Path) -> None:
    page, card = page_of(run), card_of(run)
    rows = [row for row in page.rows if "mJ" in row and "soc" in row]
    assert len(rows) == 1
    for said in ("21.9 mJ [21.2, 22.6]", "✓ VALID", "37.2 mJ", "49.7 mJ", "5.87 Wh",
                 "at 10 images a second", "without USB devices"):  # fmt: skip
        assert said in rows[0], said
    assert any("8.10 h on 48 Wh" in row and "at its supply plug" in row for row in page.rows)
    assert "Not measurable here: this board has no current sensor" in page.text
    assert "Energy: Not measurable here: this board has no current sensor" in card
    assert "| soc: the rails of the processor, without USB devices" in card
    # the fit of the Pi is named as what it is, and stays out of the table of meters
    estimated = [row for row in page.rows if "25.1 mJ" in row]
    assert estimated
    assert all("estimated" in row for row in estimated)
    assert "An estimate for the whole board, not measured: community fit" in page.text


@pytest.mark.parametrize("scope", ["estimate", None, "module"])
def test_no_joule_without_a_meter(scope: str | None) -> None:
    notes = ["no energy: 12.0 s were timed, 60 s are needed (--preset standard)"]
    body = energy("module", 0.02, net_j=None if scope == "module" else 0.02, notes=notes)
    view = energy_view(Energy.model_validate(body | {"scope": scope}))
    assert view is not None
    assert view.sentence == "No energy: 12.0 s were timed, 60 s are needed (--preset standard)."
    assert (view.net, view.rows) == ("", [])


def test_board_parity_is_told_with_its_bounds_and_takes_the_tick(run: Path) -> None:
    page = page_of(run)
    assert "✓ PASS 99.8% [99.5, 99.9] of 1,600 answers are those of the same file" in page.text
    assert "✕ FAIL 95.0% [93.8, 96.0] of 1,600 answers" in page.text
    told = "1 became right, 79 became wrong; drop of top-1 in points: +4.9 [+4.8, +5.2], 1.0 may be"
    assert told in page.text
    assert "max |Δ| 3.0e−06 of the largest logit (tolerance 1.0e−03)" in page.text
    orin = [row for row in page.rows if "Jetson" in row and re.search(r"\d m[sJ]", row)]
    assert orin
    assert all("✓" not in row and "✕ answers differ" in row for row in orin)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seal": "0" * 64}, "is about another file: its seal differs"),
        ({"outcome": "PASS", "drop_high": 0.4}, "says PASS, but a drop of 0.4 is more than 0.01"),
        ({"agreement_high": 0.2}, "says PASS, but an agreement of at most 0.2"),
        ({"lost": 1500}, "do not fit each other"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"agreement": float("nan")}, "finite"),
    ],
)
def test_a_parity_that_cannot_be_believed_is_left_out(
    run: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    copy = spoilt(run, tmp_path / "run", "pi5", "parity.json", **values)
    page = page_of(copy)
    assert re.search(rf"bench/pi5/\S+/parity\.json\S* .*{re.escape(said)}", page.text)
    assert "99.8% [99.5, 99.9]" not in page.text


def test_layers_are_summed_by_module_and_shares_are_those_of_the_whole() -> None:
    profile = LayerProfile.model_validate(layer_profile("5" * 64))
    view = layer_times(profile)
    assert view is not None
    rows = view.shown + view.others
    assert len(rows) == 18 + 2  # twins of a module are one row, what has none stays apart
    first = rows[0]
    assert (first.module, first.operations) == ("features.2.block.0", "Conv, HardSwish")
    whole = sum(row.p50 for row in profile.rows)
    own = sum(row.p50 for row in profile.rows if row.module == first.module)
    assert first.share == f"{100 * own / whole:.1f}%"
    assert [row.module for row in rows if not row.known] == ["reorder 1", "reorder 2"]
    nothing = layer_times(LayerProfile.model_validate(layer_profile("5" * 64, rows=[])))
    assert nothing is not None
    assert nothing.note == "no layer of this file was timed"


def test_a_runtime_that_times_no_layers_says_so(run: Path) -> None:
    page = page_of(run)
    assert "Layers the Python packages of LiteRT time whole inferences only" in page.text
    assert "Slowest layers features.2.block.0 (" in page.text
    assert "The other 12" in page.text


def test_pages_with_boards_can_be_read_aloud(run: Path, grid: Path) -> None:
    target = write_report([run, grid], run.parent / "both.html")
    html = target.read_text(encoding="utf-8")
    page = Page(html)
    assert "times of 6 nets" in page.text
    for table in page.tables:
        assert table["caption"] == 1
        assert table["th"] == table["scoped"] > 0
    assert len(page.ids) == len(set(page.ids))
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", html)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    anchors = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert anchors <= set(page.ids)
    assert "http" not in html.replace("http-equiv", "")


STRANGE = (None, True, -1, 1e308, float("nan"), "", "x" * 300, [], {}, [[1]], "<script>a</script>")


@pytest.mark.parametrize("seed", range(8))
def test_hostile_records_of_boards_do_no_harm(
    run: Path, grid: Path, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)

    def spoil(value: object) -> object:
        if rng.random() < 0.06:
            return rng.choice(STRANGE)
        if isinstance(value, dict):
            return {rng.choice([key, key, key, "<b>"]): spoil(v) for key, v in value.items()}
        return [spoil(inner) for inner in value] if isinstance(value, list) else value

    copies = [shutil.copytree(run, tmp_path / "run"), shutil.copytree(grid, tmp_path / "grid")]
    for copy in copies:
        for path in [*copy.glob("bench/*/*/*.json"), *copy.glob("grid.json")]:
            path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
        write_model_card(copy, tmp_path / "card.md")
    html = write_report(copies, tmp_path / "r.html").read_text(encoding="utf-8")
    Page(html)
    assert "<script" not in html


def test_records_of_boards_have_published_schemas(run: Path, grid: Path) -> None:
    def fits(body: Any, schema: dict[str, Any], where: str) -> None:
        if "properties" in schema:
            assert set(schema["required"]) <= set(body) <= set(schema["properties"]), where
            for name, value in body.items():
                fits(value, schema["properties"][name], f"{where}.{name}")
        for index, value in enumerate(body if "items" in schema else ()):
            fits(value, schema["items"], f"{where}[{index}]")
        if "enum" in schema:
            assert body in schema["enum"], where

    found = {"board-parity": place(run, "pi5") / "parity.json",
             "layer-profile": place(run, "pi5") / "profile.json",
             "bench-grid": grid / "grid.json"}  # fmt: skip
    for kind, path in found.items():
        fits(json.loads(path.read_text()), _schema(kind), kind)
    told, _null = _schema("bench-result")["properties"]["energy"]["anyOf"]
    assert set(told["required"]) == {*KEYS, "notes"}
    fits(json.loads((place(run, "pi5") / "result.json").read_text())["energy"], told, "energy")


def test_runs_without_boards_are_as_they_were(tmp_path: Path) -> None:
    page = page_of(study_run(tmp_path / "study", ("1x",), samples=70))
    assert "Untrained" not in page.text
    assert "In a browser A page" not in page.text
    empty = begun(tmp_path / "empty")
    artifact_in(empty / "export" / "1x-onnx-none", "export", "onnx", 500)
    assert "Not run: no bench is in this run folder" in page_of(empty).text


def test_the_records_of_these_tests_are_those_that_the_stages_write(grid: Path) -> None:
    from edgessl.devices.profile import profile_rows
    from edgessl.stages import board_answers
    from edgessl.stages.grid import GridRow

    parity = board_parity("5" * 64, "PASS", 3)
    written = {field.name for field in fields(board_answers.BoardParity)}
    assert set(parity) == written | {"seal", "where", "compared_with"}
    rows = layer_profile("5" * 64)["rows"]
    assert [set(row) for row in profile_rows(rows, {})] == [set(row) for row in rows]
    for row in json.loads((grid / "grid.json").read_text())["rows"]:
        assert list(row) == [field.name for field in fields(GridRow)]

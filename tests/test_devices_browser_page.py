"""What is believed of a page, and what is made of it: a record like a board's, or words."""

import json
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np
import pytest
from npm_registry import npm_registry
from scripted_page import FACTS, ScriptedPage, healthy_run, tel
from tiny_bench import CLASSES, N, bench, write_stage

from edgessl.core.errors import (
    BoardUnreachable,
    EdgeSSLError,
    MissingExtra,
    OutOfMemory,
    UsageProblem,
)
from edgessl.devices.base import Board
from edgessl.devices.browser import device, line, listening, packages, reach, state
from edgessl.devices.browser.heard import browser_of, facts_of


@pytest.fixture
def stage(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    logits = np.random.default_rng(2).standard_normal((N, CLASSES)).astype(np.float32)
    (tmp_path / "model.onnx").write_bytes(b"not looked at here")
    return write_stage(tmp_path / "stage", [tmp_path / "model.onnx"], "onnx", images, logits)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    with npm_registry(tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture
def scripted(registry):
    """A browser device whose page is a script: facts, then what ``answer`` gives for an order."""
    packages.setup(lambda line: None)
    made = []

    def make(answer, facts=FACTS, **choices):
        def live(url):
            page = ScriptedPage(url)
            page.talk(facts)
            done = 0
            while (order := page.talk()) is None or order["do"] != "end":
                if order and order["do"] == "bench" and order["id"] != done:
                    done = order["id"]
                    for event in answer(order["plan"]):
                        page.talk(event)

        def tell(line):
            if "://" in line:
                threads.append(threading.Thread(target=quietly, args=(line.strip(),), daemon=True))
                threads[-1].start()

        def quietly(url):
            with suppress(AssertionError, OSError):  # the server is gone, or a test hung up
                live(url)

        threads = []
        made.append(device.BrowserDevice(Board("browser"), tell, **choices))
        return made[-1]

    yield make
    for one in made:
        one.close()


def healthy(plan):
    return healthy_run(plan["images"], CLASSES, threads=plan["threads"])


def test_what_a_page_says_becomes_the_record_of_a_board(scripted, stage, tmp_path):
    board = scripted(healthy)
    result = bench(board, stage, tmp_path / "out")
    assert result.result_kind == "browser"
    assert result.verdicts == ("VALID",)
    assert result.device["id"] == board.id == "linux-chromium-156-2c-" + board.facts()["host_hash"]
    assert result.runtime["version"] == "ort 1.2.3"
    assert result.latency_ms["infer"].p50 == 4.0
    assert result.memory_mb == {}
    assert any(line == "clock of the browser: steps of 5 us" for line in result.conditions)
    assert any("power draw" in line for line in result.conditions)
    text = (tmp_path / "out" / "result.json").read_text()
    assert board._visit.server.token not in text


def altered(index, **fields):
    def answer(plan):
        run = healthy(plan)
        run[index] = run[index] | fields
        return run

    return answer


LOADED, LAT, TIMED, ACC = 1, 6, 8, 9
ROWS = healthy_run(N, CLASSES)[ACC]["rows"]
LIES = {
    "text for milliseconds": altered(LOADED, load_ms="fast"),
    "a clock that stands": altered(LOADED, clock_step_us=0),
    "a clock of words": altered(LOADED, clock_step_us="fine"),
    "samples of text": altered(LAT, ns={"infer": ["x"], "e2e_from_uint8": ["y"]}, at_us=[0]),
    "parts above the whole": altered(LAT, at_us=[0], ns={"infer": [9], "e2e_from_uint8": [1]}),
    "a negative sample": altered(LAT, at_us=[0], ns={"infer": [-9], "e2e_from_uint8": [1]}),
    "other samples than counted": altered(TIMED, n=39),
    "a block of nothing": altered(TIMED, block=0),
    "a block of truth": altered(TIMED, block=True),
    "few answers": lambda plan: healthy_run(plan["images"] - 1, CLASSES),
    "a class beyond": altered(ACC, rows=ROWS | {"predicted": [CLASSES] * N}),
    "a class beyond among five": altered(ACC, rows=ROWS | {"top5": [[0, 10**9]] * N}),
    "gaps of text": altered(ACC, rows=ROWS | {"gap": ["x"] * N}),
    "done at once": lambda plan: [{"k": "done", "t": 0}],
    "facts of its own": lambda plan: [{"k": "plan", "t": 0, "threads": 99}],
    "an error of another type": lambda plan: [{"k": "error", "t": 0, "type": [], "msg": {}}],
    "a moment of words": lambda plan: [tel("before") | {"t": "now"}],
}  # fmt: skip


@pytest.mark.parametrize("answer", LIES.values(), ids=LIES)
def test_a_page_that_lies_ends_in_words(scripted, stage, tmp_path, answer):
    board = scripted(answer)
    with pytest.raises(EdgeSSLError) as caught:
        bench(board, stage, tmp_path / "out")
    assert len(caught.value.message) < 1000
    assert not (tmp_path / "out").exists()


def test_errors_of_the_page_are_told_in_words_without_control_characters(scripted, stage, tmp_path):
    error = {"k": "error", "t": 0, "type": "MemoryError", "msg": "no\x1b[31m room\n" + "x" * 9999}
    with pytest.raises(OutOfMemory) as caught:
        bench(scripted(lambda plan: [error]), stage, tmp_path / "out")
    assert "no [31m room" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
    error = {"k": "error", "t": 0, "type": "NoWebAssembly", "msg": ""}
    with pytest.raises(EdgeSSLError, match="has no WebAssembly"):
        bench(scripted(lambda plan: [error]), stage, tmp_path / "out")


def test_a_page_that_is_closed_is_not_waited_for(scripted, stage, tmp_path):
    board = scripted(lambda plan: [*healthy(plan)[:3], {"k": "bye", "t": 0}])
    with pytest.raises(BoardUnreachable, match="was closed after 'golden'"):
        bench(board, stage, tmp_path / "out")


def test_a_page_that_vanishes_is_given_up(scripted, stage, tmp_path, monkeypatch):
    def vanishing(plan):
        yield from healthy(plan)[:5]
        raise OSError("the phone is out of reach")

    monkeypatch.setattr(line, "QUIET_S", 1.0)
    with pytest.raises(BoardUnreachable, match=r"nothing more was heard of .* after 'warmup'"):
        bench(scripted(vanishing), stage, tmp_path / "out")


def test_a_model_that_never_answers_is_given_up(scripted, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(listening, "SILENCE_S", 1.0)
    with pytest.raises(EdgeSSLError, match="the model said nothing for 1 s after 'tel'"):
        bench(scripted(lambda plan: [tel("before")]), stage, tmp_path / "out")


def test_another_browser_that_takes_over_is_noticed(scripted, stage, tmp_path):
    def taken(plan):
        return [tel("before"), FACTS | {"user_agent": "Mozilla/5.0 (iPhone) Version/19.0 Safari"}]

    with pytest.raises(EdgeSSLError, match="another browser opened the page"):
        bench(scripted(taken), stage, tmp_path / "out")


def test_nobody_opens_the_page(registry):
    packages.setup(lambda line: None)
    said = []
    board = device.BrowserDevice(Board("browser"), said.append, open_s=0.2)
    with pytest.raises(BoardUnreachable, match="no browser opened the page"):
        board.facts()
    where = urlsplit(said[-1].strip())
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((where.hostname, where.port), timeout=5)


def test_a_page_that_is_not_set_up_names_the_command(registry):
    with pytest.raises(MissingExtra) as caught:
        device.BrowserDevice(Board("browser"), print).facts()
    assert caught.value.hint == "edgessl devices setup browser"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"fps": 5.0}, "rate of images"),
        ({"profile": True}, "single layers"),
        ({"cores": (0, 1)}, "cannot choose the cores"),
        ({"fixed_performance": True}, "mode of Android phones.* kind 'browser'"),
        ({"runtime": "tensorrt"}, "does not run 'tensorrt'"),
    ],
)
def test_what_a_browser_cannot_do_is_refused(scripted, stage, tmp_path, choices, said):
    with pytest.raises(UsageProblem, match=said):
        bench(scripted(healthy), stage, tmp_path / "out", **choices)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("", ("here", "")),
        ("lan", ("lan", "")),
        ("lan:192.168.1.5", ("lan", "192.168.1.5")),
        ("adb", ("adb", "")),
        ("adb:R58M-12:5555", ("adb", "R58M-12:5555")),
    ],
)
def test_addresses(address, place):
    made = reach.place_of(address)
    assert (made.kind, made.detail) == place


@pytest.mark.parametrize(
    "address", ["lan:", "lan:host", "lan:300.1.1.1", "adb:", "adb:-x", "adb:a b", "ssh://x", "http"]
)
def test_addresses_without_a_meaning_name_those_with_one(address):
    with pytest.raises(UsageProblem) as caught:
        device.open_board(Board("browser", address))
    assert "lan:192.168.1.5" in caught.value.hint


def test_an_address_that_is_not_ours_cannot_be_served(registry):
    packages.setup(lambda line: None)
    board = device.BrowserDevice(Board("browser", "lan:192.0.2.1"), lambda line: None)
    with pytest.raises(BoardUnreachable, match=r"cannot serve a page at 192\.0\.2\.1"):
        board.facts()


def test_the_code_for_the_camera_holds_the_address():
    segno = pytest.importorskip("segno", reason="draws the code")
    url = "https://192.168.1.5:40123/" + "a" * 24 + "/"
    drawn = reach.qr_code(url)
    rows = drawn.splitlines()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) * 2 >= segno.make(url).symbol_size()[0]


def run_of(*more, threads=1, asked=1, **facts):
    told = facts_of(FACTS | facts)
    head = [{"k": "facts", "t": 0} | told, {"k": "plan", "t": 0, "threads": asked}]
    return [*head, *more, *healthy_run(N, CLASSES, threads=threads)]


def test_threads_that_were_not_had_are_another_backend():
    assert list(state.findings([run_of(threads=2, asked=2)])) == []
    for facts, why in (
        ({"secure": False, "isolated": False}, "not a secure one"),
        ({"isolated": False}, "not isolated"),
        ({}, "starts no more"),
    ):
        ((verdict, text),) = state.findings([run_of(asked=2, **facts)])
        assert verdict == "WRONG_BACKEND"
        assert why in text


def test_a_hidden_page_is_unstable_only_while_samples_are_taken():
    hidden, shown = ({"k": "tab", "t": 0, "hidden": h} for h in (True, False))
    assert list(state.findings([run_of(hidden, shown)])) == []
    ((verdict, _),) = state.findings([run_of(hidden)])
    assert verdict == "UNSTABLE"
    run = run_of()
    end = next(i for i, e in enumerate(run) if e.get("phase") == "end")
    ((verdict, _),) = state.findings([[*run[:end], hidden, shown, *run[end:]]])
    assert verdict == "UNSTABLE"
    assert list(state.findings([[*run[: end + 1], hidden, *run[end + 1 :]]])) == []


def test_a_clock_that_is_too_coarse_is_told_and_blocks_are_named():
    run = run_of()
    timed = next(i for i, e in enumerate(run) if e["k"] == "timed")
    loaded = next(i for i, e in enumerate(run) if e["k"] == "loaded")
    run[loaded] = run[loaded] | {"clock_step_us": 100.0}  # 4 ms are 40 steps
    ((verdict, text),) = state.findings([run])
    assert verdict == "TOO_SHORT"
    assert "40 steps" in text
    run[timed] = run[timed] | {"block": 20}
    assert list(state.findings([run])) == []
    assert any("mean of 20 inferences" in c and "40 blocks" in c for c in state.conditions([run]))


@pytest.mark.parametrize(
    ("agent", "brands", "name"),
    [
        ("x", [["Not;A Brand", "8"], ["Chromium", "156.1"], ["Google Chrome", "156.1.2"]],
         "Google Chrome 156"),
        ("x", [["Chromium", "156"], ["Not A(Brand", "24"]], "Chromium 156"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like"
         " Gecko) Version/19.1 Mobile/15E148 Safari/604.1", None, "Safari 19"),
        ("Mozilla/5.0 (Android 16; Mobile; rv:150.0) Gecko/150.0 Firefox/150.0", {}, "Firefox 150"),
        ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
         "SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36", [], "Samsung Internet 29"),
        ("nothing known", [1, ["a"], [{}, []]], "unknown browser"),
    ],
)  # fmt: skip
def test_browsers_are_called_what_people_call_them(agent, brands, name):
    assert browser_of(agent, brands) == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_agent": None}, {"user_agent": ["x"]}, {"cores": "many"}, {"cores": -1},
        {"cores": 10**9},
    ],
)  # fmt: skip
def test_facts_that_cannot_be_are_refused(wrong):
    with pytest.raises(EdgeSSLError, match="told no browser"):
        facts_of(FACTS | wrong)


def test_facts_of_any_shape_become_plain_ones():
    odd = {"model": {"x": 1}, "screen": [[], "x"], "memory_gb": "9", "battery": [1], "brands": "x",
           "platform": "\x1b]0;owned\x07Linux\u202e", "secure": "yes"}  # fmt: skip
    facts = facts_of(FACTS | odd)
    assert facts["board"] is None
    assert facts["cpu"].isprintable()
    assert facts["secure_context"] is False
    assert facts["power_supplies"] == {}
    charged = facts_of(FACTS | {"battery": {"level": 0.83, "charging": False}})
    assert charged["power_supplies"] == {"battery": "discharging, 83%"}
    assert json.dumps(facts)

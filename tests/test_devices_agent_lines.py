"""Lines of a broken or hostile board: each is taken as it should be, or refused in words."""

import copy
import itertools
import json
import random
import re
from contextlib import suppress

import pytest
from tiny_bench import CLASSES, MINI, N, bench, images_and_logits, write_stage

from edgessl.cli.devices import board_text
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.errors import EdgeSSLError
from edgessl.devices import DEVICES, agent_fields, agent_lines
from edgessl.devices.agent_lines import Listener, printable
from edgessl.devices.base import Board
from edgessl.devices.choice import Asked, runtime_for
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice, device_id
from edgessl.devices.protocol import judge
from edgessl.devices.wheel_target import Target
from edgessl.stages import board_check

ARTIFACT = Artifact(
    artifact_kind="export", format="onnx", files={"model": "0"}, seal="0",
    input=InputSpec.square(32), facts={},
)  # fmt: skip

FACTS = {
    "k": "facts", "t": 0.1, "board": "Pi", "cpu": "x", "machine": "aarch64", "cores": 4,
    "host_hash": "0a1b2c", "policies": {"policy0": {"governor": "ondemand", "max_mhz": 1800}},
    "temp_c": {"cpu": 40.5}, "emulated": False, "virtual_machine": None,
    "power_supplies": {}, "runtimes": {"onnxruntime": "1.31"}, "not_observable": ["power draw"],
}  # fmt: skip


def tel(phase, t):
    return {
        "k": "tel", "t": t, "phase": phase, "temp_c": {"cpu": 41.0}, "freq_mhz": {"policy0": 1800},
        "load1": 0.1, "busy_s": t, "own_s": t, "helpers_s": 0.0, "wait_s": 0.0, "swap_pages": 0,
        "slept_s": 0.0, "rss_mb": 50.0, "probes": {"throttled": "throttled=0x0"},
    }  # fmt: skip


def healthy(samples=40):
    """What an agent says of a healthy run, event by event."""
    figures = {"max_abs": 1e-6, "cosine": 1.0, "agreement": 1.0}
    half = samples // 2
    return [
        {"k": "hello", "t": 0, "proto": 2, "runtime": "onnxruntime 1", "python": "3", "numpy": "2"},
        FACTS,
        tel("before", 0.2),
        {"k": "idle", "t": 0.3, "which": "before", "begin_ns": 100, "end_ns": 200},
        {"k": "building", "t": 0.3, "runtime": "tensorrt"},
        {"k": "built", "t": 0.3, "path": "/e", "sha256": "0", "s": 1.5, "gpu": "o", "version": "8"},
        {"k": "loaded", "t": 0.4, "providers": ["CPUExecutionProvider"], "precision": None,
         "threads": 1, "load_ms": 5.0, "placement": None,
         "input": {"name": "input", "shape": [1, 3, 8, 8], "dtype": "float32"}},
        {"k": "golden", "t": 0.5, "n": 16, "tolerance": 1e-3, "ok": True,
         "expected": figures, "reference": figures},
        {"k": "first", "t": 0.6, "ms": 1.0, "model_mb": 2.0},
        {"k": "warmup", "t": 0.7, "runs": 5, "s": 0.1, "done": True, "settled": None},
        tel("start", 0.8),
        *(
            {"k": "lat", "t": 1.0 + part, "first": part * half,
             "at_us": [10_000 * (part * half + i) for i in range(half)],
             "ns": {"infer": [5_000_000] * half, "e2e_from_uint8": [6_000_000] * half}}
            for part in (0, 1)
        ),
        tel("end", 3.0),
        {"k": "timed", "t": 3.1, "n": samples, "s": 0.4, "inputs": 8, "begin_ns": 300,
         "end_ns": 900, "late": 0},
        {"k": "sensor", "t": 3.2, "at_ns": [110, 400], "values": {"power": ["1", None]}},
        {"k": "layers", "t": 3.3, "unit": "us", "runs": 5, "note": "",
         "rows": [{"name": "conv", "op": "Conv", "p50": 1.0, "share": 1.0}]},
        {"k": "acc", "t": 3.4, "first": 0, "rows": {
            "predicted": [0] * N, "top5": [[0, 1, 2, 3, 4]] * N, "score": [0.5] * N,
            "margin": [0.1] * N, "agrees": [True] * N, "gap": [1e-6] * N, "cosine": [1.0] * N}},
        tel("after", 3.5),
        {"k": "done", "t": 3.6, "max_rss_mb": 60.0},
    ]  # fmt: skip


def listen(said):
    listener = Listener("the board")
    for event in said:
        listener.take(event if isinstance(event, str) else json.dumps(event))
    return listener.seen


def with_change(kind, **changes):
    """The healthy run whose first event of a kind is changed; None removes a field."""
    said = copy.deepcopy(healthy())
    event = next(e for e in said if e["k"] == kind)
    for name, value in changes.items():
        if value is None:
            del event[name]
        else:
            event[name] = value
    return said


def test_a_healthy_run_passes_unchanged():
    assert listen(healthy()) == healthy()


def test_greetings_and_kinds_of_tomorrow_pass_or_are_passed_over():
    noise = ["Welcome to the board", "", "{", '{"no kind": 1}', "[1]", '"k"', '{"k": 5}']
    news = {"k": "news", "t": 1, "anything": [1, {"a": "b"}]}
    # heard, and not kept: no board fills the memory with what nobody reads
    assert Listener("the board").take(json.dumps(news)) == news
    assert listen([*noise, *healthy(), news]) == healthy()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (with_change("loaded", providers="CPU"), "'loaded' whose 'providers' is 'CPU'"),
        (with_change("loaded", load_ms=None), "'loaded' without 'load_ms'"),
        (with_change("loaded", threads=True), "'threads' is True"),
        (with_change("loaded", threads=10**30), "'threads'"),
        (with_change("golden", ok="yes"), "'ok' is 'yes'"),
        (with_change("golden", expected={"max_abs": 0.0}), "'expected'"),
        (with_change("tel", temp_c={"cpu": "hot"}), "'temp_c'"),
        (with_change("tel", busy_s=10**400), "'busy_s'"),
        (with_change("facts", host_hash="../../../tmp/x"), "'host_hash' is '../../../tmp/x'"),
        (with_change("facts", host_hash="0a1b2c\n"), "'host_hash'"),
        (with_change("facts", affinity=5), "'affinity' is 5"),
        (with_change("facts", memory_mb=[1]), "'memory_mb'"),
        (with_change("facts", policies={"policy0": {"governor": None}}), "'policies'"),
        (with_change("tel", probes={"a": 5}), "'probes'"),
        (with_change("hello", t="now"), "the moment 'now'"),
        (with_change("lat", first=7), "samples from 7 on, 0 were there"),
        (with_change("lat", at_us=[0, 1]), r"columns of \[2, 20\] rows"),
        (with_change("lat", ns={"infer": [1] * 20}), "'e2e_from_uint8' are needed"),
        (with_change("lat", at_us=list(range(20, 0, -1))), "clock cannot be trusted"),
        (with_change("lat", ns={"infer": [-5] * 20, "e2e_from_uint8": [5] * 20}), "clock"),
        (with_change("lat", ns={"infer": [9] * 20, "e2e_from_uint8": [5] * 20}), "clock"),
        (with_change("timed", n=41), "40 samples and then 'n': 41"),
        (with_change("timed", begin_ns=901), "out of order"),
        (with_change("sensor", at_ns=[400, 110]), "out of order"),
        (with_change("sensor", values={"power": ["1"]}), r"columns of \[1, 2\] rows"),
        (with_change("acc", first=1), "answers from 1 on, 0 were there"),
        (with_change("layers", rows=[{"name": "conv"}]), "'rows'"),
        ([*healthy(), tel("after", 9)], "'tel' after 'done'"),
        ([*healthy()[:8], *healthy()[7:]], "'golden' twice"),
        (healthy()[:1] + healthy()[6:], "'loaded' before 'facts'"),
        ([*healthy()[:8], healthy()[-3]], "'acc' before 'timed'"),
        (['{"k":"news","t":0,"x":NaN}'], "NaN"),
        (['{"k":"news","t":0,"x":1e999}'], "the number inf"),
        ([json.dumps({"k": "news", "x": [[[[[[[[[[1]]]]]]]]]]})], "nested deeper"),
        (['{"k":"news","x":"' + "y" * agent_lines.MAX_LINE + '"}'], "one of more than 8 MiB"),
    ],
)  # fmt: skip
def test_what_an_agent_cannot_have_said_is_refused_in_words(said, words):
    with pytest.raises(EdgeSSLError, match=words) as caught:
        listen(said)
    assert "the board" in caught.value.message
    assert caught.value.hint


def test_a_board_that_never_stops_talking_is_cut_off(monkeypatch):
    monkeypatch.setattr(agent_lines, "MAX_LINES", 100)
    with pytest.raises(EdgeSSLError, match="more than 100 lines"):
        listen(["chatter"] * 101)


def test_all_that_is_said_in_one_run_is_bounded_too(monkeypatch):
    monkeypatch.setattr(agent_lines, "MAX_TRANSCRIPT", 3 << 20)
    with pytest.raises(EdgeSSLError, match="more than 3 MiB in all"):
        listen([json.dumps({"k": "idle", "x": "y" * (1 << 20)})[:-1]] * 3)


def test_nothing_that_moves_a_terminal_or_ends_a_line_gets_through():
    hostile = "a\x1b[2Jb\u202ec\n\r\u2028edgessl: all is well\td\ud800"
    (event,) = listen([json.dumps({"k": "error", "t": 0, "type": hostile, "msg": hostile})])
    assert event["msg"] == event["type"] == "a[2Jbc   edgessl: all is well d"
    # what a program printed has lines, and is read by them
    (event,) = listen([json.dumps(tel("start", 1) | {"probes": {"a": "1\r\n2\t3\x1b"}})])
    assert event["probes"] == {"a": "1 \n2\t3"}
    assert printable("\x1b]0;title\x07gone\nagain" + "x" * 5000, limit=10) == "x" * 10
    assert printable("one\ntwo\x1b") == "one two"


STRANGE = [
    None, True, -1, 0, 5, 10**20, 10**400, 1.5, -1e300, "", "../../x", "\n\x1b[2J\ud800", [],
    [1], [{"a": []}], [None], ["x"], [[]], {}, {"a": 1}, {"a": None}, {"a": "x"},
    {"\nb": {"governor": 1}}, {"policy0": {"governor": None, "max_mhz": 10**99, "min_mhz": 10**99}},
    [{"cores": 1}],
]  # fmt: skip
READERS = ("local", "rpi", "jetson", "android")


def read_everywhere(facts):
    """Let everything that reads the facts of a board read them; return what was printed."""
    run = [facts if event["k"] == "facts" else event for event in listen(healthy())]
    shell = FakeShell(lambda argv: Answer(json.dumps(facts)))
    texts = [device_id(facts), board_check.summary(facts)]
    assert re.fullmatch(r"[a-z0-9-]+", texts[0])
    for kind in READERS:
        traits = DEVICES.load(kind)(Board(kind, "pi@board" if kind != "android" else "adb")).traits
        judgement = judge([run], MINI, provider="CPUExecutionProvider", traits=traits)
        texts += [*judgement.reasons, *judgement.conditions, traits.mismatch(facts)]
        traits.meter(facts)
        texts.append(traits.no_meter(facts))
        runtime_for(ARTIFACT, Asked(MINI), traits, facts)
    with suppress(EdgeSSLError):
        Target.of(facts)
    board = Board("local", python="python3")
    device = LinuxDevice(board, shell)
    shown = {
        "name": None, "kind": "local", "address": None, "id": device.id, "mismatch": None,
        "facts": board_check.printable(facts), "runtimes": [], "formats": {},
        "not_observable": board_check.printable(facts.get("not_observable", [])),
    }  # fmt: skip
    return texts + board_text(shown).splitlines()


def test_whatever_stands_in_the_facts_of_a_board_is_read_or_refused_in_words():
    fields = {name.removesuffix("?") for name in agent_fields.FIELDS["facts"]}
    refused = 0
    for name, value in itertools.product(sorted(fields), STRANGE):
        try:
            (facts,) = listen([FACTS | {name: value}])
        except EdgeSSLError:
            refused += 1
            continue
        assert all(text.isprintable() for text in read_everywhere(facts)), (name, value)
    assert 0.5 < refused / (len(fields) * len(STRANGE)) < 0.95


def test_the_id_of_a_board_names_no_folder_above_even_where_nothing_was_checked():
    facts = {"board": "../..", "cpu": "x", "cores": "../9", "host_hash": "/../../etc"}
    assert device_id(facts) == "machine-9c-etc"


def scripted(lines):
    def script(argv):
        return Answer(json.dumps(FACTS) if argv[-1] == "facts" else "\n".join(lines))

    return LinuxDevice(Board("local", python="python3"), FakeShell(script))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A stage that only pretends to hold a model: the board that opens it is a script."""
    import numpy as np

    folder = tmp_path_factory.mktemp("pretended")
    (folder / "model.onnx").write_bytes(b"")
    weights = {"w": np.zeros((6, 3, 3, 3), np.float32), "fc": np.zeros((6, CLASSES), np.float32)}
    return write_stage(
        folder / "stage", [folder / "model.onnx"], "onnx", *images_and_logits(weights)
    )


def test_a_bench_of_the_healthy_script_gives_its_figures(stage, tmp_path):
    result = bench(scripted([json.dumps(e) for e in healthy()]), stage, tmp_path / "out")
    assert result.latency_ms["infer"].p50 == 5.0
    assert result.latency_ms["infer"].n == MINI.timed_runs


def damaged(rng, said):
    """One to three small damages anywhere in what was said."""
    said = copy.deepcopy(said)
    strange = [None, -1, 0, 1.5, "", "x", [], {}, [[]], True, 10**20, -(10**20), {"a": [None]}]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(said))
        what = rng.randrange(4)
        if what == 0 and len(said) > 1:
            del said[at]
        elif what == 1:
            said.insert(rng.randrange(len(said)), copy.deepcopy(said[at]))
        else:
            spot = said[at]
            key = rng.choice(list(spot))
            while isinstance(spot[key], dict | list) and spot[key] and rng.random() < 0.6:
                spot = spot[key]
                key = rng.choice(list(spot) if isinstance(spot, dict) else range(len(spot)))
            if what == 2:
                spot[key] = rng.choice(strange)
            else:
                del spot[key]
    return said


@pytest.mark.slow
def test_no_damage_to_what_a_board_says_ends_in_anything_but_a_figure_or_words(stage, tmp_path):
    rng, outcomes = random.Random(0), {"figure": 0, "words": 0}
    for attempt in range(1000):
        lines = [json.dumps(event) for event in damaged(rng, healthy())]
        try:
            bench(scripted(lines), stage, tmp_path / str(attempt % 7))
            outcomes["figure"] += 1
        except EdgeSSLError:
            outcomes["words"] += 1
    assert min(outcomes.values()) > 50  # both kinds were seen: nothing is refused wholesale

"""``edgessl devices``: what is written, told and refused, and the exit codes."""

import json
import shutil
import tomllib

import command_line
import pytest

from edgessl import api
from edgessl.cli.devices import board_text, setup_text
from edgessl.core.console import Reporter
from edgessl.core.errors import UsageProblem
from edgessl.devices import DEVICES, boards, setup
from edgessl.devices.base import Board, Traits
from edgessl.devices.fake import Answer, FakeShell
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.wheels import NoWheel
from edgessl.stages import board_check
from edgessl.stages import boards as stage

FACTS = {
    "k": "facts", "t": 0.1, "board": "Raspberry Pi 5\x1b[2J Model B", "cpu": "Cortex-A76",
    "machine": "aarch64", "cores": 4, "policies": {}, "temp_c": {"cpu-thermal0": 48.2},
    "memory_mb": {"MemTotal": 8062.0, "MemAvailable": 7000.0}, "disk_free_mb": 9000.0,
    "os": "Debian GNU/Linux 13 (trixie)", "kernel": "6.12", "libc": "glibc 2.41",
    "python": "3.13.5", "runtimes": {"numpy": "2.2.4", "ai-edge-litert": "2.3.0"},
    "wheels": {"python": "3.13", "machine": "aarch64", "bits": 64, "libc": "glibc",
               "libc_version": "2.41", "implementation": "cpython"},
    "host_hash": "0a1b2c", "not_observable": ["power draw"], "emulated": False, "l4t": None,
}  # fmt: skip
OPENED = {"litert": {"version": "ai-edge-litert 2.3.0", "providers": ["XNNPACK", "builtin"]},
          "onnxruntime": {"error": "ImportError: libx\x1b]0;pwned\x07.so"}}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    path = tmp_path / "boards.toml"
    monkeypatch.setenv("EDGESSL_BOARDS", str(path))
    monkeypatch.setitem(command_line.ENVIRONMENT, "EDGESSL_BOARDS", str(path))
    return path


@pytest.fixture
def pi(monkeypatch):
    """Let boards of the kind rpi be a scripted one; return it."""

    def script(argv):
        if "--runtimes" in argv:
            return Answer("Welcome!\n" + json.dumps(FACTS | {"opened": OPENED}))
        if "facts" in argv:
            return Answer("Welcome!\n" + json.dumps(FACTS))
        return Answer("edgessl-python 3 13 /usr/bin/python3")

    shell = FakeShell(script)
    traits = Traits(mismatch=lambda facts: "" if "Pi" in facts["board"] else "no Pi")
    monkeypatch.setattr(
        type(DEVICES), "load", lambda _table, _name: lambda board: LinuxDevice(board, shell, traits)
    )
    return shell


def run(*arguments, cwd, expect=0):
    return command_line.edgessl("devices", *arguments, cwd=cwd, expect=expect)


def test_a_board_is_added_listed_and_forgotten(place, tmp_path):
    assert "no boards added" in run("list", cwd=tmp_path)[0]
    words = ["kitchen", "--kind", "rpi", "--address", "ssh://pi@kitchen", "--no-check"]
    out, err = run("add", *words, cwd=tmp_path)
    assert "not reached" in out
    assert "next: edgessl devices check kitchen" in err
    assert tomllib.loads(place.read_text())["boards"] == {
        "kitchen": {"kind": "rpi", "address": "ssh://pi@kitchen"}
    }
    listed = json.loads(run("list", "--json", cwd=tmp_path)[0])
    assert listed["command"] == "devices list"
    assert [b["name"] for b in listed["result"]["boards"]] == ["kitchen"]
    assert {k["kind"] for k in listed["result"]["kinds"]} == set(DEVICES)
    assert "ssh://pi@kitchen" in run("list", cwd=tmp_path)[0]
    run("remove", "kitchen", cwd=tmp_path)
    assert "no boards added" in run("list", cwd=tmp_path)[0]


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs an SSH client")
def test_a_board_that_does_not_answer_is_not_written(place, tmp_path):
    words = ["attic", "--kind", "ssh", "--address", "ssh://nobody@127.0.0.1:9", "--json"]
    error = json.loads(run("add", *words, cwd=tmp_path, expect=4)[0])["error"]
    assert error["type"] == "BoardUnreachable"
    assert error["hint"]
    assert not place.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "x", "--kind", "raspberry"], "unknown device 'raspberry'"),
        (["add", "X", "--kind", "ssh", "--address", "a@b"], "cannot name a board"),
        (["add", "rpi", "--kind", "rpi", "--address", "a@b"], "is a kind of board"),
        (["add", "x", "--kind", "ssh"], "where is the board"),
        (["add", "x", "--kind", "ssh", "--address", "ssh://a@b;reboot"], "not the address"),
        (["add", "x", "--kind", "ssh", "--address", "-oProxyCommand=reboot"], "not the address"),
        (["check", "kitchn"], "no kind of board and no added board"),
        (["remove", "kitchen"], "no board called"),
        (["setup", "local", "--runtime", "litert"], "needs no setup"),
        (["setup", "local", "--runtime", "caffe"], "unknown runtime 'caffe'"),
        (["setup", "local", "--remove", "--upgrade"], "--remove goes with neither"),
        (["check", "jetson"], "edgessl devices add NAME --kind jetson --address ssh://user@board"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(place, tmp_path, words, told):
    err = run(*words, cwd=tmp_path, expect=2)[1]
    assert told in err
    assert "hint: " in err
    assert not place.exists()


def test_a_broken_file_of_boards_is_an_invalid_file(place, tmp_path):
    place.write_text("[boards.x]\nkind = 'rpi'\nadress = 'a@b'\n")
    err = run("list", cwd=tmp_path, expect=3)[1]
    assert "unknown key 'adress'" in err
    assert "'address'" in err


def test_adding_says_what_the_board_is_and_refuses_another_kind(place, pi, monkeypatch):
    finding = api.devices_add("kitchen", kind="rpi", address="pi@x", reporter=Reporter(quiet=True))
    assert finding.result["is"].startswith("Raspberry Pi 5[2J Model B, Debian")
    assert finding.result["is"].isprintable()
    monkeypatch.setitem(FACTS, "board", "ROCK 5B")
    with pytest.raises(UsageProblem, match="not a board of the kind 'rpi'") as caught:
        api.devices_add("other", kind="rpi", address="pi@x", reporter=Reporter(quiet=True))
    assert "--kind ssh" in caught.value.hint
    assert list(boards.added_boards()) == ["kitchen"]


def test_check_is_one_screen_whatever_the_board_sends(pi):
    result = board_check.check(Board("rpi", "pi@x", "kitchen"), Reporter(quiet=True))
    text = board_text(result)
    assert all(line.isprintable() for line in text.splitlines())
    assert len(text.splitlines()) < 24
    for part in ("6.8 GiB free of 7.9 GiB", "cpu-thermal0 48.2 C", "ai-edge-litert 2.3.0",
                 "XNNPACK, builtin", "tflite files: litert", "onnx files: nothing there",
                 "edgessl devices setup kitchen --runtime openvino", "power draw"):  # fmt: skip
        assert part in text, part
    by_name = {row["runtime"]: row for row in result["runtimes"]}
    assert by_name["litert"]["where"] == "system"
    assert by_name["onnxruntime"]["problem"].startswith("ImportError: libx")
    assert "tensorrt" not in by_name  # comes with JetPack, and this is none
    json.dumps(result)


def test_setup_brings_what_is_usual_and_not_there(place, pi, monkeypatch):
    boards.add_board(Board("rpi", "pi@x", "kitchen"))
    asked = []

    def set_up(device, runtime, **_choices):
        asked.append(runtime)
        raise NoWheel(f"no wheel of {runtime}", hint="do this")

    monkeypatch.setattr(setup, "set_up", set_up)
    finding = api.devices_setup("kitchen", reporter=Reporter(quiet=True))
    assert asked == ["onnxruntime"]  # LiteRT is on the system already
    assert finding.errors[0].hint == "do this"
    assert "no wheel of onnxruntime\n  do this" in setup_text(finding.result)
    packages = FACTS["runtimes"] | {"onnxruntime": "1.32.0"}
    monkeypatch.setitem(FACTS, "runtimes", packages)
    finding = api.devices_setup("kitchen", reporter=Reporter(quiet=True))
    assert finding.errors == ()
    assert "nothing to do" in setup_text(finding.result)


def test_the_only_board_needs_no_name(place):
    assert stage.chosen(None) == Board("local")
    boards.add_board(Board("rpi", "pi@x", "kitchen"))
    assert stage.chosen(None).name == "kitchen"
    boards.add_board(Board("rpi", "pi@y", "attic"))
    with pytest.raises(UsageProblem, match="2 boards were added: kitchen, attic"):
        stage.chosen(None)


def test_setup_of_a_browser_fetches_the_packages_of_the_page(monkeypatch, tmp_path):
    from edgessl.devices.browser import packages

    said = []
    monkeypatch.setattr(packages, "setup", lambda say: said.append("fetched") or tmp_path)
    monkeypatch.setattr(packages, "missing", lambda _runtime: [])
    finding = api.devices_setup("browser", reporter=Reporter(quiet=True))
    assert said == ["fetched"]
    assert f"kept in {tmp_path}" in setup_text(finding.result)
    monkeypatch.setattr(packages, "missing", lambda _runtime: ["onnxruntime-web"])
    finding = api.devices_check("browser")
    assert finding.next == "edgessl devices setup browser"
    assert "edgessl devices setup browser" in board_text(finding.result)

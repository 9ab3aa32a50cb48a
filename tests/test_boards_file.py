"""The file of boards, and what ``--device`` means."""

import re
import stat
import subprocess
import sys
import tomllib

import pytest

from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.devices import boards
from edgessl.devices.base import Board

PI = Board("rpi", "ssh://pi@raspberrypi.local", "kitchen")
ORIN = Board("jetson", "nvidia@10.0.0.7", "lab.orin-1", "/opt/py 3/bin/python3")
FILE = """\
# the one by the window
[boards.kitchen]
kind = "rpi"  # bought in 2024
address = "ssh://pi@raspberrypi.local"

[boards."lab.orin-1"]
kind = "jetson"
address = "nvidia@10.0.0.7"
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "config/edgessl/boards.toml"
    monkeypatch.setenv("EDGESSL_BOARDS", str(path))
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_boards_come_back_as_they_were_written(path):
    assert boards.added_boards() == {}
    boards.add_board(PI)
    boards.add_board(ORIN)
    assert boards.added_boards() == {"kitchen": PI, "lab.orin-1": ORIN}
    assert list(tomllib.loads(path.read_text())) == ["boards"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(UsageProblem, match="there already"):
        boards.add_board(PI)


def test_what_a_person_wrote_beside_a_board_stays(path):
    write(path, FILE)
    boards.add_board(Board("rpi", "x@y", "third"))
    assert path.read_text().startswith(FILE)
    assert boards.remove_board("third").address == "x@y"
    assert boards.remove_board("lab.orin-1").kind == "jetson"
    assert path.read_text().rstrip() == FILE.partition("\n\n[")[0]
    with pytest.raises(UsageProblem, match="no board called 'kitchn'") as caught:
        boards.remove_board("kitchn")
    assert "kitchen" in caught.value.hint


def test_a_layout_that_cannot_be_edited_is_left_to_its_author(path):
    text = '[boards]\nkitchen = {kind = "rpi", address = "pi@x"}\n'
    write(path, text)
    with pytest.raises(FileInvalid, match="not where expected"):
        boards.remove_board("kitchen")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[boards.x]\nkind = 'rpi'\nadress = 'a@b'\n", "unknown key 'adress'.*'address'"),
        ("[board.x]\nkind = 'rpi'\n", "unknown key 'board'.*'boards'"),
        ("[boards.x]\nkind = 'rpy'\n", "kind is 'rpy'.*'rpi'"),
        ("[boards.x]\naddress = 'a@b'\n", "kind is None"),
        ("[boards.x]\nkind = 3\n", "kind = 3 is not a text"),
        ("[boards.x]\nkind = 'rpi'\naddress = \"a\\u001b[2J\"\n", "is not a text"),
        ("[boards.Kitchen]\nkind = 'rpi'\n", "'Kitchen' cannot name a board"),
        ("[boards.rpi]\nkind = 'rpi'\n", "'rpi' is a kind"),
        ("boards = 3\n", "not a table"),
        ("[boards]\nx = 3\n", "not a table"),
        ("[boards.x\n", "not TOML"),
        ("x = " + "[" * 100_000, "not TOML"),
    ],
)
def test_every_mistake_in_the_file_is_named(path, text, told):
    write(path, text)
    with pytest.raises(FileInvalid) as caught:
        boards.added_boards()
    assert re.search(told, f"{caught.value.message} {caught.value.hint}", re.DOTALL)
    assert str(path) in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("name", ["", "-x", ".", "a b", "Ä", "x\n", "rpi", "local", "a/b"])
def test_names_that_cannot_be_typed_are_refused(path, name):
    with pytest.raises(UsageProblem):
        boards.add_board(Board("rpi", "a@b", name))
    assert not path.exists()


def test_a_device_is_a_name_a_kind_or_the_only_board_of_that_kind(path, monkeypatch):
    monkeypatch.setattr(boards, "is_this_machine", lambda kind: False)
    assert boards.resolve("local") == Board("local")
    assert boards.resolve("rpi", "pi@here") == Board("rpi", "pi@here")
    with pytest.raises(UsageProblem) as caught:
        boards.resolve("rpi")
    line = "edgessl devices add NAME --kind rpi --address ssh://user@board"
    assert line in caught.value.hint
    boards.add_board(PI)
    assert boards.resolve("rpi") == boards.resolve("kitchen") == PI
    assert boards.resolve("kitchen", "pi@else", "/py").address == "pi@else"
    assert boards.resolve("rpi", python="/py").python == "/py"
    boards.add_board(Board("rpi", "pi@attic", "attic"))
    with pytest.raises(UsageProblem, match="kitchen, attic"):
        boards.resolve("rpi")
    with pytest.raises(UsageProblem, match="'kitchem'") as caught:
        boards.resolve("kitchem")
    assert "kitchen" in caught.value.hint
    monkeypatch.setattr(boards, "is_this_machine", lambda kind: kind == "rpi")
    assert boards.resolve("rpi") == Board("rpi")


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (b"Raspberry Pi 5 Model B Rev 1.0\0", ["rpi"]),
        (b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0", ["jetson"]),
        (b"Radxa ROCK 5B\0", []),
    ],
)
def test_this_machine_is_known_by_what_its_kernel_calls_it(tmp_path, monkeypatch, model, kinds):
    (tmp_path / "model").write_bytes(model)
    monkeypatch.setattr(boards, "MODEL_FILES", ("/nonexistent", str(tmp_path / "model")))
    assert [kind for kind in ("rpi", "jetson", "ssh") if boards.is_this_machine(kind)] == kinds


def test_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGESSL_BOARDS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert boards.boards_file() == tmp_path / "edgessl/boards.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert boards.boards_file() == tmp_path / ".config/edgessl/boards.toml"


def test_the_file_is_read_without_heavy_imports():
    code = (
        "import sys, edgessl.devices.boards; "
        "print(sorted({'torch', 'numpy', 'pydantic', 'asyncssh'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""``devices setup``: pip chooses for the board, and on the board it is all or nothing."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from stub_wheels import RECORDED, only_these, write_wheel

from edgessl.core.errors import (
    BoardUnreachable,
    DiskFull,
    EdgeSSLError,
    FileInvalid,
    NativeCrash,
    UsageProblem,
)
from edgessl.devices import setup, wheels
from edgessl.devices.base import Board
from edgessl.devices.linux import LinuxDevice
from edgessl.devices.shell import LocalShell
from edgessl.devices.wheel_target import Target
from edgessl.devices.wheels import NoWheel

HERE = f"cp3{sys.version_info[1]}"
PI = Target((3, 11), "aarch64", "glibc", (2, 36))
JETPACK5 = Target((3, 8), "aarch64", "glibc", (2, 31), jetpack=5)
JETPACK6 = Target((3, 10), "aarch64", "glibc", (2, 35), jetpack=6)
JETPACK7 = Target((3, 12), "aarch64", "glibc", (2, 39), jetpack=7)
BULLSEYE = Target((3, 9), "aarch64", "glibc", (2, 31))
PI_32 = Target((3, 11), "armv7l", "glibc", (2, 36), numpy="1.24.2")
ALPINE = Target((3, 12), "aarch64", "musl", (1, 2))
NEW = Target((3, 14), "aarch64", "glibc", (2, 42))
NEWER = Target((3, 15), "aarch64", "glibc", (2, 42))


def asks(target, runtime, *versions):
    return pytest.param(target, runtime, versions, id=f"{target.words}: {runtime}")


def facts_of(**wheels_):
    told = {"implementation": "cpython", "python": "3.11", "machine": "aarch64", "bits": 64,
            "libc": "glibc", "libc_version": "2.36"}  # fmt: skip
    return {"wheels": told | wheels_, "runtimes": {"numpy": "1.24.2"}, "l4t": None}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    for name in RECORDED:
        write_wheel(folder, name)
    only_these(monkeypatch, folder)
    return folder


def test_a_32_bit_python_on_a_64_bit_kernel_is_what_counts():
    assert Target.of(facts_of()) == Target((3, 11), "aarch64", "glibc", (2, 36), numpy="1.24.2")
    assert Target.of(facts_of(bits=32)).machine == "armv7l"
    assert Target.of(facts_of(machine="x86_64", bits=32)).machine == "i686"
    l4t = "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64"
    assert Target.of(facts_of() | {"l4t": l4t}).jetpack == 6


@pytest.mark.parametrize("told", [None, [], {"wheels": 3}, facts_of(machine="../x"), {}])
def test_a_board_that_tells_nonsense_is_refused(told):
    with pytest.raises(EdgeSSLError, match="does not tell"):
        Target.of(told or {})


def test_platform_tags_are_those_of_the_standards_and_newest_first():
    assert BULLSEYE.tags()[:2] == ["manylinux_2_31_aarch64", "manylinux_2_30_aarch64"]
    # PEP 600: the names from before it mean glibc 2.17, 2.12 and 2.5
    assert BULLSEYE.tags()[-3:] == [
        "manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64",
    ]  # fmt: skip
    x86 = Target((3, 11), "x86_64", "glibc", (2, 17)).tags()
    assert {"manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"} <= set(x86)
    assert ALPINE.tags() == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64", "linux_aarch64"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "runtime", "versions"),
    [
        asks(PI, "onnxruntime", "numpy-2.4.6", "onnxruntime-1.32.0"),
        asks(PI, "openvino", "numpy-2.4.6", "openvino-2026.4.1"),
        asks(JETPACK5, "litert", "numpy-1.24.4", "tflite_runtime-2.13.0"),
        asks(JETPACK5, "openvino", "numpy-1.24.4", "openvino-2024.4.0"),
        asks(JETPACK6, "litert", "ai_edge_litert-2.3.0", "numpy-2.2.6"),
        asks(JETPACK7, "onnxruntime", "numpy-2.5.5", "onnxruntime_gpu-1.31.1"),
        asks(BULLSEYE, "litert", "ai_edge_litert-2.1.0", "numpy-2.0.2"),
        asks(BULLSEYE, "onnxruntime", "numpy-2.0.2", "onnxruntime-1.19.2"),
        asks(BULLSEYE, "openvino", "numpy-2.0.2", "openvino-2025.2.0"),
        asks(PI_32, "litert", "tflite_runtime-2.14.0"),  # with the numpy of its system
        asks(NEW, "litert", "ai_edge_litert-2.3.0", "numpy-2.5.5"),
    ],
)
def test_pip_chooses_what_runs_on_the_board(recorded, tmp_path, target, runtime, versions):
    found = wheels.fetch(runtime, target, tmp_path)
    assert tuple("-".join(path.name.split("-")[:2]) for path in found) == versions
    assert all(target.machine in path.name for path in found)


def test_numpy_is_bound_where_the_metadata_forgot_to(tmp_path):
    old = write_wheel(tmp_path, "tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_aarch64.whl")
    assert wheels.numpy_requirement(old) == "numpy<2,>=1.23.2"
    new = write_wheel(tmp_path, "openvino-2026.4.1-22982-cp311-cp311-manylinux_2_35_aarch64.whl")
    assert wheels.numpy_requirement(new) == "numpy<2.6.0,>=1.16.6"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "runtime", "step"),
    [
        (PI_32, "onnxruntime", "a 64-bit system"),
        (Target((3, 13), "armv7l", "glibc", (2, 41)), "litert", "Raspberry Pi OS 12"),
        (Target((3, 11), "armv7l", "glibc", (2, 36)), "litert", "apt-get install python3-numpy"),
        (ALPINE, "onnxruntime", "a system with glibc"),
        (NEWER, "onnxruntime", "wheels for Python 3.14, 3.13"),
        (Target((3, 11), "aarch64", "glibc", (2, 19)), "onnxruntime", "a newer release"),
        (Target((3, 11), "aarch64", "glibc", (2, 36), implementation="pypy"), "litert", "CPython"),
    ],
)
def test_where_no_wheel_exists_the_next_step_is_told(recorded, tmp_path, target, runtime, step):
    with pytest.raises(NoWheel) as caught:
        wheels.fetch(runtime, target, tmp_path, board="attic")
    assert step in caught.value.hint
    assert caught.value.exit_code == 1


def test_packages_for_the_gpu_are_never_fetched_from_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(wheels, "pip", lambda *_: pytest.fail("nobody was to be asked"))
    for target, place in ((JETPACK5, "elinux.org/Jetson_Zoo"), (JETPACK6, "jp6/cu126")):
        with pytest.raises(NoWheel) as caught:
            wheels.fetch("onnxruntime", target, tmp_path, board="orin")
        assert place in caught.value.hint
        assert "edgessl devices setup orin --wheel" in caught.value.hint
    with pytest.raises(NoWheel, match="comes with JetPack"):
        wheels.fetch("tensorrt", JETPACK6, tmp_path)
    with pytest.raises(UsageProblem):
        wheels.fetch("caffe", PI, tmp_path)


@pytest.mark.slow
def test_a_wheel_of_the_user_is_taken_first_and_checked(recorded, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    name = "onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl"
    wheel = write_wheel(own, name)
    found = wheels.fetch("onnxruntime", JETPACK6, tmp_path, [wheel])
    assert [path.name.split("-")[1] for path in found] == ["2.2.6", "1.23.0"]
    with pytest.raises(FileInvalid, match="not made for this board") as caught:
        wheels.fetch("onnxruntime", JETPACK7, tmp_path, [wheel])
    assert "cp312" in caught.value.hint
    with pytest.raises(FileInvalid, match="is not a wheel"):
        wheels.fetch("onnxruntime", JETPACK6, tmp_path, [tmp_path / "absent.whl"])


@pytest.mark.slow
def test_an_index_that_is_not_reached_is_not_a_missing_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EdgeSSLError, match="cannot be reached") as caught:
        wheels.fetch("onnxruntime", PI, tmp_path)
    assert not isinstance(caught.value, NoWheel)


# --- on the board, which is a folder of this machine here ----------------------------------------

WORKS = "def get_available_providers():\n    return ['CPUExecutionProvider']\n"


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "index").mkdir()
    only_these(monkeypatch, tmp_path / "index")
    device = LinuxDevice(Board("ssh", "pi@attic", "attic", sys.executable), LocalShell())
    yield device
    device.close()


def offer(tmp_path, version, code):
    machine = os.uname().machine
    tags = f"{HERE}-{HERE}-manylinux_2_17_{machine}"
    files = {"onnxruntime/__init__.py": code}
    write_wheel(tmp_path / "index", f"onnxruntime-{version}-{tags}.whl", files)
    write_wheel(tmp_path / "index", f"numpy-2.9-{tags}.whl", {"numpy/__init__.py": ""})


def runtimes_in(device):
    folder = Path(device.shell.home) / "runtimes"
    return sorted(p.relative_to(folder).as_posix() for p in folder.glob("*"))


@pytest.mark.slow
def test_a_runtime_is_brought_tried_replaced_and_removed(board, tmp_path, monkeypatch):
    offer(tmp_path, "1.98", WORKS)
    made, new = setup.set_up(board, "onnxruntime")
    assert new
    assert made.packages == {"onnxruntime": "1.98", "numpy": "2.9"}
    assert made.providers == ("CPUExecutionProvider",)
    assert {len(digest) for digest in made.sha256.values()} == {64}
    folder = Path(made.folder)
    assert folder.stat().st_mode & 0o077 == 0 or folder.parent.stat().st_mode & 0o077 == 0
    assert not (folder / "bin").exists()  # start scripts would name this machine's Python
    assert board.facts()["runtimes"]["onnxruntime"] == "1.98"
    assert board.command("onnxruntime")[:2] == ["env", f"PYTHONPATH={folder}"]

    monkeypatch.setattr(wheels, "pip", lambda *_: pytest.fail("nothing was to be fetched"))
    assert setup.set_up(board, "onnxruntime") == (made, False)
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    only_these(monkeypatch, tmp_path / "index")

    offer(tmp_path, "1.99", WORKS)
    assert setup.set_up(board, "onnxruntime", upgrade=True)[0].packages["onnxruntime"] == "1.99"
    offer(tmp_path, "2.0", "raise ImportError('libcudart.so.12: cannot open shared object')")
    with pytest.raises(EdgeSSLError, match=r"does not run on the board.*libcudart"):
        setup.set_up(board, "onnxruntime", upgrade=True)
    offer(tmp_path, "2.1", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(NativeCrash, match="SIGILL") as caught:
        setup.set_up(board, "onnxruntime", upgrade=True)
    assert "instructions" in caught.value.hint
    assert setup.installed(board)["onnxruntime"].packages["onnxruntime"] == "1.99"
    assert runtimes_in(board) == ["onnxruntime"]
    work = {path.name.split("-")[0] for path in Path(board.shell.workdir).iterdir()}
    assert work <= {"agent", "unpack"}

    assert setup.remove(board, "onnxruntime")
    assert not setup.remove(board, "onnxruntime")
    assert setup.installed(board) == {}
    assert runtimes_in(board) == []


@pytest.mark.slow
def test_a_board_that_is_lost_in_mid_setup_is_what_is_told(board, tmp_path, monkeypatch):
    offer(tmp_path, "1.98", WORKS)
    run, gone = board.shell.run, []

    def lost(argv, **options):
        if gone or "unpack" in argv:
            gone.append(argv)
            raise BoardUnreachable("lost while it unpacked" if len(gone) == 1 else "refused")
        return run(argv, **options)

    monkeypatch.setattr(board.shell, "run", lost)
    monkeypatch.setattr(board.shell, "remove", lambda remote: lost([remote]))
    with pytest.raises(BoardUnreachable, match="lost while it unpacked"):
        setup.set_up(board, "onnxruntime")
    assert len(gone) == 2  # it was tried to clean up
    assert runtimes_in(board) == []


@pytest.mark.slow
def test_a_full_disk_is_noticed_before_anything_is_pushed(board, tmp_path):
    offer(tmp_path, "1.98", WORKS)
    board.facts()["disk_free_mb"] = 3.0
    with pytest.raises(DiskFull, match=r"3 MB are free on .*, 64 MB are needed"):
        setup.set_up(board, "onnxruntime")
    assert runtimes_in(board) == []


def test_this_machine_is_not_set_up_but_installed(tmp_path):
    here = LinuxDevice(Board("local"), LocalShell())
    with pytest.raises(UsageProblem) as caught:
        setup.set_up(here, "litert")
    assert caught.value.hint == "pip install 'edgessl[tflite]'"
    here.close()


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '{"packages": [1], "sha256": 3, "bytes": "x", "python": {}}',
     '{"packages": {"\\u001b[2J": "\\u0007"}}', "[" * 100_000],
)  # fmt: skip
def test_records_from_a_board_are_read_with_care(board, record):
    folder = Path(board.shell.home) / "runtimes/litert"
    folder.mkdir(parents=True)
    (folder / "edgessl.json").write_text(record)
    for found in setup.installed(board).values():
        texts = [*found.packages, *found.packages.values(), found.python, *found.sha256]
        assert all(text.isprintable() for text in texts)
        assert isinstance(found.bytes, int)
    stray = folder.parent / "a;b"  # not a runtime of ours
    stray.mkdir()
    (stray / "edgessl.json").write_text("{}")
    assert "a;b" not in setup.installed(board)


# --- the program that unpacks on the board --------------------------------------------------------


def unpack(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, str(setup.UNPACK), *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line.removeprefix(setup.MARK)) for line in done.stdout.splitlines()]


def archive_of(path, **members):
    with tarfile.open(path, "w:gz") as archive:
        for name, kind in members.items():
            entry = tarfile.TarInfo(kind.get("name", name))
            entry.type, entry.linkname = kind.get("type", tarfile.REGTYPE), kind.get("to", "")
            data = kind.get("data", b"")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "member",
    [{"name": "../out"}, {"name": "/tmp/edgessl-out"}, {"type": tarfile.SYMTYPE, "to": "/etc"},
     {"type": tarfile.LNKTYPE, "to": "x"}, {"type": tarfile.CHRTYPE}, {"type": tarfile.FIFOTYPE}],
)  # fmt: skip
def test_an_archive_writes_nothing_but_files_in_its_folder(tmp_path, member):
    work = tmp_path / "work"
    work.mkdir()
    path = archive_of(work / "a.tar.gz", good={"data": b"1"}, bad={"data": b"", **member})
    told = unpack("unpack", path, "new", cwd=work)
    assert told[0]["error"] == "ValueError"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["work"]
    assert not Path("/tmp/edgessl-out").exists()
    assert [p.name for p in (work / "new").iterdir()] in ([], ["good"])


def test_a_cut_archive_is_an_error_and_a_swap_replaces_the_whole_folder(tmp_path):
    path = archive_of(tmp_path / "a.tar.gz", x={"data": os.urandom(100_000)})
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(path.read_bytes()[:50_000])
    assert "error" in unpack("unpack", cut, "broken", cwd=tmp_path)[0]
    assert unpack("unpack", path, "new", cwd=tmp_path) == [{"files": 1, "bytes": 100_000}]
    old = tmp_path / "home/runtimes/litert"
    old.mkdir(parents=True)
    (old / "old").touch()
    unpack("swap", "new", old, cwd=tmp_path)
    assert [p.name for p in old.iterdir()] == ["x"]
    assert {p.name for p in tmp_path.iterdir()} == {"broken", "cut.tar.gz", "home"}


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root")
def test_a_disk_that_fills_while_unpacking_is_named(tmp_path):
    path = archive_of(tmp_path / "a.tar.gz", x={"data": bytes(3 << 20)})
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        assert unpack("unpack", path, small / "new", cwd=tmp_path)[0]["error"] == "DiskFull"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_program_keeps_to_the_oldest_python_of_a_board():
    import ast

    ast.parse(setup.UNPACK.read_text(), feature_version=(3, 8))

"""Faults that real machines have: kills, full and read-only disks, no memory, torn files."""

import contextlib
import os
import random
import struct
import subprocess
import time
from pathlib import Path

import forked
import numpy as np
import pytest

from edgessl import api
from edgessl.core.console import Reporter
from edgessl.core.errors import DiskFull, EdgeSSLError, FileInvalid, UsageProblem
from edgessl.core.files import PARTIAL, read_jsonl
from edgessl.core.runs import RunFolder
from edgessl.training.record import Record

QUIET = Reporter(quiet=True)
KILLS = 10


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A pretraining of seconds on images without labels."""
    images = tmp_path_factory.mktemp("images") / "images-idx3-ubyte"
    pixels = np.random.default_rng(0).integers(0, 256, (256, 16, 16), np.uint8)
    pixels[:, 4:12, 4:12] //= 4
    images.write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes())
    return {
        "data.unlabeled": str(images), "data.imgsz": 16, "encoder.width": "0.5x-0.25x",
        "pretrain.epochs": 12, "pretrain.batch": 64, "pretrain.monitor.every_epochs": 4,
        "pretrain.options": {"projector": [32, 32], "lam": 0.01},
        "pretrain.save_every_s": 0.05, "pretrain.recalibrate_batches": 1,
    }  # fmt: skip


@pytest.fixture
def pretrain(settings):
    """Pretrain in this process."""

    def work(out, **options):
        return api.pretrain(settings=settings, out=out, reporter=QUIET, **options)

    return work


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = forked.start(forked.pretrain, settings, str(out))
    process.join()
    assert process.exitcode == 0
    return out


def weights(run):
    return (run / "pretrain/encoder.safetensors").read_bytes()


def fill(path):
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))


@pytest.fixture
def mounted(tmp_path):
    """Mount a small file system in memory; the test is skipped where that is not allowed."""
    places = []

    def mount(options):
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_ten_kills_in_a_row_change_no_bit(settings, undisturbed, tmp_path):
    out, moments = tmp_path / "run", random.Random(0)
    state, kills = out / "pretrain/last/state.json", 0
    while kills < KILLS:
        process = forked.start(forked.pretrain, settings, str(out))
        if kills % 4:  # every fourth at any moment, the others while it trains
            before = state.stat().st_mtime_ns if state.exists() else 0
            while process.is_alive() and not (
                state.exists() and state.stat().st_mtime_ns != before
            ):
                time.sleep(0.005)
        process.join(moments.uniform(0, 0.4))
        assert process.exitcode in (None, 0)
        if process.exitcode == 0:
            break
        process.kill()
        process.join()
        kills += 1
    last = forked.start(forked.pretrain, settings, str(out))
    last.join()
    assert last.exitcode == 0
    assert kills == KILLS, f"the run was over after {kills} kills: make it longer"
    assert weights(out) == weights(undisturbed)
    for name in ("metrics.jsonl", "monitor.jsonl"):
        both = [read_jsonl(run / "pretrain" / name) for run in (out, undisturbed)]
        for rows in both:
            for row in rows:
                row.pop("images_per_s", None)
                row.pop("seconds", None)
        assert both[0] == both[1]
    assert len(list(state.parent.glob("state-*"))) == 1
    assert not [p for p in out.rglob("*") if p.name.endswith(PARTIAL)]


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_state_and_the_run_goes_on_later(
    pretrain, undisturbed, mounted, monkeypatch
):
    disk, saves = mounted("size=24m"), 0
    save = Record.save

    def save_without_room(self, done):
        nonlocal saves
        saves += 1
        if saves == 4:
            fill(disk / "filler")
        save(self, done)

    with monkeypatch.context() as patched:
        patched.setattr(Record, "save", save_without_room)
        with pytest.raises(DiskFull, match=f"no space left while writing {disk}") as caught:
            pretrain(disk / "run")
    assert caught.value.exit_code == 1
    assert "free space" in caught.value.hint
    assert not [p for p in disk.rglob("*") if p.name.endswith(PARTIAL)]
    (disk / "filler").unlink()
    pretrain(disk / "run", resume=True)
    assert weights(disk / "run") == weights(undisturbed)


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(
    pretrain, mounted, monkeypatch
):
    def decoded(*_, **__):
        raise AssertionError("an image was decoded")

    for name in ("prepare", "prepare_storage"):
        monkeypatch.setattr(f"edgessl.stages.roles.{name}", decoded)
    with pytest.raises(EdgeSSLError, match="Read-only file system") as caught:
        pretrain(mounted("ro") / "run")
    assert caught.value.exit_code == 1
    assert "--out" in caught.value.hint


def test_a_path_below_a_file_is_told(pretrain, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeSSLError, match="Not a directory"):
        pretrain(tmp_path / "file" / "run")


@pytest.mark.slow
def test_too_little_memory_is_told_with_its_cure(tmp_path):
    said = tmp_path / "said.txt"
    arguments = [
        "pretrain", "--encoder", "mobilenet_v1_short", "--width", "4x-1x", "--imgsz", "64",
        "--batch", "1024", "--out", "run",
    ]  # fmt: skip
    process = forked.start(forked.command, arguments, str(tmp_path), str(said), 512)
    process.join()
    text = said.read_text()
    assert process.exitcode == 1, text
    assert "error: out of memory" in text
    assert "smaller batch" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_a_torn_state_is_refused_and_the_hint_is_right(settings, pretrain, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = forked.start(forked.pretrain, settings, str(out))
    while not (out / "pretrain/last/state.json").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    (state,) = (out / "pretrain/last").glob("state-*.safetensors")
    os.truncate(state, state.stat().st_size // 2)
    with pytest.raises(FileInvalid, match="was changed or cut") as caught:
        pretrain(out, resume=True)
    assert caught.value.exit_code == 3
    assert f"remove {state.parent} and resume" in caught.value.hint
    for path in state.parent.iterdir():
        path.unlink()
    state.parent.rmdir()
    pretrain(out, resume=True)
    assert weights(out) == weights(undisturbed)


def test_a_run_folder_has_one_process_at_a_time(tmp_path):
    ready = forked.CONTEXT.Event()
    process = forked.start(forked.hold, str(tmp_path / "run"), ready)
    assert ready.wait(60)
    with pytest.raises(UsageProblem, match=f"process {process.pid}") as caught:
        RunFolder.create(tmp_path / "run", "x", resume=True)
    assert caught.value.exit_code == 2
    assert "--out" in caught.value.hint
    process.kill()
    process.join()
    run = RunFolder.create(tmp_path / "run", "x", resume=True)
    again = RunFolder.create(tmp_path / "run", "x", resume=True)  # the same process may
    assert again.path == run.path


def test_a_folder_of_a_process_killed_at_once_can_be_used(tmp_path):
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / f".run.json.abcd{PARTIAL}").write_text("{")
    run = RunFolder.create(tmp_path, "x")
    assert run.is_new
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "run.json"]


def test_a_lock_file_in_a_foreign_folder_is_not_left(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(FileInvalid, match="not a run folder"):
        RunFolder.create(Path(tmp_path), "x", resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_log_that_cannot_be_written_hides_nothing(tmp_path, capsys):
    (tmp_path / "log.txt").mkdir()
    reporter = Reporter(log=tmp_path / "log.txt")
    reporter.say("first")
    reporter.say("second")
    err = capsys.readouterr().err
    assert "first" in err
    assert "second" in err
    assert err.count("is not written any more") == 1

"""Files, seals and the ledger under faults; tables; the one definition of model input."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgessl.core import files
from edgessl.core.artifact import IMAGENET_MEAN, IMAGENET_STD, Artifact, InputSpec
from edgessl.core.errors import DiskFull, EdgeSSLError, FileInvalid, MissingExtra, UsageProblem
from edgessl.core.images import to_model_input
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.registry import Entry, Table

# ---------------------------------------------------------------- whole or not at all


def raising(code: int):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_failed_rename_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "model.json"
    files.write_text(path, "old")
    monkeypatch.setattr(os, "replace", raising(errno.EIO))
    with pytest.raises(EdgeSSLError, match="cannot write"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_before_the_rename_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.json"
    files.write_text(path, "old")
    code = (
        "import os, pathlib, signal, sys\n"
        "from edgessl.core import files\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_text(pathlib.Path(sys.argv[1]), 'new' * 10_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, EdgeSSLError),
        (errno.EACCES, EdgeSSLError),
    ],
)
@pytest.mark.parametrize(("module", "call"), [(tempfile, "mkstemp"), (os, "fsync")])
def test_write_errors_say_what_and_what_to_do(tmp_path, monkeypatch, code, kind, module, call):
    path = tmp_path / "sub" / "ledger.json"
    monkeypatch.setattr(module, call, raising(code))
    with pytest.raises(EdgeSSLError) as caught:
        files.write_bytes(path, b"x")
    assert type(caught.value) is kind
    assert caught.value.exit_code == 1
    assert str(path) in caught.value.message
    assert "--out" in caught.value.hint
    assert list(path.parent.iterdir()) == []


def test_a_parent_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(EdgeSSLError, match="cannot write"):
        files.write_text(tmp_path / "runs" / "a.json", "{}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
def test_a_full_device_is_disk_full_for_json_lines():
    with pytest.raises(DiskFull):
        files.append_jsonl(Path("/dev/full"), [{"loss": 1.0}])


@pytest.mark.parametrize("cut", range(1, 18))
def test_json_lines_survive_a_torn_line_and_what_follows_it(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": i, "name": "é\u2028\u0085"} for i in range(4)]  # splitlines() cuts at both
    files.append_jsonl(path, rows[:3])
    path.write_bytes(path.read_bytes()[:-cut])
    kept = files.read_jsonl(path)
    assert kept == (rows[:3] if cut == 1 else rows[:2])  # a lone missing newline loses nothing
    files.append_jsonl(path, rows[3:])  # a resumed run goes on in the same file
    assert files.read_jsonl(path) == [*kept, rows[3]]


# ---------------------------------------------------------------- seals


@pytest.fixture
def sealed(tmp_path) -> Path:
    (tmp_path / "model.xml").write_bytes(b"<net/>" * 100)
    (tmp_path / "model.bin").write_bytes(bytes(range(256)))
    Artifact.sealed(
        tmp_path,
        ["model.xml", "model.bin"],
        artifact_kind="export",
        format="openvino",
        input=InputSpec.square(224),
        labels=("ant", "bee"),
    )
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    path = folder / "artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sealed_artifact_reads_back_with_unknown_keys_ignored(sealed):
    edit(sealed, from_the_future=[1])
    artifact = Artifact.load(sealed)
    assert artifact.main_file == "model.xml"
    assert artifact.labels == ("ant", "bee")
    assert artifact.input == InputSpec.square(224)
    document = json.loads((sealed / "artifact.json").read_text())
    assert document.items() >= {"schema": 1, "kind": "export"}.items()


def test_the_seal_ignores_the_order_of_files_and_sees_their_names(sealed):
    hashes = Artifact.load(sealed).files
    assert list(hashes) == ["model.xml", "model.bin"]
    seal = Artifact.load(sealed).seal
    lines = sorted(f"{name}:{digest}\n" for name, digest in hashes.items())
    assert seal == files.sha256_bytes("".join(lines).encode())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip(f / "model.bin"), "changed or cut"),
        (lambda f: os.truncate(f / "model.bin", 100), "changed or cut"),
        (lambda f: (f / "model.bin").unlink(), "is missing"),
        (lambda f: os.truncate(f / "artifact.json", 90), "not readable JSON"),
        (lambda f: (f / "artifact.json").write_bytes(b"\xff\xfe{}"), "not readable JSON"),
        (lambda f: (f / "artifact.json").write_text("[]"), "holds 'list'"),
        (lambda f: (f / "artifact.json").unlink(), "holds no artifact"),
        (lambda f: edit(f, kind="model"), "holds 'model', expected 'export'"),
        (lambda f: edit(f, schema=files.SCHEMA + 1), "reads up to 1"),
        (lambda f: edit(f, schema=None), "schema None"),
        (lambda f: edit(f, seal="0" * 64), "does not fit"),
        (lambda f: edit(f, files={"../model.bin": "0"}), "outside its folder"),
        (lambda f: edit(f, files={"/etc/passwd": "0"}), "outside its folder"),
        (lambda f: edit(f, files={"..": "0"}), "outside its folder|is missing"),
        (lambda f: edit(f, files={}), "files: "),
        (lambda f: edit(f, input={"height": 0}), "input.height"),
    ],
)
def test_a_damaged_artifact_is_refused(sealed, damage, message):
    damage(sealed)
    with pytest.raises(FileInvalid, match=message) as caught:
        Artifact.load(sealed)
    assert caught.value.exit_code == 3


# ---------------------------------------------------------------- ledger


def row(name: str, value: float) -> LedgerRow:
    return LedgerRow(id=name, stage="finetune", variant="scratch", metric="top1", value=value, n=9)


def test_putting_rows_twice_changes_nothing_and_a_new_value_replaces(tmp_path):
    rows = [row("a", 0.5), row("b", 0.75)]
    ledger = Ledger.open(tmp_path)
    ledger.put(rows)
    once = (tmp_path / "ledger.json").read_bytes()
    ledger.put(rows)
    Ledger.open(tmp_path).put(rows[:1])
    assert (tmp_path / "ledger.json").read_bytes() == once
    Ledger.open(tmp_path).put([row("a", 0.625)])
    assert [(r.id, r.value) for r in Ledger.open(tmp_path).rows] == [("a", 0.625), ("b", 0.75)]
    assert Ledger.open(tmp_path).find(stage="finetune", id="b") == (rows[1],)


@pytest.mark.parametrize("rows", [[{"id": "a"}], {"a": 1}, 5, None, [3]])
def test_a_malformed_ledger_is_refused(tmp_path, rows):
    files.write_json(tmp_path / "ledger.json", "ledger", {"rows": rows})
    with pytest.raises(FileInvalid, match="malformed"):
        Ledger.open(tmp_path)


# ---------------------------------------------------------------- tables

TABLE = Table(
    "method",
    {
        "sacl-xd": Entry("json:loads", "here"),
        "absent": Entry("part_with_absent_runtime:Part", "needs what is not there", "openvino"),
        "broken": Entry("edgessl.core.no_such_module:X", "a fault of our own"),
    },
)


def test_an_unknown_name_gets_the_nearest_or_the_list():
    with pytest.raises(UsageProblem, match="unknown method 'sacl-dx'") as caught:
        TABLE.load("sacl-dx")
    assert caught.value.hint == "did you mean 'sacl-xd'?; see: edgessl list methods"
    assert caught.value.exit_code == 2
    with pytest.raises(UsageProblem) as caught:
        TABLE.load("zzz")
    assert "known: absent, broken, sacl-xd" in caught.value.hint


def test_a_missing_package_names_its_extra_and_our_own_fault_stays_one(tmp_path, monkeypatch):
    (tmp_path / "part_with_absent_runtime.py").write_text("import absent_runtime.backend\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert TABLE.load("sacl-xd") is json.loads
    with pytest.raises(MissingExtra, match="'absent_runtime'") as caught:
        TABLE.load("absent")
    assert caught.value.hint == "pip install 'edgessl[openvino]'"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        TABLE.load("broken")


# ---------------------------------------------------------------- model input


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Return two crops of real photographs, uint8 (2, 224, 224, 3)."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn ships photographs")
    names = ("china.jpg", "flower.jpg")
    return np.stack([datasets.load_sample_image(name)[100:324, 200:424] for name in names])


def test_model_input_is_what_torchvision_makes(photographs):
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is the oracle")
    steps = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    want = np.stack([transforms.Compose(steps)(image).numpy() for image in photographs])
    spec = InputSpec.square(224)
    got = to_model_input(photographs, spec)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    assert got.dtype == np.float32
    assert got.shape[1:] == spec.shape[1:]
    channels_last = to_model_input(photographs, spec.with_layout("NHWC"))
    np.testing.assert_array_equal(channels_last, got.transpose(0, 2, 3, 1))
    assert channels_last.flags.c_contiguous


def test_value_range_maps_black_and_white(photographs):
    spec = InputSpec(
        height=224, width=224, resize=256, value_range=(-1, 1), mean=(0, 0, 0), std=(1, 1, 1)
    )
    got = to_model_input(photographs, spec.with_layout("NHWC"))
    np.testing.assert_allclose(got, photographs / 127.5 - 1, atol=1e-6)


def test_model_input_refuses_what_the_contract_excludes(photographs):
    spec = InputSpec.square(224)
    for wrong in (photographs / 255, photographs[:, :-1], photographs.transpose(0, 3, 1, 2)):
        with pytest.raises(ValueError, match="want uint8"):
            to_model_input(wrong, spec)


def test_the_usual_contract_keeps_small_images_whole():
    assert [InputSpec.square(s).resize for s in (28, 64, 128, 224)] == [28, 64, 146, 256]

"""What a user meets: one clear message, the exit code of the contract, never a traceback."""

import contextlib
import json
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
from command_line import TINY, edgessl, settings, start

from edgessl import api
from edgessl.cli import main as entry
from edgessl.cli import options
from edgessl.core.errors import GateFailed, MeasurementNotValid, NotProvable, worst_of
from edgessl.core.files import SCHEMA
from edgessl.encoders import ENCODERS
from edgessl.exporters import EXPORTERS
from edgessl.methods import METHODS

TRAIN = settings({"pretrain.epochs": 1, "pretrain.options": "{projector: [16, 16]}"})
SMALL = ("--encoder", "mobilenet_v1_short", "--width", "0.25x", "--imgsz", "16")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("EXECUTED"),))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pretraining run of a few steps."""
    folder = tmp_path_factory.mktemp("cli")
    edgessl("pretrain", *SMALL, *TRAIN, "--out", "run", cwd=folder)
    return folder / "run"


def main(arguments):
    """The exit code; the handlers of this process are put back."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as leave:
            entry.main(arguments)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return leave.value.code


def one_message(err, *parts):
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    for part in parts:
        assert part in err, err


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["pretrain", "--unlabeled", "nowhere"], 3, ["nowhere"]),
        (["pretrain", "--unlabeled", "empty"], 3, ["empty"]),
        (["pretrain", "--labels", "digts"], 3, ["digts", "did you mean 'digits'?"]),
        (["pretrain", "--method", "sacl-dx"], 2, ["did you mean 'sacl-xd'?"]),
        (["pretrain", "--encoder", "mobilenet_v9"], 2, ["did you mean 'mobilenet_v"]),
        (["pretrain", "--epoch", "3"], 2, ["--epochs"]),
        (["pretrain", "epochs=3"], 2, ["--epochs 3"]),
        (["pretrain", "--epochs", "many"], 2, ["many"]),
        (["pretrain", "--width", "1x-2x"], 2, ["--width", "'1x-2x'", "slim <= host"]),
        (["extract", "--width", "wide"], 2, ["--width", "'wide' is no width"]),
        (["pretrain", "--set", "encoder.width=1x-2x"], 3, ["slim <= host"]),
        (["pretrain", "--seed", "-1"], 2, ["--seed", "-1"]),
        (["pretrain", "--imgsz", "4"], 2, ["--imgsz", "8", "'4'"]),
        (["pretrain", "--imgsz", "2000"], 2, ["--imgsz", "1024", "'2000'"]),
        (["pretrain", "--set", "data.imgsz=4"], 3, ["data.imgsz"]),
        (["finetune", "--draws", "0"], 2, ["--draws", "'0'"]),
        (["finetune", "--labels-per-class", "0"], 2, ["'0'", "'all'"]),
        (["finetune", "--labels-per-class", "most"], 2, ["'most'", "'all'"]),
        (["evaluate", "--protocol", "kn"], 2, ["--protocol", "did you mean 'knn'?"]),
        (["bench", "--preset", "quik"], 2, ["--preset", "did you mean 'quick'?"]),
        (["export", "--quantize", "int7"], 2, ["'int7'", "--quantize", "did you mean 'int8'?"]),
        (["export", "--half", "--int8"], 2, ["one precision at a time", "fp16 and int8"]),
        (["export", "--io", "bytes"], 2, ["'bytes'", "--io", "float, integer"]),
        (["export", "--raw-size", "640"], 2, ["'640'", "480x640"]),
        (["pretrain", "--set", "pretrain.epoks=3"], 3, ["did you mean 'epochs'?"]),
        (["pretrain", "--method", "barlow", "--width", "1.5x-1x"], 3, ["--width 1x"]),
        (["run", "nosuch"], 3, ["quickstart"]),
        (["run", "typo.yaml"], 3, ["line 3", "2 error(s)", "'epochs'"][1:]),
        (["run", "broken.yaml"], 3, ["broken.yaml", "line 3"]),
        (["run"], 2, ["edgessl run quickstart"]),
        (["run", "quickstart", "--from", "benhc"], 2, ["did you mean 'bench'?"]),
        (["extract"], 2, ["there is no run"]),
        (["extract", "nowhere"], 3, ["nowhere"]),
        (["extract", "bomb.pt"], 3, ["pickle", "not opened"]),
        (["extract", "text.pt"], 3, ["not a whole safetensors"]),
        (["export", "--target", "onxx"], 2, ["did you mean 'onnx'?"]),
        (["bench", "empty"], 2, ["no exported artifact"]),
        (["list", "metods"], 2, ["did you mean 'methods'?"]),
        (["list", "methods", "mocov2"], 2, ["did you mean 'moco-v2'?"]),
        (["nosuch"], 2, ["nosuch"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_gets_one_message_and_its_code(
    tmp_path, monkeypatch, capsys, arguments, code, parts
):
    """In this process, as torch is imported once; a traceback would be an exception here."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "typo.yaml").write_text("pretrain:\n  epoks: 3\nencodr:\n  name: x\n")
    (tmp_path / "broken.yaml").write_text("pretrain:\n  epochs: [1\n")
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "text.pt").write_text("no tensors in here")
    monkeypatch.chdir(tmp_path)
    seen = main(arguments)
    out, err = capsys.readouterr()
    assert seen == code, err
    one_message(err, *parts)
    assert out == ""
    assert not (tmp_path / "EXECUTED").exists()


def test_json_carries_the_error_and_nothing_else(tmp_path):
    out, _ = edgessl("pretrain", "--method", "sacl-dx", "--json", cwd=tmp_path, expect=2)
    error = json.loads(out)["error"]
    assert error["code"] == 2
    assert error["type"] == "UsageProblem"
    assert "sacl-xd" in error["hint"]
    out, _ = edgessl("pretrain", "--epoch", "1", "--json", cwd=tmp_path, expect=2)
    assert json.loads(out)["error"]["code"] == 2


def test_json_output_is_one_document(checkpoint):
    out, err = edgessl("extract", "run", "--json", "--out", "ex", cwd=checkpoint.parent)
    document = json.loads(out)
    assert document["command"] == "extract"
    assert document["result"]["equivalence"]["pass"] is True
    assert document["next"].startswith("edgessl export")
    assert "error" not in err


def test_a_truncated_or_altered_checkpoint_is_refused(checkpoint, tmp_path):
    import shutil

    for name, damage in (("cut", lambda b: b[: len(b) // 2]), ("bent", lambda b: b[:-1] + b"\0")):
        copy = tmp_path / name
        shutil.copytree(checkpoint, copy)
        path = copy / "pretrain/encoder.safetensors"
        path.write_bytes(damage(path.read_bytes()))
        _, err = edgessl("extract", copy, cwd=tmp_path, expect=3)
        one_message(err, "was changed or cut", "encoder.safetensors")


def test_a_pickle_posing_as_a_sealed_checkpoint_is_not_executed(checkpoint, tmp_path):
    import hashlib
    import shutil

    shutil.copytree(checkpoint, tmp_path / "posing")
    folder = tmp_path / "posing/pretrain"
    bomb = pickle.dumps(Bomb())
    (folder / "encoder.safetensors").write_bytes(bomb)
    document = json.loads((folder / "encoder.json").read_text())
    document["files"]["encoder.safetensors"] = hashlib.sha256(bomb).hexdigest()
    lines = "".join(f"{name}:{sha}\n" for name, sha in sorted(document["files"].items()))
    document["seal"] = hashlib.sha256(lines.encode()).hexdigest()
    (folder / "encoder.json").write_text(json.dumps(document))
    _, err = edgessl("extract", "posing", cwd=tmp_path, expect=3)
    one_message(err, "pickle")
    assert not (tmp_path / "EXECUTED").exists()


def test_a_run_folder_is_never_silently_overwritten(checkpoint):
    _, err = edgessl("pretrain", *SMALL, "--out", "run", cwd=checkpoint.parent, expect=2)
    one_message(err, "already exists", "--resume")
    (checkpoint.parent / "mine").mkdir(exist_ok=True)
    (checkpoint.parent / "mine/precious.txt").write_text("x")
    _, err = edgessl(
        "pretrain", *SMALL, "--out", "mine", "--resume", cwd=checkpoint.parent, expect=3
    )
    one_message(err, "not a run folder")
    assert (checkpoint.parent / "mine/precious.txt").read_text() == "x"


def test_resuming_with_another_recipe_is_refused(checkpoint):
    arguments = ("pretrain", *SMALL, *TRAIN, "--seed", "7", "--out", "run", "--resume")
    _, err = edgessl(*arguments, cwd=checkpoint.parent, expect=3)
    one_message(err, "seed was 0, is 7")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path, number):
    arguments = ("pretrain", *SMALL, *settings(TINY), "--epochs", "500", "--out", "run")
    process = start(*arguments, cwd=tmp_path)
    state = tmp_path / "run/pretrain/last/state.json"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    one_message(err, "the state is saved", "--resume")
    assert json.loads(state.read_text())["step"] > 0


def test_defaults_come_from_the_file_of_the_folder(tmp_path):
    (tmp_path / "edgessl.yaml").write_text(
        "encoder: {name: mobilenet_v1_short, width: 0.25x}\ndata: {imgsz: 16}\n"
        "pretrain: {epochs: 1, method: barlow, options: {projector: [16, 16]}}\n"
    )
    _, err = edgessl("pretrain", "--batch", "256", cwd=tmp_path)
    assert "options not given: edgessl.yaml" in err
    assert "barlow, mobilenet_v1_short 0.25x" in err
    assert "next: edgessl evaluate last" in err


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("evaluate", "run"), signal.SIGTERM),
        (("evaluate", "run"), signal.SIGINT),
        (("extract", "run", "--json"), signal.SIGTERM),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.name,
)
def test_an_interrupt_outside_training_is_told(checkpoint, tmp_path, arguments, number):
    """While native code is imported, where an exception out of a handler can abort Python."""
    process = start(*arguments, "--out", tmp_path / "out", cwd=checkpoint.parent)
    mapped = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in mapped.read_text():
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, f"{out}\n{err}"
    assert "Traceback" not in err
    if "--json" in arguments:
        error = json.loads(out)["error"]
        assert (error["code"], error["type"]) == (130, "Interrupted")
        assert number.name in error["message"]
    else:
        one_message(err, f"interrupted by {number.name}", "--resume")
        assert out == ""


def test_a_signal_unwinds_the_command_once_and_nothing_after_it(monkeypatch, capsys):
    cleaned = []

    def stopped(*_, **__):
        with contextlib.suppress(KeyboardInterrupt):  # as native code may do
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        try:
            time.sleep(10)
        finally:
            time.sleep(0.3)  # the signal comes again, and must not cut this short
            cleaned.append(True)

    def told(error, as_json, tell=entry._tell):
        os.kill(os.getpid(), signal.SIGTERM)  # a second one, while the first is told
        return tell(error, as_json)

    monkeypatch.setattr(api, "report", stopped)
    monkeypatch.setattr(entry, "_tell", told)
    assert main(["report"]) == 130
    assert cleaned == [True]
    one_message(capsys.readouterr().err, "interrupted by SIGTERM", "--resume")


@pytest.mark.parametrize(
    ("error", "code", "parts"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: "
                         "can't allocate memory: you tried to allocate 1099511627776 bytes."),
            1, ["out of memory", "1099511627776", "smaller batch"],
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 1, ["smaller batch"]),
        (MemoryError(), 1, ["out of memory", "smaller batch"]),
        (OSError(12, "Cannot allocate memory"), 1, ["out of memory", "smaller batch"]),
        (OSError(28, "No space left on device", "x.pt"), 1, ["no space left", "x.pt"]),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 1, ["a bug of edgessl"]),
        (KeyboardInterrupt(), 130, ["interrupted", "--resume"]),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_what_ends_a_command_is_explained(monkeypatch, capsys, error, code, parts):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(api, "report", fails)
    assert main(["report"]) == code
    one_message(capsys.readouterr().err, *parts)


def test_one_document_holds_the_result_and_the_errors(monkeypatch, capsys):
    errors = (
        MeasurementNotValid("too short"), GateFailed("differs", hint="look"), NotProvable("few"),
    )  # fmt: skip
    outcome = api.Outcome("bench", Path("runs/b"), {"results": [1]}, "edgessl report", errors)
    monkeypatch.setattr(api, "report", lambda *_, **__: outcome)
    monkeypatch.setattr(entry, "keep_stdout_clean", lambda: None)  # pytest has descriptor 1
    assert main(["report", "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert document["result"] == {"results": [1]}
    assert document["error"] == errors[1].as_dict()
    assert [e["code"] for e in document["errors"]] == [6, 5, 7]
    assert main(["report"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "next: edgessl report" in err
    one_message(err, "differs", "hint: look")
    assert worst_of(errors) is errors[1]


def test_all_labels_is_an_explicit_null_of_the_recipe(checkpoint, monkeypatch):
    assert options.settings(None, {"a": options.per_class("all"), "b": None}) == {"a": None}
    assert options.settings(None, {"a": options.per_class("7")}) == {"a": 7}
    monkeypatch.chdir(checkpoint.parent)
    flags = ["--protocol", "knn", "--labels-per-class", "all", "--out", "all"]
    assert main(["evaluate", "run", *flags]) == 0
    assert "per_class: null" in Path("all/recipe.yaml").read_text()


def test_protocols_of_the_command_line_are_those_of_the_recipe():
    from edgessl.core.recipe import Evaluate

    assert Evaluate(protocols=options.PROTOCOLS).protocols == Evaluate().protocols


def test_every_json_file_has_a_published_schema(checkpoint, monkeypatch, capsys):
    """Written documents have what is required, and nothing that the schema does not name."""
    monkeypatch.chdir(checkpoint.parent)
    assert main(["evaluate", "run", "--protocol", "knn", "--out", "ledger"]) == 0
    assert main(["extract", "run", "--out", "plain"]) == 0
    capsys.readouterr()
    assert main(["schema"]) == 0
    schemas = json.loads(capsys.readouterr().out)
    by_kind = {}
    for schema in schemas.values():
        kind = schema["properties"].get("kind", {})
        for name in kind.get("enum", [kind.get("const")]):
            by_kind[name] = schema
    seen = set()
    for path in [p for run in ("run", "ledger", "plain") for p in Path(run).rglob("*.json")]:
        document = json.loads(path.read_text())
        schema = by_kind[document["kind"]]
        assert set(schema["required"]) <= set(document) <= set(schema["properties"]), path
        assert {"schema", "kind", "edgessl"} <= set(schema["required"])
        assert document["schema"] == SCHEMA == schema["properties"]["schema"]["const"]
        seen.add(document["kind"])
    assert seen == {
        "run", "splits", "stage", "training-state", "encoder", "model", "equivalence", "ledger",
        "data-findings",
    }  # fmt: skip
    beside_exports = {
        "export", "parity", "gate", "quantization-search", "sensitivity", "layers", "judged",
        "preprocessing-costs",
    }  # fmt: skip
    of_boards = {
        "bench-result", "board-parity", "board-runtime", "layer-profile", "bench-grid",
    }  # fmt: skip
    assert set(by_kind) - seen == {None, "image-cache", *of_boards, *beside_exports}


def test_listings_are_json(tmp_path):
    out, _ = edgessl("list", "--json", cwd=tmp_path)
    listed = {kind: {e["name"] for e in entries} for kind, entries in json.loads(out).items()}
    assert listed["methods"] == set(METHODS)
    assert listed["encoders"] == set(ENCODERS.listed())
    assert listed["targets"] == set(EXPORTERS)
    assert "quickstart" in listed["recipes"]


@pytest.mark.parametrize("name", list(METHODS))
def test_the_options_of_a_method_are_told_with_their_defaults(name, capsys):
    assert main(["list", "methods", name]) == 0
    page = capsys.readouterr().out
    for key, value in METHODS.load(name).Options().model_dump(mode="json").items():
        shown = value if isinstance(value, str) else json.dumps(value)
        assert f"  {key}: {shown}\n" in page


def test_a_net_of_timm_is_told_by_its_name(capsys):
    assert main(["list", "encoders", "timm:resnet10t"]) == 0
    assert "features at 1x: 512" in capsys.readouterr().out
    assert main(["list", "encoders", "timm:resnt18"]) == 2
    assert "did you mean timm:resnet18 " in capsys.readouterr().err


def test_the_options_of_a_method_are_json(tmp_path):
    out, _ = edgessl("list", "methods", "byol", "--json", cwd=tmp_path)
    (told,) = json.loads(out)["methods"]
    assert set(told["options"]["properties"]) == set(METHODS.load("byol").Options.model_fields)

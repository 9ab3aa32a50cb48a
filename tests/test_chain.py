"""The whole chain through the command line: files, figures, kills, lone commands."""

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import (
    CONSENT,
    ENVIRONMENT,
    TINY,
    consent_files,
    edgessl,
    network_attempts,
    processes,
    seals,
    settings,
    start,
)

pytestmark = [pytest.mark.chain, pytest.mark.slow]


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """One uninterrupted run of the tiny quickstart, with benches."""
    folder = tmp_path_factory.mktemp("chain")
    edgessl("run", "quickstart", *settings(TINY), "--out", "whole", cwd=folder)
    return folder / "whole"


def ledger(run):
    return json.loads((run / "ledger.json").read_text())["rows"]


def test_every_file_of_the_contract_is_there(whole_run):
    width = "0.25x"
    for name in (
        "recipe.yaml", "ledger.json", "report.html", "MODEL_CARD.md", "log.txt", "run.json",
        "splits.json", "pretrain/metrics.jsonl", "pretrain/last/state.json",
        "pretrain/encoder.safetensors", "pretrain/encoder.json", "finetune/metrics.jsonl",
        "finetune/model.safetensors", "finetune/model.json", "finetune/predictions.csv",
        f"extract/{width}/model.safetensors", f"extract/{width}/equivalence.json",
        f"export/{width}-onnx-none/model.onnx", f"export/{width}-openvino-none/model.xml",
        f"export/{width}-tflite-none/model.tflite",
    ):  # fmt: skip
        assert (whole_run / name).is_file(), name
    for target in ("onnx", "openvino", "tflite"):
        folder = whole_run / f"export/{width}-{target}-none"
        for name in ("artifact.json", "golden.npz", "parity.json", "predictions.csv"):
            assert (folder / name).is_file(), name
        (bench,) = whole_run.glob(f"bench/*/{width}-{target}-none-*")
        for name in ("result.json", "samples.jsonl", "telemetry.csv", "predictions.csv"):
            assert (bench / name).is_file(), name
    for path in whole_run.rglob("*.json"):
        document = json.loads(path.read_text())
        assert {"schema", "kind", "edgessl"} <= set(document), path


def test_the_whole_run_sent_nothing_and_left_the_consent_alone(whole_run):
    """Trainings, converters, runtimes and the agent that measures, each in its process."""
    seen = " ".join(processes())
    for part in ("-m edgessl run", "-m edgessl.stages.child", "agent-"):
        assert part in seen
    assert network_attempts() == []
    assert consent_files() == {CONSENT.name: "1"}


def test_every_target_predicts_the_same_answers(whole_run):
    tables = []
    for target in ("onnx", "openvino", "tflite"):
        folder = f"whole/export/0.25x-{target}-none"
        edgessl("predict", folder, "digits", "--csv", f"{target}.csv", cwd=whole_run.parent)
        with (whole_run.parent / f"{target}.csv").open(newline="") as stream:
            tables.append([(row["path"], row["predicted"]) for row in csv.DictReader(stream)])
    assert len(tables[0]) == 1797
    assert tables[0] == tables[1] == tables[2]


def test_the_ledger_accounts_for_every_variant_with_intervals(whole_run):
    rows = ledger(whole_run)
    summaries = {
        (r["stage"], r["variant"], r["metric"]): r
        for r in rows
        if r["draw"] is None and r["labels_per_class"]
    }
    for key in (
        ("evaluate", "pixels", "linear_top1"), ("evaluate", "sacl-xd", "linear_top1"),
        ("finetune", "scratch", "top1"), ("finetune", "sacl-xd", "top1"),
    ):  # fmt: skip
        row = summaries[key]
        assert row["ci_low"] < row["value"] < row["ci_high"]
        draws = [r for r in rows if r["id"] in row["parents"]]
        assert len(draws) == 3
        assert row["value"] == pytest.approx(np.mean([r["value"] for r in draws]))
    paired = summaries["finetune", "sacl-xd", "top1"]
    assert paired["delta"] == pytest.approx(
        paired["value"] - summaries["finetune", "scratch", "top1"]["value"]
    )
    ids = {r["id"] for r in rows}
    assert all(parent in ids for r in rows for parent in r["parents"])


def test_the_same_images_from_pytorch_to_the_device(whole_run):
    rows = [r for r in ledger(whole_run) if r["stage"] in ("extract", "export", "bench")]
    top1 = [r for r in rows if r["metric"] == "top1"]
    assert {(r["stage"], r["target"]) for r in top1} == {
        ("extract", "pytorch"), *((s, t) for s in ("export", "bench")
                                  for t in ("onnx", "openvino", "tflite")),
    }  # fmt: skip
    assert len({r["data_sha256"] for r in top1}) == 1
    assert len({(r["value"], r["n"]) for r in top1}) == 1  # float32 changes no answer
    assert all(r["delta"] == 0 for r in top1)
    answers = []
    for path in [
        *whole_run.glob("export/*/predictions.csv"),
        *whole_run.glob("bench/*/*/predictions.csv"),
    ]:
        with path.open(newline="") as stream:
            answers.append([(r["sha256"], r["predicted"]) for r in csv.DictReader(stream)])
    assert len(answers) == 6
    assert all(a == answers[0] for a in answers)


def test_test_images_are_never_trained_on(whole_run):
    splits = json.loads((whole_run / "splits.json").read_text())["splits"]
    members = {name: set(part["sha256"]) for name, part in splits.items()}
    assert members["train"].isdisjoint(members["test"])
    assert members["train"].isdisjoint(members["val"])
    encoder = json.loads((whole_run / "pretrain/encoder.json").read_text())
    assert encoder["facts"]["images"] == len(splits["train"]["sha256"])


def test_a_bench_shows_its_verdict_and_keeps_every_sample(whole_run):
    for path in whole_run.glob("bench/*/*/result.json"):
        result = json.loads(path.read_text())
        assert result["verdicts"]
        lines = (path.parent / "samples.jsonl").read_text().splitlines()
        assert len(lines) == result["latency_ms"]["infer"]["n"] >= 130
        assert result["accuracy"]["agreement"] == 1.0
        assert all(check["pass"] for check in result["parity"])


def test_a_finished_run_is_kept_as_it_is(whole_run):
    before = seals(whole_run)
    benches = sorted(whole_run.glob("bench/*/*/result.json"))
    _, err = edgessl(
        "run", "quickstart", *settings(TINY), "--out", "whole", "--resume", cwd=whole_run.parent
    )
    assert err.count("kept") == 4 + 3 + 3  # four stages, three exports, three benches
    assert seals(whole_run) == before
    assert sorted(whole_run.glob("bench/*/*/result.json")) == benches


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def test_killed_anywhere_and_resumed_the_results_are_the_same(whole_run, tmp_path):
    """kill -9 within each stage, then once more at a random moment."""
    run = tmp_path / "killed"
    moments = [
        lambda: (run / "pretrain/last/state.json").exists(),
        lambda: (
            "step 4" in (run / "log.txt").read_text()
            or len(lines_of(run / "pretrain/metrics.jsonl")) > 0
        ),
        lambda: len(lines_of(run / "finetune/draws.jsonl")) >= 3,
        lambda: (run / "finetune/model.json").exists(),
        lambda: (run / "export/0.25x-onnx-none/converter.log").exists(),
        lambda: (run / "export/0.25x-onnx-none/stage.json").exists(),
    ]
    arguments = (
        "run",
        "quickstart",
        *settings(TINY),
        "--until",
        "export",
        "--out",
        run,
        "--resume",
    )
    generator = random.Random(0)
    for reached in moments:
        process = start(*arguments, cwd=tmp_path)
        while process.poll() is None and not ((run / "log.txt").exists() and reached()):
            time.sleep(0.02)
        time.sleep(generator.random() * 0.5)
        process.kill()
        process.communicate()
    edgessl(*arguments, cwd=tmp_path)
    ours, whole = seals(run), seals(whole_run)
    assert set(ours) == {p for p in whole if not p.startswith("bench")}
    assert ours == {p: whole[p] for p in ours}
    left = [p for p in run.rglob("*") if p.name.startswith(".") and p.is_file()]
    assert len(left) <= len(moments)  # a kill leaves at most the file it was writing


def test_lone_commands_walk_the_same_chain_and_extract_into_torchvision(tmp_path):
    """Each command takes its input from the last run; V3-large with the stock stem at the end."""
    tiny = settings(
        {"pretrain.epochs": 1, "pretrain.options": "{projector: [16, 16]}", "finetune.epochs": 1,
         "finetune.learning_rates": "[0.001]", "finetune.scratch": "false"}
    )  # fmt: skip
    edgessl(
        "pretrain", "--encoder", "mobilenet_v3_large", "--width", "1.5x-1x", "--imgsz", "32",
        "--seed", "3", *tiny, cwd=tmp_path,
    )  # fmt: skip
    out, _ = edgessl("evaluate", "--protocol", "knn", "--json", cwd=tmp_path)
    rows = json.loads(out)["result"]["rows"]
    assert {(r["variant"], r["metric"]) for r in rows} == {
        ("pixels", "knn_top1"), ("sacl-xd", "knn_top1"),
    }  # fmt: skip
    edgessl("finetune", "runs/pretrain", "--labels-per-class", "5", "--draws", "1", cwd=tmp_path)
    out, _ = edgessl("extract", "--width", "1x", "--json", cwd=tmp_path)
    folder = tmp_path / json.loads(out)["result"]["model"]
    check = subprocess.run(
        [sys.executable, "-c", SNIPPET, str(folder)], capture_output=True, text=True,
        cwd=tmp_path, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert check.stdout.strip() == "5483032", check.stderr
    edgessl("export", "--target", "onnx", cwd=tmp_path)
    out, _ = edgessl("bench", "--allow-unstable", "--json", cwd=tmp_path)
    (result,) = json.loads(out)["result"]["results"]
    assert result["accuracy"]["n"] == 449
    edgessl("report", "--out", "all.html", cwd=tmp_path)
    page = (tmp_path / "all.html").read_text()
    assert "mobilenet_v3_large" in page
    assert "finetune" in Path(tmp_path / "runs/bench/ledger.json").read_text()


SNIPPET = """
import runpy, sys
from pathlib import Path
got = runpy.run_path(str(Path(sys.argv[1]) / "load_model.py"))
net = got["net"]
import torch, torchvision
assert type(net) is torchvision.models.MobileNetV3
assert not any(m.startswith("edgessl") for m in sys.modules)
full = torchvision.models.mobilenet_v3_large()
state = {k: v for k, v in net.state_dict().items() if not k.startswith("classifier.3")}
missing, unexpected = full.load_state_dict(state, strict=False)
assert missing == ["classifier.3.weight", "classifier.3.bias"] and not unexpected
print(sum(p.numel() for p in full.parameters()))
"""


WITHOUT_TORCH = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def absent(name, path=None, target=None):
    return None if name.split(".")[0] in {"torch", "torchvision"} else find(name, path, target)
PathFinder.find_spec = absent
"""


def test_bench_and_report_need_no_torch(whole_run, tmp_path):
    """As after ``pip install edgessl`` with a runtime: torch cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TORCH)
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}
    folder = next(whole_run.glob("export/*-onnx-none"))
    for arguments in (
        ["bench", folder, "--allow-unstable", "--out", tmp_path / "b", "--json"],
        ["report", tmp_path / "b", "--json"],
        ["list", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "edgessl", *map(str, arguments)], env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    failed = subprocess.run(
        [sys.executable, "-m", "edgessl", "pretrain"], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "pip install 'edgessl[train]'" in failed.stderr

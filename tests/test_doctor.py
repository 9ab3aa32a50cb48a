"""What the machine and the run folders are told to be like, broken ones included."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, edgessl

from edgessl import api_light
from edgessl.core import files
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.ledger import Ledger, LedgerRow
from edgessl.core.registry import Table
from edgessl.core.runs import RunFolder
from edgessl.devices import DEVICES
from edgessl.encoders import ENCODERS
from edgessl.exporters import EXPORTERS
from edgessl.methods import METHODS
from edgessl.stages import doctor, imports
from edgessl.stages.imports import Package


def test_packages_are_tried_and_a_crash_is_a_line(tmp_path, monkeypatch):
    """One imports, one raises, one dies in native code; the last two share a process."""
    (tmp_path / "fine.py").write_text("")
    (tmp_path / "raises.py").write_text("raise OSError('libgone.so: cannot open')")
    (tmp_path / "dies.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imports, "TOGETHER", (("fine", "dies"),))
    found = imports.look_for(["fine", "raises", "dies", "nosuch"], untried=())
    assert found["fine"].imports is True
    assert found["raises"].problem == "OSError: libgone.so: cannot open"
    assert "SIGSEGV" in found["dies"].problem
    assert (found["nosuch"].version, found["nosuch"].imports) == (None, None)
    assert [p.usable for p in found.values()] == [True, False, False, False]
    assert imports.look_for(["dies"], untried=["dies"])["dies"].imports is None


def machine(monkeypatch, **states):
    """Let packages be found as given: a version, None, or a problem."""
    classes = [EXPORTERS.load(name) for name in EXPORTERS]
    further = [p for c in classes for names in (c.needs, *c.quantizes.values()) for p in names]
    needs = [*doctor.TRAINING, *(package.split(".")[0] for package in further)]
    every = dict.fromkeys(needs, "1.0") | states

    def look_for(names, untried=()):
        return {
            n: Package(n, None, None)
            if every[n] is None
            else Package(n, every[n].split("!")[0], "!" not in every[n], every[n].partition("!")[2])
            for n in names
        }

    monkeypatch.setattr(doctor, "look_for", look_for)


def test_what_is_missing_comes_with_its_pip_command(monkeypatch):
    machine(monkeypatch, openvino=None, torchvision=None)
    finding = api_light.doctor()
    abilities = {(a["kind"], a["name"]): a for a in finding.result["abilities"]}
    assert not finding.errors  # nothing was asked for, and nothing installed is broken
    assert abilities["target", "openvino"]["fix"] == "pip install 'edgessl[openvino]'"
    assert abilities["training", ""]["fix"] == "pip install 'edgessl[train]'"
    assert abilities["target", "onnx"]["works"]
    assert abilities["device", "local"]["works"]
    assert {("target", t) for t in EXPORTERS} | {("device", d) for d in DEVICES} < set(abilities)


def test_the_exit_code_is_about_what_was_asked(monkeypatch):
    machine(monkeypatch, openvino=None)
    assert not api_light.doctor(target="onnx").errors
    assert not api_light.doctor(device="local").errors  # another runtime is there
    (error,) = api_light.doctor(target="openvino").errors
    assert (error.exit_code, error.hint) == (1, "pip install 'edgessl[openvino]'")
    machine(monkeypatch, torch=None)
    (error,) = api_light.doctor(target="onnx").errors
    assert "files that exist run here" in error.message
    assert error.hint == "pip install 'edgessl[train]'"
    machine(monkeypatch, **dict.fromkeys(doctor.DEVICE_RUNTIMES))
    (error,) = api_light.doctor(device="local").errors
    assert "no runtime works here" in error.message
    assert error.hint == "pip install 'edgessl[onnx]'"
    with pytest.raises(UsageProblem):
        api_light.doctor(target="onxx")


def test_a_board_elsewhere_needs_the_way_there_and_no_runtime_here(monkeypatch):
    machine(monkeypatch, **dict.fromkeys(doctor.DEVICE_RUNTIMES))
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/ssh" if name == "ssh" else None)
    finding = api_light.doctor(device="rpi")
    assert not finding.errors
    assert finding.result["abilities"][0]["detail"] == "through /usr/bin/ssh"
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("edgessl.devices.ways.find_spec", lambda name: None)
    (error,) = api_light.doctor(device="rpi").errors
    assert "neither an ssh program nor asyncssh" in error.message
    assert error.hint == "pip install 'edgessl[ssh]'"


def test_a_target_whose_files_no_device_runs_makes_no_device_work(monkeypatch):
    """numpy runs the files of this target, and no agent can time them."""
    entry = replace(EXPORTERS["onnx"], facts={"format": "toy", "runtime": "numpy"})
    monkeypatch.setattr(doctor, "EXPORTERS", Table("target", {"toy": entry}))
    machine(monkeypatch, numpy="2.0", **dict.fromkeys(doctor.DEVICE_RUNTIMES))
    (error,) = api_light.doctor(device="local").errors
    assert "no runtime works here" in error.message


def test_a_torchvision_that_does_not_fit_its_torch_is_told(monkeypatch):
    broken = "1.0!RuntimeError: operator torchvision::nms does not exist"
    machine(monkeypatch, torchvision=broken)
    (error,) = api_light.doctor().errors
    assert "torchvision::nms" in error.message
    assert error.hint == "pip install --force-reinstall torch torchvision"
    machine(monkeypatch, sklearn="1.0!ImportError: x")
    (error,) = api_light.doctor().errors
    assert error.hint == "pip install --force-reinstall scikit-learn"
    machine(monkeypatch, torch="2.13.0+cpu!ImportError: x")
    (error,) = api_light.doctor(target="onnx").errors
    assert error.hint == "pip install 'torch!=2.13.0' torchvision"


@pytest.mark.slow
def test_the_command_on_this_machine(tmp_path):
    out, err = edgessl("doctor", "--target", "onnx", cwd=tmp_path)
    assert re.search(r"works +target onnx .*onnxruntime \d", out)
    assert "OMP_NUM_THREADS: 1" in out
    assert "next: " in err
    # a package that kills its process, seen from the outside
    (tmp_path / "onnxruntime.py").write_text("import os; os.kill(os.getpid(), 6)")
    done = subprocess.run(
        [sys.executable, "-m", "edgessl", "doctor", "--device", "local", "--target", "onnx",
         "--json"],
        cwd=tmp_path, env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert "SIGABRT" in document["error"]["message"]
    assert document["result"]["works"] is False
    assert {a["name"]: a["works"] for a in document["result"]["abilities"]} == {
        "onnx": False, "local": True,
    }  # fmt: skip


def make_run(name, command, stages, started="2026-01-01T00:00:00Z", rows=()):
    run = RunFolder.create(None, name)
    run.begin(["edgessl", *command])
    for stage, status in stages.items():
        run.finish_stage(stage, 1.0, status)
    facts = json.loads((run.path / "run.json").read_text()) | {"started": started}
    (run.path / "run.json").write_text(json.dumps(facts))
    if rows:
        Ledger.open(run.path).put(rows)
    return run.path


def row(stage, variant, value, **fields):
    values = {
        "id": f"{stage}/{variant}/{value}", "stage": stage, "variant": variant, "metric": "top1",
        "value": value, "n": 100, "ci_low": value - 0.1, "ci_high": value + 0.1, "width": "1x",
    }  # fmt: skip
    return LedgerRow(**(values | fields))


def test_runs_are_listed_whatever_state_they_are_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert api_light.runs().result["runs"] == []
    rows = [
        row("evaluate", "pixels", 0.9, metric="knn_top1"), row("finetune", "scratch", 0.5),
        row("finetune", "sacl-xd", 0.7), row("finetune", "sacl-xd", 0.8, draw=0),
    ]  # fmt: skip
    make_run("c", ["run", "quickstart"], {"pretrain": "done", "report": "done"}, "2026-01-03", rows)
    make_run("a", ["pretrain"], {}, "2026-01-04")
    make_run("b", ["run", "x.yaml"], {"pretrain": "done", "export onnx": "failed"}, "2026-01-02")
    make_run("until", ["run", "x", "--until", "extract"], {"extract 1x": "done"}, "2026-01-01")
    damaged = make_run("d", ["run"], {}, "2026-01-05")
    (damaged / "run.json").write_text('{"kind": "run", ')
    bent = make_run("e", ["run"], {"report": "done"}, "2026-01-06")
    (bent / "ledger.json").write_text("[]")
    found = {run["name"]: run for run in api_light.runs().result["runs"]}
    assert [*found] == ["d", "until", "b", "c", "a", "e"]  # an unknown date comes first
    status = {name: run["status"] for name, run in found.items()}
    assert status == {
        "d": "damaged", "until": "done", "b": "failed", "c": "done", "a": "unfinished",
        "e": "damaged",
    }  # fmt: skip
    best = found["c"]["best"]
    assert (best["variant"], best["value"], best["stage"]) == ("sacl-xd", 0.7, "finetune")
    assert found["c"]["bytes"] == sum(p.stat().st_size for p in Path("runs/c").rglob("*"))
    held = RunFolder.create(Path("runs/a"), "a", resume=True)
    assert api_light.runs(held.path).result["runs"][0]["status"] == "running"
    assert "not readable JSON" in found["d"]["problem"]
    text = edgessl("runs", cwd=tmp_path)[0]
    assert re.search(r"c +2026-01-03 .*top1 70.0 % \[60.0, 80.0\] finetune: 1x sacl-xd", text)
    assert re.search(r"^d .*damaged", text, re.MULTILINE)
    assert len(api_light.runs(Path("runs/c")).result["runs"]) == 1
    with pytest.raises(FileInvalid, match="nowhere"):
        api_light.runs(Path("nowhere"))


def test_the_worst_verdict_stands_for_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_run("run", ["bench"], {"bench": "done"})
    for name, verdict in (("x", "VALID"), ("y", "BUSY"), ("z", "TOO_SHORT")):
        parts = ("run", "model", "data", "device", "runtime", "protocol", "latency_ms")
        body = {part: {} for part in parts}
        files.write_json(
            path / f"bench/cpu/{name}/result.json", "bench-result", body | {"verdicts": [verdict]}
        )
    (found,) = api_light.runs().result["runs"]
    assert (found["verdict"], found["status"]) == ("TOO_SHORT", "done")
    (path / "bench/cpu/x/result.json").write_text("{}")
    assert api_light.runs().result["runs"][0]["verdict"] == "damaged"


def completed(line, cwd):
    """What the shell is told when the tab key is pressed at the end of a command line."""
    words = line.split(" ")
    environment = ENVIRONMENT | {
        "_EDGESSL_COMPLETE": "complete_bash", "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c",
         "import sys; sys.argv = ['edgessl']; from edgessl.cli.main import main; main()"],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    heavy = re.findall(r"\| +(torch|numpy|PIL|ruamel)$", done.stderr, re.MULTILINE)
    assert heavy == []
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edgessl pretrain --encoder mobilenet_v1", {"mobilenet_v1", "mobilenet_v1_short"}),
        ("edgessl cost --method ", set(METHODS)),
        ("edgessl finetune --encoder ", set(ENCODERS)),
        ("edgessl export last --target ", set(EXPORTERS)),
        ("edgessl bench --device ", set(DEVICES)),
        ("edgessl run quick", {"quickstart"}),
        ("edgessl run quickstart --until ex", {"extract", "export"}),
        ("edgessl doc", {"doctor"}),
    ],
)
def test_the_shell_completes_names_without_anything_heavy(tmp_path, line, expected):
    assert completed(line, tmp_path) == expected


def test_the_completion_script_is_printed(tmp_path):
    environment = ENVIRONMENT | {
        "SHELL": "/bin/bash",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "edgessl", "--show-completion", "bash"], cwd=tmp_path,
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_EDGESSL_COMPLETE=complete_bash" in done.stdout

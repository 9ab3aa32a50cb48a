"""The command line as a user runs it: a process of its own, one thread, its own folder.

Outside CI, as libraries behave differently there; with a home that opted in to telemetry; and
without a network: an attempt to reach it fails the test (see ``offline/sitecustomize.py``).
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OWN = Path(tempfile.mkdtemp(prefix="edgessl-tests-"))
atexit.register(shutil.rmtree, OWN, ignore_errors=True)
HOME, NETWORK = OWN / "home", OWN / "network.txt"
CONSENT = HOME / "intel/openvino_telemetry"
CONSENT.parent.mkdir(parents=True)
CONSENT.write_text("1")
# what libraries take for a sign of CI, or for a wish to be left alone
SIGNS = {"CI", "TF_BUILD", "JENKINS_URL", "DO_NOT_TRACK", "HF_HUB_OFFLINE"}
PATHS = [str(Path(__file__).with_name("offline")), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in SIGNS} | {
    "OMP_NUM_THREADS": "1", "COLUMNS": "100", "HOME": str(HOME),
    "PYTHONPATH": os.pathsep.join(filter(None, PATHS)), "EDGESSL_TEST_NETWORK": str(NETWORK),
}  # fmt: skip
# the quickstart, cut to seconds; no time budget, so that two runs take the same steps
TINY = {
    "pretrain.epochs": "2", "pretrain.max_seconds": "null", "pretrain.save_every_s": "0.2",
    "pretrain.options": "{projector: [32, 32], lam: 0.01}", "encoder.width": "0.5x-0.25x",
    "pretrain.batch": "128",
    "labels.draws": "3", "finetune.epochs": "2", "finetune.max_seconds": "null",
    "finetune.learning_rates": "[0.003]",
}  # fmt: skip


def settings(values):
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def start(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "edgessl", *map(str, arguments)], cwd=cwd, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def edgessl(*arguments, cwd, expect=0):
    """Run to the end; the expected exit code, no traceback, and nothing sent anywhere."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err, err
    assert process.returncode == expect, f"exit {process.returncode}\n{out}\n{err}"
    assert network_attempts() == []
    assert consent_files() == {"openvino_telemetry": "1"}
    return out, err


def network_attempts():
    """Lines of processes that asked for the network: what, who, where to."""
    return [line for line in _noted() if not line.startswith("started\t")]


def processes():
    """Command lines of all Python processes that were started so far."""
    return [line.split("\t")[1] for line in _noted() if line.startswith("started\t")]


def consent_files():
    """What lies where openvino keeps a user's consent and its own counters."""
    folder = CONSENT.parent
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


def _noted():
    return NETWORK.read_text().splitlines() if NETWORK.exists() else []


def seals(run):
    """Seals of everything in a run folder, by path."""
    return {
        str(path.parent.relative_to(run)): json.loads(path.read_text())["seal"]
        for name in ("encoder.json", "model.json", "artifact.json")
        for path in sorted(run.rglob(name))
    }

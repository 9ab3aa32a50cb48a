"""The command line as a user runs it: a process of its own, one thread, its own folder."""

import json
import os
import subprocess
import sys

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
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
    """Run to the end; the exit code must be the expected one and nothing a traceback."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err, err
    assert process.returncode == expect, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def seals(run):
    """Seals of everything in a run folder, by path."""
    return {
        str(path.parent.relative_to(run)): json.loads(path.read_text())["seal"]
        for name in ("encoder.json", "model.json", "artifact.json")
        for path in sorted(run.rglob(name))
    }

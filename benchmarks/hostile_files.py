"""What a runtime does with damaged files: those that our check lets pass, and those it refuses.

Copies of exports are damaged by a seed, checked, and each opened and run once in a process of
its own whatever the check said. Prints one row per export folder.

    python benchmarks/hostile_files.py [--files 1000] [--seed 0] runs/mine/export/*
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.exporters import EXPORTERS
from edgessl.exporters.untrusted import OPENED, check_files

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from small_models import damaged

LONGEST_S, MOST_BYTES = 20, 8 << 30
ENDS = ("ran", "exception", "crash", "too long")


def run(folder: Path, target: str) -> None:
    session = EXPORTERS.load(target)().open(folder)
    shape = tuple(side or 1 for side in session.shape)
    session.infer(np.zeros(shape, session.dtype))


def end_of(work: Callable[[], None]) -> str:
    """Return how the work ended in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1), os.dup2(nowhere, 2)
            signal.alarm(LONGEST_S)
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "ran", 1: "exception", -signal.SIGALRM: "too long"}.get(status, "crash")


def load_runtime(target: str) -> None:
    """Import once, so that every child need not; without a session, as threads do not fork."""
    if target == "openvino":  # the package would send telemetry
        sys.modules["openvino_telemetry"] = None
    __import__(EXPORTERS[target].facts["runtime"])


def row(source: Path, files: int, seed: int) -> str:
    artifact, chance = Artifact.load(source), random.Random(seed)
    target, names = artifact.facts["target"], OPENED[artifact.format]
    whole = {name: (source / name).read_bytes() for name in names}
    load_runtime(target)
    counts: Counter[tuple[bool, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for _ in range(files):
            hurt = names[0] if chance.random() < 0.9 else chance.choice(names)
            for name, data in whole.items():
                (place / name).write_bytes(damaged(data, chance) if name == hurt else data)
            try:
                check_files(artifact.format, place, names)
                passed = True
            except FileInvalid:
                passed = False
            counts[passed, end_of(lambda: run(place, target))] += 1
    cells = [str(counts[passed, end]) for passed in (True, False) for end in ENDS]
    return f"{source.name} | " + " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    heads = [f"{what}: {end}" for what in ("passed", "refused") for end in ENDS]
    print("export | " + " | ".join(heads))
    for folder in asked.folders:
        print(row(folder, asked.files, asked.seed), flush=True)


if __name__ == "__main__":
    main()

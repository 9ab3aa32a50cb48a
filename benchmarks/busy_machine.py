"""SACL+XD step time beside another busy process, by how OpenMP threads wait.

Each row is a fresh process, in turn; prints milliseconds per step (median) and their ratio.

    python benchmarks/busy_machine.py
"""

import json
import os
import statistics
import subprocess
import sys

STEP = """
import time, statistics, torch
torch.set_num_threads(2)
from edgessl.core.recipe import Recipe
from edgessl.stages.pretrain import build_method
from edgessl.stages.recipes import recipe_values, validated
method, _ = build_method(validated(recipe_values("quickstart")))
method = method.to(memory_format=torch.channels_last).train()
views = [torch.randn(64, 3, 16, 16).to(memory_format=torch.channels_last) for _ in "ab"]
took = []
for _ in range(8):
    start = time.perf_counter()
    method(views)["total"].backward()
    took.append(time.perf_counter() - start)
print(1e3 * statistics.median(took[2:]))
"""


def step_ms(policy: str) -> float:
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    done = subprocess.run(
        [sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    rows: dict[str, dict[str, float]] = {}
    for state in ("quiet", "busy"):
        other = None
        if state == "busy":
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            taken: dict[str, list[float]] = {"ACTIVE": [], "PASSIVE": []}
            for _ in range(3):
                for policy, values in taken.items():
                    values.append(step_ms(policy))
        finally:
            if other is not None:
                other.kill()
        medians = {p: statistics.median(v) for p, v in taken.items()}
        rows[state] = medians | {"ratio": medians["ACTIVE"] / medians["PASSIVE"]}
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""How long ``edgessl --help`` and ``edgessl list`` take beside a bare Typer app.

The bare app has as many commands, each with one option, and does nothing else: what it takes is
Python, Typer and the terminal library. Runs alternate, so that a busy machine slows all alike.

    python benchmarks/startup.py [--runs 21] [--save]

Prints one JSON document: medians in milliseconds and their ratios to the bare app; ``--save``
also writes it to benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

RESULT = Path(__file__).parent / "results" / "startup.json"
WARM_UP = 2


def bare_app(commands: int) -> str:
    """Return the source of a Typer app with that many commands."""
    head = "import typer\n\napp = typer.Typer(pretty_exceptions_enable=False)\n"
    body = "".join(
        f'\n\n@app.command()\ndef command{i}(count: int = 1) -> None:\n    """Do {i}."""\n'
        for i in range(commands)
    )
    return f"{head}{body}\n\napp()\n"


def command_count() -> int:
    """Return how many commands and groups ``edgessl --help`` offers, hidden ones included."""
    code = (
        "import typer.main\nfrom edgessl.cli import delivery, info\n"
        "from edgessl.cli.app import app\n"
        "print(len(typer.main.get_command(app).commands))"
    )
    return int(subprocess.check_output([sys.executable, "-c", code], text=True))


def milliseconds(command: list[str]) -> float:
    """Run ``command`` once and return its wall time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def measure(runs: int) -> dict[str, object]:
    """Time every candidate ``runs`` times, one after the other in turn."""
    commands = command_count()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(bare_app(commands))
        candidates = {
            "bare --help": [sys.executable, str(script), "--help"],
            "edgessl --help": [sys.executable, "-m", "edgessl", "--help"],
            "edgessl list": [sys.executable, "-m", "edgessl", "list"],
        }
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(WARM_UP + runs):
            for name, command in candidates.items():
                took = milliseconds(command)
                if turn >= WARM_UP:
                    samples[name].append(took)
    medians = {name: median(times) for name, times in samples.items()}
    bare = medians["bare --help"]
    return {
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "typer": version("typer"),
        "edgessl": version("edgessl"),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "commands": commands,
        "runs": runs,
        "median_ms": {name: round(value, 1) for name, value in medians.items()},
        "ratio_to_bare": {
            name: round(value / bare, 3) for name, value in medians.items() if value != bare
        },
        "samples_ms": {name: [round(t, 1) for t in times] for name, times in samples.items()},
    }


def main() -> None:
    """Parse the options, measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=21, help="at least 15")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name} too")
    options = parser.parse_args()
    if options.runs < 15:
        parser.error(f"a median of {options.runs} runs says little; take at least 15")
    text = json.dumps(measure(options.runs), indent=1)
    print(text)
    if options.save:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

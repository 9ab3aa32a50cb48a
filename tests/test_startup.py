"""What ``edgessl --help`` and ``edgessl list`` import: names of modules, not seconds."""

import re
import subprocess
import sys

import pytest

RUNTIMES = {
    "ai_edge_litert", "litert_torch", "onnx", "onnxruntime", "openvino", "tensorflow", "tensorrt",
}  # fmt: skip
HEAVY = {"torch", "torchvision", "numpy", "sklearn", "PIL", *RUNTIMES}
RECIPES = {"pydantic", "ruamel"}


def imported_by(*command: str) -> set[str]:
    """Return the top-level modules that a fresh Python imports while it runs ``command``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=120
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(said)
    return set(re.findall(r"^import time:.*\|\s+(\w+)[\w.]*$", done.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        ("--help", HEAVY | RECIPES),
        ("--version", HEAVY | RECIPES),
        ("bench --help", HEAVY | {"ruamel"}),  # Typer loads pydantic to look at parameter types
        ("cost --help", HEAVY | {"ruamel"}),
        ("list", HEAVY),
        ("list methods", HEAVY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_light_command_imports_nothing_heavy(arguments, forbidden):
    seen = imported_by("-m", "edgessl", *arguments.split())
    assert "edgessl" in seen  # the listing of imports was read
    assert seen & forbidden == set()


def test_tables_import_nothing_heavy():
    tables = ("data", "methods", "encoders", "exporters", "devices")
    code = "import edgessl, " + ", ".join(f"edgessl.{table}" for table in tables)
    seen = imported_by("-c", code)
    assert "edgessl" in seen
    assert seen & (HEAVY | RECIPES) == set()


def test_the_listing_shows_a_heavy_import_when_there_is_one():
    assert "numpy" in imported_by("-c", "import edgessl.core.images")

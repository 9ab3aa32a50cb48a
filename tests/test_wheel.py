"""The wheel, installed away from the checkout, holds everything and claims only its own name."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "edgessl": "edgessl",
    "exporters": "edgessl/exporters",
    "devices": "edgessl/devices",
    "recipes": "edgessl/recipes",
}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build from a copy: a stale ``build`` folder of the checkout would leak into the wheel."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(copy)]
    subprocess.run([*PIP, *build], check=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Return a runner of Python that sees the installed wheel and never the checkout."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    install = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*PIP, *install], check=True, timeout=300)
    # -S skips .pth files, and with them the finder of an editable install; the dependencies
    # are then named by hand
    paths = [str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=empty, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.site = site
    return run


def test_the_wheel_holds_every_source_file_and_nothing_else(wheel):
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {n for n in names if ".dist-info/" not in n} == expected
    tops = {re.sub(r"-.*\.dist-info$", ".dist-info", n.split("/")[0]) for n in names}
    assert tops == {"edgessl", "edgessl.dist-info"}  # no generic "exporters" or "recipes"
    for pattern in (
        r"devices/agents/\w+\.py",
        r"report/.*\.j2",
        r"recipes/\w+\.yaml",
        r"py\.typed",
    ):
        assert any(re.fullmatch(f"edgessl/{pattern}", n) for n in names), pattern


WHERE = """
import importlib.util, json, sys
specs = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
print(json.dumps({name: spec and spec.origin for name, spec in specs.items()}))
"""


def test_the_parts_come_from_the_wheel(python):
    parts = ("edgessl", "edgessl.exporters", "edgessl.devices", "edgessl.recipes")
    for origin in json.loads(python("-c", WHERE, *parts)).values():
        assert Path(origin).is_relative_to(python.site)
    generic = ("exporters", "devices", "recipes")
    assert set(json.loads(python("-c", WHERE, *generic)).values()) == {None}


def test_the_command_line_runs_and_lists_the_recipes(python, wheel):
    version = wheel.name.split("-")[1]
    assert version in python("-m", "edgessl", "--version")
    listed = json.loads(python("-m", "edgessl", "list", "--json"))
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipes
    assert recipes <= {word for word in re.findall(r"[\w.-]+", json.dumps(listed))}

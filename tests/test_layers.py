"""Imports go down only, and what must start fast imports nothing heavy.

One function reads a source text and returns the rules it breaks; the tree is held to it, and
each rule is shown to bite on a source that breaks it.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"edgessl": "edgessl", "exporters": "edgessl.exporters", "devices": "edgessl.devices"}

# a room may import rooms of a lower rank, and itself
RANKS = {
    "core": 0,
    "exporters": 1, "devices": 1, "encoders": 1, "losses": 1, "data": 1, "cost": 1,
    "slimming": 2,
    "methods": 3,
    "training": 4,
    "evaluation": 5,
    "report": 6, "quantization": 6,
    "stages": 7,
    "root": 8,  # edgessl/__init__.py and its neighbours: the Python API
    "cli": 9,
}  # fmt: skip
# exporters and devices are handed what they work on by the rooms that call them
CALLERS = {"quantization", "stages", "root", "cli"}
TABLES = {"edgessl"} | {
    f"edgessl.{room}" for room in ("data", "methods", "encoders", "exporters", "devices")
}
TORCH_FREE = {"core", "devices", "cli"}
TORCH = {"torch", "torchvision"}
AGENT = "edgessl.devices.agents"
RUNTIMES = {
    "ai_edge_litert", "litert_torch", "onnx", "onnxruntime", "openvino", "tensorflow", "tensorrt",
}  # fmt: skip


def room_of(module: str) -> str:
    """Return the room of a dotted name, ``root`` for what lies directly in the package."""
    room = f"{module}.".split(".")[1]
    return room if room in RANKS else "root"


def imports_of(tree: ast.Module, module: str, is_package: bool) -> list[tuple[str, bool]]:
    """Return (dotted name, runs when the module is imported) for every import."""
    deferred = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for node in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        at_import = id(node) not in deferred
        if isinstance(node, ast.Import):
            found += [(alias.name, at_import) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # "from edgessl import core" names a room, "from edgessl import __version__" does not
            found += [
                (f"{source}.{alias.name}" if source == "edgessl" else source, at_import)
                for alias in node.names
            ]
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return the rules that ``source``, the text of ``module``, breaks."""
    room, broken = room_of(module), []
    for name, at_import in imports_of(ast.parse(source), module, is_package):
        top = name.split(".")[0]
        if top == "edgessl":
            target = room_of(name)
            bare = name == "edgessl" or name.split(".")[1].startswith("__")
            if module.startswith(AGENT):  # in its archive it has nobody but itself
                if not name.startswith(AGENT):
                    broken.append(f"{module}: an agent imports {name}")
            elif target == "cli" and room != "cli" and module != "edgessl.__main__":
                broken.append(f"{module}: only __main__ may import {name}")
            elif bare or target == room or module == "edgessl.__main__":
                pass
            elif RANKS[target] >= RANKS[room]:
                broken.append(f"{module}: imports up or sideways, {name}")
            elif target in {"exporters", "devices"} and room not in CALLERS:
                broken.append(f"{module}: {name} is called by stages and quantization only")
        elif room in TORCH_FREE and top in TORCH:
            broken.append(f"{module}: {room} is free of torch, imports {name}")
        elif at_import and module in TABLES and top in TORCH | RUNTIMES | {"numpy", "pydantic"}:
            broken.append(f"{module}: a table imports {name}")
        elif at_import and room in {"exporters", "devices"} and top in TORCH | RUNTIMES:
            broken.append(f"{module}: {name} belongs inside a function")
    return broken


def modules() -> list[tuple[Path, str]]:
    """Return every source file with the name it is imported by."""
    found = []
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = inside[:-1] if inside[-1] == "__init__" else inside
            found.append((path, ".".join([package, *parts])))
    return found


def test_every_import_goes_down():
    broken = [
        line
        for path, module in modules()
        for line in violations(path.read_text("utf-8"), module, path.name == "__init__.py")
    ]
    assert not broken, "\n".join(broken)


def test_every_room_has_a_rank_and_recipes_hold_no_code():
    packages = {module for path, module in modules() if path.name == "__init__.py"}
    assert {module.split(".")[1] for module in packages - {"edgessl"}} <= RANKS.keys()
    code = [p for p in (ROOT / "recipes").rglob("*.py") if p.name != "__init__.py"]
    assert code == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgessl.core.artifact", "from edgessl.data import sources"),
        ("edgessl.core.artifact", "def f():\n    from edgessl import stages"),
        ("edgessl.losses.barlow", "from edgessl.encoders.base import Encoder"),
        ("edgessl.losses.barlow", "from ..encoders.base import Encoder"),
        ("edgessl.training.loop", "import edgessl.evaluation.knn"),
        ("edgessl.evaluation.knn", "from edgessl.exporters import base"),
        ("edgessl.exporters.to_onnx", "from edgessl.devices.shell import Shell"),
        ("edgessl.devices.local", "from edgessl.encoders import base"),
        ("edgessl.stages.bench", "from edgessl.cli.main import main"),
        ("edgessl", "from edgessl import cli"),
        ("edgessl.devices.agents.agent", "from edgessl.core import files"),
        ("edgessl.core.images", "def f():\n    import torch"),
        ("edgessl.devices.local", "def f():\n    from torch import nn"),
        ("edgessl.cli.export", "import torchvision.transforms as t"),
        ("edgessl.exporters.to_onnx", "import onnxruntime"),
        ("edgessl.methods", "import numpy as np"),
        ("edgessl.data", "try:\n    from pydantic import BaseModel\nexcept ImportError:\n    pass"),
        ("edgessl", "import torch"),
    ],
)
def test_a_seeded_fault_is_seen(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgessl.core.files", "from edgessl import __version__"),
        ("edgessl.__main__", "from edgessl.cli.main import main"),
        ("edgessl", "def finetune():\n    from edgessl.stages.finetune import finetune"),
        ("edgessl.stages.export", "from edgessl.exporters import EXPORTERS"),
        ("edgessl.cli.listing", "from edgessl.devices import DEVICES"),
        ("edgessl.exporters.to_onnx", "def f():\n    import torch, onnxruntime"),
        ("edgessl.exporters.to_onnx", "if TYPE_CHECKING:\n    import torch"),
        ("edgessl.methods.barlow", "import torch"),
    ],
)
def test_what_the_design_allows_passes(module, source):
    assert violations(source, module) == []

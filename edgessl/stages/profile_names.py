"""What the operations of an exported file are called, and the PyTorch modules they came from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid


def operation_modules(folder: Path, artifact: Artifact) -> dict[str, str]:
    """Return the modules of operations and tensors of a file, by their names.

    ``layers.json`` names the layers of every format. An ONNX graph is read, too, where the package
    is installed: its runtime names what it fused after tensors.

    Args:
        folder: Export stage folder; its files were checked.
        artifact: That lies there.

    Raises:
        FileInvalid: ``layers.json`` is malformed.
    """
    found: dict[str, str] = {}
    path = folder / "layers.json"
    if path.is_file():
        rows = files.read_json(path, "layers").get("layers")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FileInvalid(f"{path} holds no list of layers", hint="export the model again")
        found = {str(row["node"]): str(row["module"]) for row in rows if row.get("node")}
    if artifact.format == "onnx" and find_spec("onnx") is not None:
        import onnx

        from edgessl.exporters import onnx_layers

        model = onnx.load(folder / artifact.main_file, load_external_data=False)
        found = onnx_layers.operation_modules(model) | found
    return found

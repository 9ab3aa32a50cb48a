"""Wheels with the right names and little inside: what pip chooses by."""

import base64
import hashlib
import io
import zipfile
from pathlib import Path

RECORDED = [
    line
    for line in (Path(__file__).parents[1] / "recorded/wheels.txt").read_text().splitlines()
    if not line.startswith("#")
]
NUMPY = {"ai_edge_litert": ">=1.23.2", "onnxruntime": ">=1.21.6", "onnxruntime_gpu": ">=1.21.6",
         "openvino": "<2.6.0,>=1.16.6", "tflite_runtime": " >=1.23.2"}  # fmt: skip


def write_wheel(folder, name, files=None):
    """Write a wheel that pip takes; its metadata asks for numpy as the real one does."""
    project, version, *rest = name.removesuffix(".whl").split("-")
    tags = "-".join(rest[-3:])
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
    if project in NUMPY:
        # what is not taken: of the board's own, and by a condition that this machine would decide
        metadata += f"Requires-Dist: numpy{NUMPY[project]}\nRequires-Dist: protobuf\n"
        metadata += "Requires-Dist: numpy<1; python_version < '3'\n"
    members = dict(files or {}) | {
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{project} = {project}:main\n",
    }
    record = io.StringIO()
    for path, text in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record.write(f"{path},sha256={digest.decode()},{len(text.encode())}\n")
    members[f"{info}/RECORD"] = record.getvalue() + f"{info}/RECORD,,\n"
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def only_these(monkeypatch, folder):
    """Let pip see the wheels of a folder and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

"""Resumable state: tensors in safetensors, the rest in JSON, committed by one rename.

``last/state.json`` names the tensor file and its SHA-256. It is written after the tensors and
replaced atomically, so a kill at any moment leaves the previous state or the new one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgessl.core import files
from edgessl.core.errors import FileInvalid
from edgessl.encoders.loading import load_strictly, read_tensors, write_tensors


def save_state(
    folder: Path, step: int, module: nn.Module, optimizer: Optimizer, facts: dict[str, Any]
) -> None:
    """Write the state after ``step`` steps and drop the one before.

    Args:
        folder: ``last/`` of the stage.
        step: Steps done.
        module: Everything that trains, with its buffers.
        optimizer: Its state is keyed by parameter order.
        facts: JSON values that resuming needs (plan, seeds, hashes).
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    path = folder / f"state-{step:08d}.safetensors"
    write_tensors(path, tensors)
    body = {
        "step": step,
        "file": path.name,
        "sha256": files.sha256_file(path),
        "optimizer": scalars,
        "facts": facts,
    }
    files.write_json(folder / "state.json", "training-state", body)
    for old in folder.glob("state-*.safetensors"):
        if old != path:
            old.unlink()


def read_facts(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Return the steps done and the facts of a saved state; None if there is none."""
    if not (folder / "state.json").is_file():
        return None
    body = _body(folder)
    if not (folder / body["file"]).is_file():
        return None  # a kill while the state was being discarded
    return body["step"], body["facts"]


def _body(folder: Path) -> dict[str, Any]:
    """Read ``state.json``.

    Raises:
        FileInvalid: It is no such document, or lacks or garbles a value.
    """
    path = folder / "state.json"
    body = files.read_json(path, "training-state")
    try:
        return {
            "step": int(body["step"]),
            "file": Path(str(body["file"])).name,
            "sha256": str(body["sha256"]),
            "optimizer": {int(k): dict(v) for k, v in body["optimizer"].items()},
            "facts": dict(body["facts"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileInvalid(f"{path} lacks or garbles a value: {error}", hint=_anew(folder)) from None


def _anew(folder: Path) -> str:
    return f"remove {folder} and resume: this training then starts from its first step"


def discard(folder: Path) -> None:
    """Remove a saved state; a kill within leaves none or all of it."""
    (folder / "state.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def load_state(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Load what :func:`save_state` wrote into ``module`` and ``optimizer``.

    Raises:
        FileInvalid: The state is truncated, altered, or of another network.
    """
    body = _body(folder)
    path = folder / body["file"]
    if path.is_file() and files.sha256_file(path) != body["sha256"]:
        raise FileInvalid(f"{path} was changed or cut after it was saved", hint=_anew(folder))
    tensors = read_tensors(path)
    state = {k.removeprefix("module."): t for k, t in tensors.items() if k.startswith("module.")}
    load_strictly(module, state, path)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loaded: dict[int, dict[str, Any]] = body["optimizer"]
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind != "optimizer":
            continue
        index, _, name = rest.partition(".")
        loaded.setdefault(int(index), {})[name] = _like(parameters[int(index)], tensor)
    document = optimizer.state_dict()
    optimizer.load_state_dict({"state": loaded, "param_groups": document["param_groups"]})


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    # The same memory format as before the save: strided and vectorised kernels may round
    # differently, and resuming promises equal bits.
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter).copy_(tensor)

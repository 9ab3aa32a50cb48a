"""Networks from files: safetensors only, never a pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.encoders import ENCODERS
from edgessl.encoders.edits import apply_edits, edits_from


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as one safetensors file, whole or not at all; order does not matter."""
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in sorted(tensors.items())
    }
    files.write_bytes(path, save(plain))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        FileInvalid: Missing, truncated, or a pickle; nothing in it is executed.
    """
    if not path.is_file():
        raise FileInvalid(f"no such file: {path}")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        with path.open("rb") as stream:
            start = stream.read(2)
        if zipfile.is_zipfile(path) or start[:1] == b"\x80":
            raise FileInvalid(
                f"{path} is a pickle (a PyTorch .pt/.pth file); it was not opened, because "
                "loading a pickle can run any code",
                hint="save the state dict with safetensors.torch.save_file and give that file",
            ) from None
        raise FileInvalid(
            f"{path} is not a whole safetensors file: {error}",
            hint="it may be truncated; copy it again or run the stage that wrote it again",
        ) from None


def load_model(folder: Path) -> tuple[nn.Module, Artifact]:
    """Load the plain network of a ``model`` artifact.

    Args:
        folder: Holds ``model.json`` and ``model.safetensors``.

    Returns:
        The network in eval mode (float32, contiguous): images (B, 3, H, W), normalised, to
        logits (B, classes), or to features (B, F) when the model has no labels; its artifact.

    Raises:
        FileInvalid: Missing, altered, or its tensors do not fit the architecture.
    """
    artifact = Artifact.load(folder)
    if artifact.artifact_kind != "model" or artifact.facts.get("form") != "plain":
        kind = artifact.facts.get("form", artifact.artifact_kind)
        raise FileInvalid(
            f"{folder} holds a {kind} network, expected a plain one",
            hint="extract it first: edgessl extract",
        )
    facts = artifact.facts
    try:
        architecture = ENCODERS.load(facts["architecture"])
        edits = edits_from(facts["edits"])
        network = architecture.network(
            float(facts["width"]), classes=len(artifact.labels) or None, stem="stock"
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise FileInvalid(f"{folder}: model.json lacks or garbles {error}") from error
    apply_edits(network, edits)
    load_strictly(network, read_tensors(folder / artifact.main_file), folder)
    return network.eval(), artifact


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        FileInvalid: Names or shapes differ; the message names the first ones.
    """
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise FileInvalid(f"{where} does not fit the network: {' '.join(lines)[:300]}") from None

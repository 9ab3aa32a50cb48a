"""Weights of the stock 1x net as a start: torchvision's, timm's, or a local file.

They are published for 1x; a narrower net takes the first channels of every tensor, a wider one
keeps its initialisation in the rest.
"""

from __future__ import annotations

import hashlib
import http.client
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_weight

from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.encoders.base import Architecture
from edgessl.encoders.edits import centre
from edgessl.encoders.loading import read_tensors

IMAGENET = "imagenet"
TIMM = "timm:"  # begins the name of weights that timm publishes
PICKLES = (".pth", ".pt", ".bin")
STARTS = (b"PK", b"\x80")  # of a zip archive; of a pickle, which files from before 2020 are
SHOWN = 48  # bytes of another file that a message quotes
COUNTER = "num_batches_tracked"  # of a BatchNorm; files from before 2018 lack it


def stock_weights(architecture: Architecture, where: str) -> dict[str, Tensor]:
    """Return pretrained tensors of the stock net at 1x, without its classifier.

    Args:
        architecture: Its stock names and shapes have to fit exactly.
        where: ``imagenet``: the weights that torchvision or timm publish, from the cache of
            torch hub or of the Hugging Face hub, else fetched; or a local ``.safetensors``,
            ``.pth``, ``.pt`` or ``.bin`` file.

    Raises:
        UsageProblem: ``imagenet``, but none are published for this architecture, or not on the
            pixels that EdgeSSL makes.
        MissingExtra: timm's weights, and timm is not installed.
        FileInvalid: Missing, not fetched, damaged, holds more than tensors, or does not fit.
    """
    if where == IMAGENET:
        tensors, source = _published(architecture)
    else:
        path = Path(where).expanduser()
        tensors, source = _read(path), str(path)
    return _fitting(architecture, tensors, source)


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the overlapping first channels of every tensor into ``module``, in place.

    What ``tensors`` do not reach keeps its values. A kernel larger than the module's (a stem
    for small images) is cropped to its centre.

    Args:
        module: A network of the same architecture at any width, with or without head.
        tensors: What :func:`stock_weights` returned.
    """
    for name, target in module.state_dict().items():
        if name in tensors:
            copy_overlap(target, tensors[name])


@torch.no_grad()
def copy_overlap(target: Tensor, source: Tensor) -> None:
    """Copy ``source`` into ``target`` where the channel axes (the first two) overlap."""
    if target.ndim == 4 and source.shape[2:] != target.shape[2:]:
        source = centre(source, (target.shape[2], target.shape[3]))
    overlap = tuple(slice(min(a, b)) for a, b in zip(target.shape, source.shape, strict=True))
    target[overlap] = source[overlap].to(target)


def _published(architecture: Architecture) -> tuple[dict[str, Tensor], str]:
    if architecture.weights is None:
        raise UsageProblem(
            f"there are no ImageNet weights for {architecture.name}",
            hint="choose an encoder that has them (see: edgessl list encoders), or give a file",
        )
    if architecture.weights.startswith(TIMM):
        from edgessl.encoders.timm_weights import published_file

        path = published_file(architecture.weights.removeprefix(TIMM))
        return _read(path), str(path)
    weights = get_weight(architecture.weights)
    name = weights.url.rpartition("/")[2]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.is_file():
        if not hashlib.sha256(cached.read_bytes()).hexdigest().startswith(_hash_in(name)):
            raise FileInvalid(
                f"{cached} is damaged: its hash is not the one in its name",
                hint="delete it, then it is fetched again",
            )
        return _read(cached), str(cached)
    try:
        fetched = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise FileInvalid(
            f"the ImageNet weights of {architecture.name} ({name}) are not in {cached.parent} and "
            f"could not be fetched: {reason}",
            hint=f"bring {name} from a machine with a network and give it: --weights PATH/{name}",
        ) from None
    return _tensors_only(fetched, name), name


def _hash_in(file_name: str) -> str:
    return file_name.rpartition("-")[2].partition(".")[0]  # name-<start of the sha256>.pth


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() not in PICKLES:
        return read_tensors(path)
    if not path.is_file():
        raise FileInvalid(f"no such file: {path}")
    try:
        # the restricted reader of torch: tensors and plain containers, no code
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (damaged bytes fail with any exception)
        raise _unreadable(path, error) from None
    return _tensors_only(found, str(path))


def _unreadable(path: Path, error: Exception) -> FileInvalid:
    try:
        with path.open("rb") as stream:
            start = stream.read(SHOWN)
    except OSError as problem:
        return FileInvalid(f"{path} cannot be read: {problem.strerror or problem}")
    if not start:
        return FileInvalid(f"{path} is empty", hint="fetch or copy it again")
    if not start.startswith(STARTS):
        shown = " ".join(start.decode("ascii", "backslashreplace").split())
        return FileInvalid(
            f"{path} is not a PyTorch file (it begins with {shown!r})",
            hint="fetch it again: a web page or a pointer may have been saved in its place; a "
            "safetensors file must be called .safetensors",
        )
    if isinstance(error, pickle.UnpicklingError):
        return FileInvalid(
            f"{path} is no plain state dict: it is damaged or holds more than tensors, and loading "
            "that can run any code; nothing in it was run",
            hint="save the state dict alone, best with safetensors.torch.save_file",
        )
    said = " ".join(str(error).split())[:120] or type(error).__name__
    return FileInvalid(
        f"{path} is not a whole PyTorch file: {said}",
        hint="it may be truncated; fetch or copy it again",
    )


def _tensors_only(found: Any, source: str) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not found:
        raise FileInvalid(f"{source} holds a {type(found).__name__}, expected a state dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileInvalid(
                f"{source} is no plain state dict: {str(name)[:60]!r} is a {type(value).__name__}",
                hint="save the state dict alone, best with safetensors.torch.save_file",
            )
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise FileInvalid(
                f"{source}: {name[:60]!r} is a sparse, quantized or empty tensor, expected numbers",
                hint="save the state dict of the dense float32 net",
            )
    return found


def _fitting(
    architecture: Architecture, tensors: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Return the tensors without the head once names and shapes are those of the stock net."""
    with torch.device("meta"):
        stock = architecture.build(1.0, 1)
    head = f"{architecture.head}."
    wanted = {n: t.shape for n, t in stock.state_dict().items() if not n.startswith(head)}
    given = {n: t for n, t in tensors.items() if not n.startswith(head)}
    for name in wanted:
        if name.endswith(COUNTER):
            given.setdefault(name, torch.zeros((), dtype=torch.int64))
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in wanted]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    if problems:
        name = architecture.name.removeprefix(TIMM).removesuffix("_pooled")
        package = (architecture.stock_class or "torchvision").partition(".")[0]
        raise FileInvalid(
            f"{source} does not hold the stock {architecture.name} at 1x: {'; '.join(problems[:3])}"
            + (f" and {len(problems) - 3} more" if len(problems) > 3 else ""),
            hint=f"give weights of {package}'s {name}; its classifier is not used",
        )
    # copies: tensors of a file may be views of one storage
    return {n: given[n].clone(memory_format=torch.contiguous_format) for n in wanted}

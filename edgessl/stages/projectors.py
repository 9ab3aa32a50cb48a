"""The projector of a pretraining, kept beside the encoder: a student learns from its codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid
from edgessl.encoders.loading import load_strictly, read_tensors, write_tensors
from edgessl.methods.base import Method
from edgessl.methods.projector_layers import layers_of, projector_of
from edgessl.slimming.sliced import HOST, Sliced, recalibrate_plain

FILE = "projector.safetensors"


def projector_layers(method: Method) -> list[dict[str, Any]] | None:
    """Return the layers of a method's projector as JSON values; None where it has none."""
    projector = getattr(method, "projector", None)
    return layers_of(projector) if isinstance(projector, nn.Module) else None


def write_projector(folder: Path, method: Method, batches: Iterable[Tensor]) -> list[str]:
    """Write the host's projector of a trained method, at home on images without augmentation.

    Args:
        folder: Gets ``projector.safetensors``.
        method: Its encoder has been recalibrated; on one device with the batches.
        batches: Prepared images that the statistics of BatchNorms are re-estimated on.

    Returns:
        The names of the files written: none where there is no projector.
    """
    projector = getattr(method, "projector", None)
    if not isinstance(projector, nn.Module):
        return []
    network = projector.host if isinstance(projector, Sliced) else projector
    if any(isinstance(layer, nn.BatchNorm1d) for layer in network.modules()):
        recalibrate_plain(network, _features(method.encoder, batches))
    write_tensors(folder / FILE, network.state_dict())
    return [FILE]


@torch.no_grad()
def _features(encoder: Sliced, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    was_training = encoder.training
    encoder.eval()
    for batch in batches:
        yield encoder(batch, width=HOST)
    encoder.train(was_training)


def read_projector(folder: Path, artifact: Artifact, features: int) -> nn.Sequential | None:
    """Return the projector of a pretraining checkpoint; None where there is none.

    Args:
        folder: Of the checkpoint.
        artifact: Its document, verified.
        features: Of its host.

    Raises:
        FileInvalid: The document garbles it, or its tensors do not fit.
    """
    layers = artifact.facts.get("projector")
    if layers is None or FILE not in artifact.files:
        return None
    try:
        projector = projector_of(layers, features)
    except (KeyError, TypeError, ValueError) as error:
        raise FileInvalid(f"{folder}: the document garbles its projector: {error}") from error
    load_strictly(projector, read_tensors(folder / FILE), folder / FILE)
    return projector.eval()

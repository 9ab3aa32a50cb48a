"""Which layers suffer from quantisation: each alone, simulated in PyTorch, and inside a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgessl.core.console import Reporter
from edgessl.core.errors import DataInvalid
from edgessl.exporters.base import Calibration
from edgessl.exporters.parity import compare
from edgessl.quantization.figures import measure
from edgessl.quantization.simulate import simulated


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What becomes of the logits when one layer alone is quantised, its weights and its input.

    Attributes:
        module: Its name, as in ``named_modules()`` of the plain net.
        op: What it is.
        alone_snr_db: Power of the float logits over power of the difference.
        alone_kl: Mean KL(float || quantised) of the softmax, in nats.
        alone_agreement: Share of images with the same argmax, in [0, 1].
    """

    module: str
    op: Literal["conv", "linear"]
    alone_snr_db: float
    alone_kl: float
    alone_agreement: float


@torch.no_grad()
def alone(
    network: nn.Module,
    batches: Sequence[Tensor],
    calibration_batches: Sequence[Tensor],
    *,
    reporter: Reporter,
    calibration: Calibration = "minmax",
    activation_bits: int = 8,
) -> list[LayerSensitivity]:
    """Quantise one layer at a time, in the order of execution; one pass over the images each.

    Args:
        network: Images (B, 3, H, W) to logits (B, C); a plain stock net, left as it was.
        batches: Normalised float32 images (B, 3, H, W) to compare logits on.
        calibration_batches: The same, to take activation ranges from.
        reporter: Receives progress.
        calibration: How ranges follow from the images.
        activation_bits: Of the inputs of layers; weights have 8.

    Raises:
        DataInvalid: No images, or a layer is fed something that is not finite.
    """
    if sum(len(batch) for batch in batches) == 0:
        raise DataInvalid("no images to compare logits on", hint="give images with --test")
    net = simulated(
        network, calibration_batches, calibration=calibration, activation_bits=activation_bits
    )
    net.switch(())
    reference, rows = _logits(net, batches), []
    with reporter.bar("sensitivity", len(net.ranges)) as bar:
        for done, name in enumerate(net.ranges, start=1):
            net.switch((name,))
            seen = measure(reference, _logits(net, batches))
            linear = isinstance(net.network.get_submodule(name), nn.Linear)
            op: Literal["conv", "linear"] = "linear" if linear else "conv"
            rows.append(LayerSensitivity(name, op, seen.snr_db, seen.kl, seen.agreement))
            bar.update(done, name)
    return rows


def most_sensitive(rows: Sequence[LayerSensitivity], k: int) -> list[str]:
    """Return the names of the ``k`` layers with the largest KL, the worst first."""
    ranked = sorted(rows, key=lambda row: (-row.alone_kl, row.alone_snr_db))
    return [row.module for row in ranked[:k]]


def to_keep_in_float(rows: Sequence[LayerSensitivity], network: nn.Module) -> list[tuple[str, ...]]:
    """Return for every layer, the worst first, its name and those of its :func:`feeders`."""
    fed = feeders(network)
    return [(name, *fed[name]) for name in most_sensitive(rows, len(rows))]


def feeders(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, for every convolution and Linear layer, the layers its input comes from.

    A runtime that keeps a layer in float still rounds what the layers before it give; to spare
    its input, they must stay in float too. (ONNX Runtime 1.32 on a net broken at one layer: 262
    of 500 answers as in float; 143 with that layer in float; 495 with its feeder in float, too.)

    Args:
        network: A plain stock net; its forward is traced symbolically.
    """
    graph, found = fx.Tracer().trace(network), {}
    sources: dict[fx.Node, tuple[str, ...]] = {}
    for node in graph.nodes:
        reached = (name for before in node.all_input_nodes for name in sources[before])
        sources[node] = tuple(dict.fromkeys(reached))
        if node.op == "call_module" and isinstance(
            network.get_submodule(str(node.target)), nn.Conv2d | nn.Linear
        ):
            found[str(node.target)] = sources[node]
            sources[node] = (str(node.target),)
    return found


def file_error(
    float_activations: Mapping[str, NDArray[Any]], quantised_activations: Mapping[str, NDArray[Any]]
) -> dict[str, float]:
    """Return the signal-to-noise ratio of what layers give inside a quantised file, in dB.

    Args:
        float_activations: By module, (N, ...) of the float file.
        quantised_activations: The same of the quantised file, as real numbers; layers that only
            one of the two keeps are left out, and so are those whose float output is not finite.
    """
    errors = {}
    for module, want in float_activations.items():
        got = quantised_activations.get(module)
        if got is None or got.shape != want.shape or not np.isfinite(want).all():
            continue
        errors[module] = compare(want.reshape(len(want), -1), got.reshape(len(got), -1)).snr_db
    return errors


def record(
    rows: Sequence[LayerSensitivity], errors: Mapping[str, float], *, seal: str, images: int
) -> dict[str, Any]:
    """Return the body of ``sensitivity.json``.

    Args:
        rows: In the order of execution.
        errors: From :func:`file_error`; layers may be missing.
        seal: Of the quantised file.
        images: That the logits were compared on.
    """
    layers = [
        {
            "module": row.module,
            "op": row.op,
            "file_snr_db": errors.get(row.module),
            "alone_snr_db": row.alone_snr_db,
            "alone_kl": row.alone_kl,
            "alone_agreement": row.alone_agreement,
        }
        for row in rows
    ]
    return {"seal": seal, "images": images, "layers": layers}


def _logits(network: nn.Module, batches: Sequence[Tensor]) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    return np.concatenate([network(batch.to(device)).float().cpu().numpy() for batch in batches])

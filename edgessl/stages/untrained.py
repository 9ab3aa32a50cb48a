"""Untrained nets: random weights with the BatchNorm statistics of real images, and their files.

What a net computes does not depend on what it learned, so its times are those of a trained one.
With the statistics of a fresh net, activations fade layer by layer in some architectures (to 1e-5
of the input in EfficientNet-B0), which no trained net shows and whose integer ranges would be
odd; so the statistics are taken from real images first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec
from edgessl.core.images import to_model_input
from edgessl.core.widths import width_label
from edgessl.cost.macs import count_macs
from edgessl.data.decode import prepare
from edgessl.data.sources import open_source
from edgessl.encoders import ENCODERS
from edgessl.encoders.loading import write_tensors
from edgessl.exporters.base import Form, Scheme, Written
from edgessl.exporters.parity import FLOAT32_TOLERANCE, compare
from edgessl.stages import export_records as records
from edgessl.stages.assignment import split_of
from edgessl.stages.context import Context, clear
from edgessl.stages.export import raise_mismatch
from edgessl.stages.export_records import Outputs
from edgessl.stages.quantized_file import GOLDEN_LEAST, GOLDEN_MARGIN
from edgessl.stages.roles import Split
from edgessl.stages.workshop import Workshop

PICTURES = 128  # real images that are timed with; 64 are wanted for the rotation
STATISTICS = 64  # of them set the BatchNorm statistics and calibrate integers


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration of the grid.

    Attributes:
        encoder: Name in the table of encoders.
        width: Width multiplier.
        imgsz: Input side in pixels.
    """

    encoder: str
    width: float
    imgsz: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        # a colon is no part of a file name everywhere
        encoder = self.encoder.replace(":", "-")
        return f"{encoder}-{width_label(self.width)}-{self.imgsz}px"


def pictures_of(context: Context, source: str, spec: InputSpec) -> Split:
    """Return some real images of a source, evenly spread over it, without their labels."""
    images = open_source(source)
    rows = np.unique(np.linspace(0, len(images) - 1, PICTURES).astype(np.int64))
    prepared = prepare(images, rows, spec, cache=context.run.path)
    split = split_of("unlabeled", prepared, None)
    split.labels[:] = -1  # nobody may score random weights
    return split


def untrained_net(
    context: Context, cell: Cell, spec: InputSpec, pictures: Split, folder: Path
) -> tuple[nn.Module, Artifact]:
    """Build and seal a net with random weights and the BatchNorm statistics of real images."""
    architecture, stem = ENCODERS.load(cell.encoder), context.recipe.encoder.stem
    network = architecture.network(cell.width, classes=None, stem=stem, seed=context.recipe.seed)
    _take_statistics(network, to_model_input(pictures.images[:STATISTICS], spec))
    write_tensors(folder / "model.safetensors", dict(network.state_dict()))
    facts = {
        "form": "plain",
        "untrained": True,
        "architecture": cell.encoder,
        "width": cell.width,
        "edits": [asdict(edit) for edit in architecture.edits(stem)],
        "features": architecture.feature_size(cell.width),
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": count_macs(network, cell.imgsz, cell.imgsz),
    }
    artifact = Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors", input=spec,
        facts=facts,
    )  # fmt: skip
    return network.eval(), artifact


@torch.no_grad()
def _take_statistics(network: nn.Module, x_NCHW: NDArray[np.float32]) -> None:
    """Set the BatchNorm statistics to the averages over a few batches of images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    network.train()
    for batch in torch.from_numpy(x_NCHW).split(16):
        network(batch)
    network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def export_untrained(
    context: Context, cell: Cell, target: str, model: Path, net: Artifact, shown: Outputs
) -> Path:
    """Write a net for a target, run it here, and seal it; a finished one is kept.

    Raises:
        GateFailed: The float32 file does not give the outputs of the PyTorch net.
    """
    section = context.recipe.export
    folder = context.folder("export", f"{cell.name}-{target}-{section.quantize}")
    if (folder / "golden.npz").is_file():
        found = Artifact.load(folder)
        if found.parents == (net.seal,):
            return folder
    clear(folder)
    folder.mkdir(parents=True)
    with Workshop(target, section, folder / "converter.log") as shop:
        place = folder if section.quantize == "none" else shop.place("float")
        written, form = shop.convert(model, place, Form(opset=section.opset))
        if section.quantize != "none":
            scheme = Scheme(section.quantize, integer_io=section.io == "integer")
            images = shown.images.images[:STATISTICS]
            written = shop.quantize(place, written, folder, scheme, images)
        text = records.contract_text(written.input, written.output, ())
        files.write_text(folder / records.SNIPPET, shop.finish(folder, written, text, ()))
        got = shop.predict(folder, written, shown.images.images)
        versions = dict(sorted(shop.versions.items()))
    seen = Outputs(shown.images, shown.reference, got)
    tolerance = _tolerance(seen, section.quantize)
    parity = compare(seen.reference, seen.got, tolerance)
    artifact = _sealed(folder, form, written, net, target, section.quantize, tolerance, versions)
    records.write_layers(folder / "layers.json", written.layers, artifact.seal)
    records.write_parity(folder / "parity.json", parity, artifact, net.seal, seen)
    if not parity.passed:
        raise_mismatch(folder, target, seen, parity)
    records.write_golden(folder / "golden.npz", seen, artifact.seal)
    (folder / "converter.log").unlink(missing_ok=True)
    return folder


def _tolerance(seen: Outputs, precision: str) -> float:
    """Return what the device may differ by; a quantised file differs from PyTorch already."""
    if precision == "none":
        return FLOAT32_TOLERANCE
    rows = records.golden_rows(seen.images)
    here = compare(seen.reference[rows], seen.got[rows]).max_abs
    return max(GOLDEN_LEAST, GOLDEN_MARGIN * min(here, 1.0))


def _sealed(
    folder: Path, form: str, written: Written, net: Artifact, target: str, precision: str,
    tolerance: float, versions: dict[str, str],
) -> Artifact:  # fmt: skip
    facts = {
        "target": target,
        "quantize": precision,
        "width": net.facts["width"],
        "architecture": net.facts["architecture"],
        "untrained": True,
        "tolerance": tolerance,
        "versions": versions,
    }
    return Artifact.sealed(
        folder, written.files, artifact_kind="export", format=form, input=written.input,
        output=written.output, parents=(net.seal,), facts=facts,
    )  # fmt: skip

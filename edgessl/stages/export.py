"""Export: a plain net to a runtime's file, proven on real images before it is sealed as good.

Converter, quantiser and runtime run in child processes: a native crash there is a message here.
The float32 file of a target is always written; a quantised one is made from it and stands
beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import ConversionFailed, GateFailed
from edgessl.data.decode import fit
from edgessl.encoders.loading import load_model
from edgessl.evaluation.outputs import outputs
from edgessl.exporters.base import Form, Layer, Written
from edgessl.exporters.parity import FLOAT32_TOLERANCE, Parity, compare
from edgessl.stages import export_records as records
from edgessl.stages.context import Context, clear
from edgessl.stages.export_records import Outputs
from edgessl.stages.networks import upbringing
from edgessl.stages.workshop import Workshop


@dataclass(frozen=True)
class Source:
    """The plain net to export.

    Attributes:
        folder: Of the net.
        artifact: That describes it.
        network: In evaluation mode, on the CPU.
        logits: float32, of the net in PyTorch, on the proof images.
        notes: What was found out about it and holds for every target, by name.
    """

    folder: Path
    artifact: Artifact
    network: nn.Module
    logits: NDArray[np.float32]
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, context: Context, folder: Path) -> Source:
        """Load a plain net and run it in PyTorch on the proof images."""
        network, artifact = load_model(folder)
        logits = outputs(network, context.images.proof.images, artifact.input)
        return cls(folder, artifact, network, logits)

    @property
    def width(self) -> str:
        """Width of the net, as folders are named."""
        return f"{self.artifact.facts['width']:g}x"

    def reference(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of the net for pictures (N, H, W, 3) of any one size."""
        return outputs(self.network, self.fitted(pictures), self.artifact.input)

    def on_proof(self, context: Context) -> NDArray[np.float32]:
        """Return its logits on the proof images, as the files of the run take them."""
        if context.recipe.export.raw_size is None:
            return self.logits
        return self.reference(context.pictures.proof.images)

    def fitted(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pictures of any one size as the net takes them: resized and cropped."""
        spec = self.artifact.input
        if pictures.shape[1:3] == (spec.height, spec.width) or not len(pictures):
            return pictures
        return np.stack([fit(x, spec.height, spec.width, spec.resize) for x in pictures])


@dataclass(frozen=True)
class Exported:
    """A finished export: its folder, what was written, and its answers on the proof images."""

    folder: Path
    artifact: Artifact
    written: Written


def export_folder(context: Context, artifact: Artifact, target: str, precision: str = "") -> Path:
    """Return where the export of a plain net lies; without precision, that of the recipe."""
    width = f"{artifact.facts['width']:g}x"
    chosen = precision or context.recipe.export.quantize
    return context.folder("export", f"{width}-{target}-{chosen}")


def form_of(context: Context) -> Form:
    """Return how the recipe wants files laid out."""
    section = context.recipe.export
    return Form(
        embed=section.embed_preprocess, raw=section.raw_size,
        dynamic_batch=section.dynamic_batch, opset=section.opset,
    )  # fmt: skip


def export_float(context: Context, source: Source, target: str) -> Exported:
    """Write, run and prove the float32 file of a target, or keep a finished one."""
    folder = export_folder(context, source.artifact, target, "none")
    identity = {
        "source": source.artifact.seal,
        "target": target,
        "quantize": "none",
        "form": asdict(form_of(context)),
        "data": context.pictures.proof.data_sha256,
    }
    identity = json.loads(json.dumps(identity))  # as it is read back

    def work() -> Exported:
        clear(folder)
        folder.mkdir(parents=True)
        return _export(context, source, target, folder)

    return context.stage(f"export {target}", folder, identity, work, lambda: load_exported(folder))


def load_exported(folder: Path) -> Exported:
    """Read a finished export.

    Raises:
        FileInvalid: A file is missing or was changed.
    """
    artifact = Artifact.load(folder)
    rows = files.read_json(folder / "layers.json", "layers")["layers"]
    layers = [Layer(**row) for row in rows]
    written = Written(list(artifact.files), artifact.input, artifact.output, layers)
    return Exported(folder, artifact, written)


def _export(context: Context, source: Source, target: str, folder: Path) -> Exported:
    context.reporter.say(f"export: {source.width} {target} ...")
    proof = context.pictures.proof
    with Workshop(target, context.recipe.export, folder / "converter.log") as shop:
        written, format = shop.convert(source.folder, folder, form_of(context))
        written = ready(shop, source, folder, written)
        got = shop.predict(folder, written, proof.images)
        reference = source.on_proof(context)
        shown = Outputs(proof, reference, got)
        parity = compare(reference, got)
        facts = {"quantize": "none", "tolerance": FLOAT32_TOLERANCE}
        artifact = seal(context, source, shop, folder, (written, format), facts)
    document(context, source, folder, artifact, written, shown, parity)
    if not parity.passed:
        raise_mismatch(folder, target, shown, parity)
    (folder / "converter.log").unlink(missing_ok=True)
    context.reporter.say(
        f"export: {source.width} {target} agrees with PyTorch on {100 * parity.agreement:.1f} % "
        f"of {parity.n} images, largest difference {parity.max_abs:.1e} of the largest logit"
    )
    return Exported(folder, artifact, written)


def ready(shop: Workshop, source: Source, folder: Path, written: Written) -> Written:
    """Put the contract into the file and ``example.py`` beside it."""
    labels = source.artifact.labels
    text = records.contract_text(written.input, written.output, labels)
    snippet = shop.finish(folder, written, text, labels)
    files.write_text(folder / records.SNIPPET, snippet)
    return written


def seal(
    context: Context, source: Source, shop: Workshop, folder: Path, made: tuple[Written, str],
    facts: dict[str, Any],
) -> Artifact:  # fmt: skip
    """Hash the files and write ``artifact.json``."""
    written, format = made
    common = {
        "target": shop.target,
        "width": source.artifact.facts["width"],
        "architecture": source.artifact.facts["architecture"],
        "form": json.loads(json.dumps(asdict(form_of(context)))),
        "versions": dict(sorted(shop.versions.items())),
    }
    return Artifact.sealed(
        folder, written.files, artifact_kind="export", format=format, input=written.input,
        output=written.output, labels=source.artifact.labels, parents=(source.artifact.seal,),
        facts=common | upbringing(source.artifact.facts) | facts,
    )  # fmt: skip


def document(
    context: Context, source: Source, folder: Path, artifact: Artifact, written: Written,
    shown: Outputs, parity: Parity, note: str | None = None,
) -> None:  # fmt: skip
    """Write the records of a sealed file and its ledger rows."""
    records.write_golden(folder / "golden.npz", shown, artifact.seal)
    records.write_layers(folder / "layers.json", written.layers, artifact.seal)
    records.write_parity(folder / "parity.json", parity, artifact, source.artifact.seal, shown)
    if source.artifact.labels:
        records.write_answers(folder / "predictions.csv", shown)
        failed = None if parity.passed else "failed the parity gate"
        told = note or failed or f"max abs {parity.max_abs:.1e} of the largest logit"
        records.put_rows(context, artifact, source.artifact, shown, told)


def raise_mismatch(folder: Path, target: str, shown: Outputs, parity: Parity) -> None:
    """Keep both outputs and refuse the file.

    Raises:
        GateFailed: Always.
    """
    records.write_mismatch(folder / "mismatch.npz", shown)
    raise GateFailed(
        f"{target}: logits differ from PyTorch by {parity.max_abs:.2e} of the largest logit "
        f"(allowed {parity.tolerance:.0e}) on {parity.n} images; agreement "
        f"{100 * parity.agreement:.1f} %",
        hint=f"both outputs and the first differing images are in {folder / 'mismatch.npz'}",
    )


def total_bytes(folder: Path, names: Sequence[str]) -> int:
    """Return the size of model files in bytes.

    Raises:
        ConversionFailed: One of them was not written.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionFailed(f"{', '.join(missing)} was not written")
    return sum((folder / name).stat().st_size for name in names)

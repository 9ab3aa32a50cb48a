"""A quantised file beside its float32 sibling: made, judged, and refused when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgessl.core.errors import GateFailed, NotProvable
from edgessl.quantization.search import MORE_IMAGES
from edgessl.stages import judging
from edgessl.stages.context import Context, clear
from edgessl.stages.export import Exported, Source, export_folder, load_exported
from edgessl.stages.flips import read_labels
from edgessl.stages.proving import Material, gather
from edgessl.stages.quantized_file import QuantizedFile
from edgessl.stages.seen import read_seen


def export_quantized(context: Context, source: Source, target: str, exported: Exported) -> Path:
    """Search for a quantised file that holds its answers, and judge it on images it never saw.

    A finished one is kept; when the user has labelled flipped images since, it is judged again.

    Args:
        context: The run.
        source: The plain net.
        target: Name of the target.
        exported: Its float32 file.

    Returns:
        The export folder.

    Raises:
        GateFailed: The file loses more than is allowed, or none could be made.
        NotProvable: The images cannot decide; unless the recipe allows that.
    """
    section, data = context.recipe.export, context.recipe.data
    folder = export_folder(context, source.artifact, target)
    keys = {
        "calibration", "calibration_images", "fallback", "max_drop", "max_shift", "confidence",
        "io", "analyze",
    }  # fmt: skip
    base: dict[str, Any] = {
        "source": source.artifact.seal, "float": exported.artifact.seal, "target": target,
        "quantize": section.quantize, "asked": section.model_dump(mode="json", include=keys),
        "proof": data.proof, "held_out": data.held_out,
        "data": context.pictures.proof.data_sha256,
    }  # fmt: skip
    names = source.artifact.labels
    known = read_labels(folder, names) if names else {}

    def material() -> Material:
        learned_from = read_seen(source.folder, source.artifact)
        most = MORE_IMAGES * section.calibration_images
        return gather(context.pictures, section.calibration, most, learned_from)

    def work() -> Path:
        if not judging.judge_again(context, folder, base, known, material):
            clear(folder)
            folder.mkdir(parents=True)
            made = QuantizedFile(context, source, target, exported, material())
            made.make(folder, base, known)
        return folder

    def load() -> Path:
        load_exported(folder)
        return folder

    name = f"export {target} {section.quantize}"
    context.stage(name, folder, base | {"labels": dict(sorted(known.items()))}, work, load)
    try:
        judging.settle(context, folder, target)
    except (GateFailed, NotProvable):
        context.run.finish_stage(name, 0.0, "failed")
        raise
    return folder

"""One target of a net: its float32 file, and the quantised one that the recipe asks for."""

from __future__ import annotations

from pathlib import Path

from edgessl.stages.context import Context
from edgessl.stages.conversion import check_offered
from edgessl.stages.export import Source, export_float
from edgessl.stages.quantize import export_quantized
from edgessl.stages.seen import check_unseen


def run_export(context: Context, source: Source, target: str) -> Path:
    """Write, run and prove one target, in float32 and in the recipe's precision.

    Returns:
        Folder of the recipe's precision: the target's files, ``artifact.json``, ``golden.npz``,
        ``parity.json``, ``predictions.csv``, ``layers.json`` and ``example.py``; for a quantised
        file also its ``gate.json`` and ``search.json``.

    Raises:
        UsageProblem: No such target, or not in this precision.
        GateFailed: The file does not give the answers of the PyTorch net; both outputs are kept
            in ``mismatch.npz``.
        NotProvable: The images cannot decide whether a quantised file does.
        ConversionFailed, NativeCrash, OutOfMemory, MissingExtra: See ``run_child``.
    """
    precision = context.recipe.export.quantize
    check_offered(target, precision)
    check_unseen(context, source.folder)
    exported = export_float(context, source, target)
    if precision == "none":
        return exported.folder
    return export_quantized(context, source, target, exported)

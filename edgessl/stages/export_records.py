"""What stands beside an exported file: golden images, parity, answers, ledger rows."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact, InputSpec, OutputSpec
from edgessl.core.ledger import LedgerRow
from edgessl.exporters.base import Layer
from edgessl.exporters.parity import Parity
from edgessl.stages.roles import Split
from edgessl.stages.rows import accuracy_row, write_predictions

if TYPE_CHECKING:
    from edgessl.stages.context import Context

GOLDEN = 16
SNIPPET = "example.py"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Logits (N, C) of the float32 net and of the file, on the same images.

    Attributes:
        images: What was shown: pictures as the file takes them, and their labels.
        reference: Of the net in PyTorch.
        got: Of the file.
    """

    images: Split
    reference: NDArray[np.float32]
    got: NDArray[np.float32]


def contract_text(input: InputSpec, output: OutputSpec, labels: tuple[str, ...]) -> str:
    """Return the contract that is stored inside a file: JSON with input, output and labels."""
    body = {
        "input": input.model_dump(mode="json"), "output": output.model_dump(mode="json"),
        "labels": list(labels),
    }  # fmt: skip
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def golden_rows(test: Split) -> NDArray[np.int64]:
    """Return the first images of every class in turn, up to :data:`GOLDEN`."""
    rank = np.zeros(len(test.labels), np.int64)
    for label in np.unique(test.labels):
        members = np.flatnonzero(test.labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((test.labels, rank))[:GOLDEN]


def write_golden(path: Path, outputs: Outputs, seal: str) -> None:
    """Write ``golden.npz``: a few images, the net's logits and the file's own."""
    rows = golden_rows(outputs.images)
    buffer = io.BytesIO()
    np.savez(
        buffer, images=outputs.images.images[rows], reference=outputs.reference[rows],
        expected=outputs.got[rows], seal=np.array(seal),
    )  # fmt: skip
    files.write_bytes(path, buffer.getvalue())


def write_layers(path: Path, layers: list[Layer], seal: str) -> None:
    """Write ``layers.json``: operations of the file, and the PyTorch modules they came from."""
    rows = [{"module": x.module, "node": x.node, "op": x.op} for x in layers]
    files.write_json(path, "layers", {"seal": seal, "layers": rows})


def write_parity(
    path: Path, parity: Parity, artifact: Artifact, source_seal: str, outputs: Outputs
) -> None:
    """Write ``parity.json``: tensors, answers, accuracy, and what they were taken on."""
    test, labelled = outputs.images, outputs.images.labels >= 0
    body: dict[str, Any] = {
        "seal": artifact.seal,
        "source_seal": source_seal,
        "where": "workstation",
        "images": {"split": test.name, "n": parity.n, "data_sha256": test.data_sha256},
        "checks": [parity.as_check("tensors").model_dump(mode="json", by_alias=True)],
        "snr_db": parity.snr_db,
        "differing": [list(pair) for pair in parity.differing],
        "flips": [int(i) for i in np.flatnonzero(~_same(outputs))[:GOLDEN]],
        "bounds": f"{parity.n} real images; says nothing of inputs unlike them",
    }
    if artifact.labels and labelled.any():
        right = outputs.got.argmax(1) == test.labels
        before = outputs.reference.argmax(1) == test.labels
        body["accuracy"] = {
            "n": int(labelled.sum()), "float32": float(before[labelled].mean()),
            "file": float(right[labelled].mean()),
            "gained": int((right & ~before)[labelled].sum()),
            "lost": int((before & ~right)[labelled].sum()),
        }  # fmt: skip
    files.write_json(path, "parity", body)


def write_mismatch(path: Path, outputs: Outputs) -> None:
    """Keep both outputs, and the first images whose logits differ most."""
    apart = np.abs(np.nan_to_num(outputs.got, nan=np.inf) - outputs.reference).max(1)
    worst = np.argsort(-apart, kind="stable")[:GOLDEN]
    buffer = io.BytesIO()
    np.savez(
        buffer, reference=outputs.reference, got=outputs.got, worst=worst,
        images=outputs.images.images[worst],
    )  # fmt: skip
    files.write_bytes(path, buffer.getvalue())


def put_rows(
    context: Context, artifact: Artifact, source: Artifact, outputs: Outputs, note: str | None
) -> None:
    """Put agreement, and top-1 where all labels are known, into the ledger.

    A quantised file is compared with the float32 file of its target, that one with the net it
    came from, on the same images.
    """
    test, facts = outputs.images, source.facts
    width, target = f"{facts['width']:g}x", artifact.facts["target"]
    precision = artifact.facts["quantize"]
    name, sibling = f"export/{width}-{target}-{precision}", f"export/{width}-{target}-none"
    common: dict[str, Any] = {
        "stage": "export", "variant": facts.get("variant", "model"), "width": width,
        "artifact_sha256": artifact.seal, "target": target, "quantize": precision,
        "split": test.name, "data_sha256": test.data_sha256,
        "labels_per_class": facts.get("labels_per_class"), "seed": facts.get("seed"),
        "draw": facts.get("draw"), "note": note,
    }  # fmt: skip
    rows = [accuracy_row(_same(outputs), id=f"{name}/agreement", metric="agreement", **common)]
    if (test.labels >= 0).all():  # images that were trained on have none here
        right = outputs.got.argmax(1) == test.labels
        before = outputs.reference.argmax(1) == test.labels
        parent = _parent(context, source.seal, sibling if precision != "none" else None)
        compared = (parent, before) if parent else None
        row = accuracy_row(right, compared=compared, id=name, metric="top1", **common)
        rows.insert(0, row)
    context.ledger.put(rows)


def write_answers(path: Path, outputs: Outputs) -> None:
    """Write ``predictions.csv``."""
    write_predictions(path, outputs.images.sha256, outputs.images.labels, outputs.got)


def _same(outputs: Outputs) -> NDArray[np.bool_]:
    finite = np.isfinite(outputs.got).all(1)
    return finite & (np.nan_to_num(outputs.got).argmax(1) == outputs.reference.argmax(1))


def _parent(context: Context, source_seal: str, sibling: str | None) -> LedgerRow | None:
    """Return the row that a figure is compared with, taken on the same images."""
    if sibling is not None:
        found = context.ledger.find(id=sibling)
    else:
        found = context.ledger.find(stage="extract", artifact_sha256=source_seal)
    return found[0] if found else None

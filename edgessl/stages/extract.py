"""Extraction: a plain stock net of a slim width, proven equal to the slim pass."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgessl.core import files
from edgessl.core.artifact import Artifact
from edgessl.core.errors import GateFailed
from edgessl.core.images import images_sha256, to_model_input
from edgessl.core.ledger import LedgerRow
from edgessl.cost.macs import count_macs
from edgessl.encoders.edits import Edit, edits_as_code
from edgessl.encoders.loading import load_model, write_tensors
from edgessl.evaluation.outputs import outputs
from edgessl.slimming.extract import TOLERANCE, largest_difference
from edgessl.stages.context import Context
from edgessl.stages.networks import Host, load_host, upbringing
from edgessl.stages.rows import accuracy_row, write_mistakes, write_predictions
from edgessl.stages.seen import check_unseen, write_seen

PROBED = 256  # images the equivalence is checked on

SNIPPET = '''"""Load this net into the stock class: needs torch, {package} and safetensors."""

from pathlib import Path

import torch
import {package}
from safetensors.torch import load_file

net = {stock}
{edits}here = Path(__file__).parent
net.load_state_dict(load_file(here / "model.safetensors"), strict=True)
net.eval()
'''


def run_extract(context: Context, source: Path, label: str) -> Path:
    """Extract a slim net of a fine-tuned host or a pretraining checkpoint.

    Args:
        context: The run.
        source: Folder of the host.
        label: Name of the slim net, for example ``1x``.

    Returns:
        Folder with ``model.safetensors``, ``model.json``, ``equivalence.json`` and, where
        torchvision or timm has the architecture, ``load_model.py``; after a hold-out fine-tuning
        also ``predictions.csv`` and ``mistakes.npz``.

    Raises:
        GateFailed: The extracted net differs from the slim pass.
    """
    host = load_host(source)
    folder = context.folder("extract", label)
    identity = {
        "source": host.artifact.seal,
        "width": label,
        "data": context.images.proof.data_sha256,
    }
    if host.heads:
        check_unseen(context, source)

    def work() -> Path:
        _extract(context, host, label, folder)
        return folder

    def load() -> Path:
        Artifact.load(folder)
        return folder

    return context.stage(f"extract {label}", folder, identity, work, load)


def _extract(context: Context, host: Host, label: str, folder: Path) -> None:
    plain, spec, width = host.plain(label), host.spec, host.spec.width(label)
    edits = host.architecture.edits(spec.stem)
    write_tensors(folder / "model.safetensors", dict(plain.state_dict()))
    labels = host.artifact.labels
    stock = host.architecture.stock_code(width, len(labels) or 1)
    facts = {
        "form": "plain",
        "architecture": spec.architecture,
        "width": width,
        "edits": [asdict(e) for e in edits],
        "features": host.architecture.feature_size(width),
        "parameters": sum(p.numel() for p in plain.parameters()),
        "macs": count_macs(plain, host.artifact.input.height, host.artifact.input.width),
        "stock_class": stock,
        "host_width": spec.host_width,
    }
    for key in ("method", "variant", "labels_per_class", "draw", "trained_on", "seed"):
        if key in host.artifact.facts:
            facts[key] = host.artifact.facts[key]
    facts |= upbringing(host.artifact.facts)
    if host.seen:
        facts |= write_seen(folder, host.seen)
    artifact = Artifact.sealed(
        folder, ["model.safetensors"], artifact_kind="model", format="safetensors",
        input=host.artifact.input, labels=labels, parents=(host.artifact.seal,), facts=facts,
    )  # fmt: skip
    if stock:
        files.write_text(folder / "load_model.py", _snippet(stock, host, edits))
    _prove(context, host, label, folder, artifact)


def _snippet(stock: str, host: Host, edits: tuple[Edit, ...]) -> str:
    head = () if host.artifact.labels else (Edit(host.architecture.head, remove=True),)
    changes = edits_as_code((*head, *edits))
    if edits:
        changes = f"# not in a state dict: what makes the stock class compute it\n{changes}"
    package = stock.partition(".")[0]
    return SNIPPET.format(package=package, stock=stock, edits=changes)


def _prove(context: Context, host: Host, label: str, folder: Path, artifact: Artifact) -> None:
    """Compare the files just written with the slim pass of the host on real images."""
    network, _ = load_model(folder)
    images = context.images.proof.images[:PROBED]
    batch = torch.from_numpy(to_model_input(images, artifact.input))
    gap = largest_difference(host.plain(label, head=False), host.sliced, label, batch)
    answers_equal, logits_gap, has_head = True, 0.0, label in host.heads
    if has_head:
        reference = outputs(host.plain(label), images, context.spec)
        got = outputs(network, images, context.spec)
        logits_gap = float(np.abs(got - reference).max())
        answers_equal = bool((got.argmax(1) == reference.argmax(1)).all())
    body = {
        "seal": artifact.seal,
        "source_seal": host.artifact.seal,
        "width": label,
        "images": len(images),
        "data_sha256": images_sha256(images),
        "max_abs_features": gap,
        "max_abs_logits": logits_gap,
        "same_answers": answers_equal,
        "tolerance": TOLERANCE,
        "pass": gap <= TOLERANCE and logits_gap <= TOLERANCE and answers_equal,
        "groups": {
            n: [len(g.keep), g.host] for n, g in host.sliced.slims[label].plan.groups.items()
        },
    }
    files.write_json(folder / "equivalence.json", "equivalence", body)
    if not body["pass"]:
        raise GateFailed(
            f"the extracted net differs from the slim pass by {gap:.2e} (features) and "
            f"{logits_gap:.2e} (logits); allowed {TOLERANCE:.0e}",
            hint=f"details in {folder / 'equivalence.json'}",
        )
    context.reporter.say(
        f"extract: {label} net equals the slim pass on {len(images)} images "
        f"(largest difference {max(gap, logits_gap):.1e})"
    )
    if has_head and context.images.folds is None:
        test = context.splits.test
        logits = outputs(network, test.images, context.spec)
        write_predictions(folder / "predictions.csv", test.sha256, test.labels, logits)
        write_mistakes(folder / "mistakes.npz", test, logits)
        row = _row(context, host, label, artifact, logits)
        context.ledger.replace("extract", [row], label)


def _row(
    context: Context, host: Host, label: str, artifact: Artifact, logits: NDArray[np.float32]
) -> LedgerRow:
    test, facts = context.splits.test, host.artifact.facts
    before = outputs(host.plain(label), test.images, context.spec).argmax(1) == test.labels
    after = logits.argmax(1) == test.labels
    parents = context.ledger.find(stage="finetune", artifact_sha256=host.artifact.seal)
    return accuracy_row(
        after, compared=(parents[0], before) if parents else None,
        id=f"extract/{label}", stage="extract", variant=facts.get("variant", "model"),
        artifact_sha256=artifact.seal, width=label, target="pytorch", quantize="none",
        split="test", data_sha256=test.data_sha256, metric="top1",
        labels_per_class=facts.get("labels_per_class"), seed=facts.get("seed"),
        draw=facts.get("draw"),
    )  # fmt: skip

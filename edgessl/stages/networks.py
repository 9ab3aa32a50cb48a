"""Networks to and from artifacts: pretraining checkpoints, fine-tuned hosts, plain nets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgessl.core.artifact import Artifact
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.recipe import Recipe, parse_width
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import load_strictly, read_tensors
from edgessl.evaluation.finetune import with_head
from edgessl.slimming.extract import NetSpec, build_sliced, extract
from edgessl.slimming.plan import ChannelPlan
from edgessl.slimming.sliced import Sliced

HEAD = "head"  # prefix of a head's tensors in a fine-tuned host: head.<width>.weight


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its slim net, read from an artifact.

    ``head`` holds the tensors of the slim net's classifier after fine-tuning.
    """

    architecture: Architecture
    spec: NetSpec
    sliced: Sliced
    artifact: Artifact
    head: dict[str, Tensor]

    def plain(self) -> nn.Module:
        """Return the slim net as a plain stock module, with its head if there is one."""
        network = extract(self.architecture, self.spec, self.sliced)
        if self.head:
            classes, features = self.head["weight"].shape
            with_head(network, self.architecture.head, features, classes, seed=0)
            network.get_submodule(self.architecture.head).load_state_dict(self.head)
        return network.eval()


def net_spec(recipe: Recipe) -> NetSpec:
    """Return what the recipe's ``encoder`` section builds."""
    host, slim = recipe.widths
    return NetSpec(recipe.encoder.name, host, slim, recipe.encoder.stem)


def host_facts(architecture: Architecture, spec: NetSpec, sliced: Sliced) -> dict[str, Any]:
    """Return the facts that :func:`load_host` needs."""
    return {
        "form": "host",
        "architecture": spec.architecture,
        "host_width": spec.host_width,
        "slim_width": spec.slim_width,
        "stem": spec.stem,
        "features": architecture.feature_size(spec.slim_width),
        "plan": sliced.plan.as_dict(),
        "keys": "host.<stock name>; norms.<stock module, slashes for dots>.<part>: BatchNorms of "
        "the slim net; head.<width>.<part>: its classifier",
    }


def load_host(folder: Path) -> Host:
    """Load a pretraining checkpoint or a fine-tuned host.

    Raises:
        FileInvalid: Missing, altered, a plain net, or its tensors do not fit.
    """
    artifact = Artifact.load(folder)
    facts = artifact.facts
    if facts.get("form") != "host":
        raise FileInvalid(
            f"{folder} holds no host network but a {artifact.artifact_kind} "
            f"({facts.get('form', artifact.format)})",
            hint="give the folder of pretrain or finetune, or a run folder",
        )
    try:
        spec = NetSpec(
            facts["architecture"], float(facts["host_width"]), float(facts["slim_width"]),
            facts["stem"],
        )  # fmt: skip
        plan = ChannelPlan.from_dict(facts["plan"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileInvalid(f"{folder}: the document lacks or garbles {error}") from error
    architecture = ENCODERS.load(spec.architecture)
    sliced = build_sliced(architecture, spec)
    if {k: len(g.keep) for k, g in plan.groups.items()} != {
        k: len(g.keep) for k, g in sliced.plan.groups.items()
    }:
        raise FileInvalid(f"{folder}: the channel plan does not fit {spec.architecture}")
    sliced.plan = plan
    tensors = read_tensors(folder / artifact.main_file)
    prefix = f"{HEAD}.{spec.label}."
    head = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
    body = {k: t for k, t in tensors.items() if not k.startswith(f"{HEAD}.")}
    load_strictly(sliced, body, folder)
    sliced.eval()
    return Host(architecture, spec, sliced, artifact, head)


def check_encoder(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's encoder section of the host in ``folder``.

    Args:
        folder: Pretraining checkpoint or fine-tuned host.
        settings: Dotted values that the user gave; those of the encoder must agree with it.

    Raises:
        UsageProblem: They ask for another encoder, width or stem than the checkpoint has.
    """
    facts = Artifact.load(folder).facts
    host, slim = float(facts.get("host_width", 0)), float(facts.get("slim_width", 0))
    encoder = {
        "name": facts.get("architecture"),
        "width": f"{host:g}x-{slim:g}x" if host != slim else f"{slim:g}x",
        "stem": facts.get("stem"),
    }
    for key, value in encoder.items():
        wanted = settings.get(f"encoder.{key}")
        if wanted is None or wanted == value:
            continue
        try:
            fits = key == "width" and parse_width(wanted) in {(host, slim), (slim, slim)}
        except ValueError as error:
            raise UsageProblem(f"--width: {error}") from None
        if not fits:
            raise UsageProblem(
                f"{folder} has {key} {value}, not {wanted}",
                hint="a checkpoint keeps its encoder: leave the option out",
            )
    return {f"encoder.{key}": value for key, value in encoder.items()}


def artifact_folder(path: Path, *places: str) -> Path:
    """Return the artifact folder meant by a path: itself, or the first of ``places`` in a run.

    Args:
        path: A file of an artifact, its folder, a stage folder, or a run folder.
        places: Globs below a run folder, best first, for example ``finetune``.

    Raises:
        FileInvalid: Nothing fitting there.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.suffix not in {".safetensors", ".json"}:
        read_tensors(path)  # says why it cannot be used: a pickle, truncated, no tensors
    documents = {"encoder.json", "model.json", "artifact.json"}
    if any((folder / name).is_file() for name in documents):
        return folder
    for place in places:
        for found in sorted(folder.glob(place)):
            if any((found / name).is_file() for name in documents):
                return found
    raise FileInvalid(
        f"{path} holds no checkpoint (looked for {', '.join(places)})",
        hint="give a file, a stage folder or a run folder",
    )

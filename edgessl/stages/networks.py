"""Networks to and from artifacts: pretraining checkpoints, fine-tuned hosts, plain nets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgessl.core import files
from edgessl.core.artifact import DOCUMENTS, Artifact
from edgessl.core.errors import FileInvalid, UsageProblem
from edgessl.core.recipe import Recipe
from edgessl.core.runs import run_of
from edgessl.core.widths import parse_width, width_label, width_text
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import Architecture
from edgessl.encoders.loading import load_strictly, read_tensors
from edgessl.evaluation.finetune import with_head
from edgessl.slimming.extract import NetSpec, build_sliced, extract
from edgessl.slimming.plan import ChannelPlan
from edgessl.slimming.sliced import Sliced
from edgessl.stages.seen import read_seen

HEAD = "head"  # prefix of a head's tensors in a fine-tuned host: head.<width>.weight


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its slim nets, read from an artifact.

    ``heads`` holds the tensors of the classifiers after fine-tuning, by slim net; ``seen`` the
    source identities of the images that it has learned from.
    """

    architecture: Architecture
    spec: NetSpec
    sliced: Sliced
    artifact: Artifact
    heads: dict[str, dict[str, Tensor]]
    seen: tuple[str, ...] = ()

    def plain(self, label: str, *, head: bool = True) -> nn.Module:
        """Return a slim net as a plain stock module.

        Args:
            label: Its name, for example ``1x``.
            head: With its head, if there is one; otherwise features come out.
        """
        network = extract(self.architecture, self.spec, self.sliced, label)
        if head and label in self.heads:
            tensors = self.heads[label]
            classes, features = tensors["weight"].shape
            with_head(network, self.architecture.head, features, classes, seed=0)
            network.get_submodule(self.architecture.head).load_state_dict(tensors)
        return network.eval()


def net_spec(recipe: Recipe) -> NetSpec:
    """Return what the recipe's ``encoder`` section builds."""
    host, *slims = recipe.widths
    encoder = recipe.encoder
    return NetSpec(encoder.name, host, tuple(slims), encoder.stem, encoder.bn)


def variant_of(host: Host) -> str:
    """Return what the ledger calls nets that come from a host."""
    facts = host.artifact.facts
    return str(facts.get("variant", facts.get("method", "checkpoint")))


def upbringing(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a pretraining that every net made from it carries along."""
    return {key: facts[key] for key in ("teacher", "uses_labels") if facts.get(key)}


def told_of(host: Host) -> str:
    """Return what belongs beside every figure of a net: who taught it, or which labels it saw."""
    facts = upbringing(host.artifact.facts)
    if teacher := facts.get("teacher"):
        net = f"{teacher['architecture']} {teacher['width']}"
        return f"taught by {teacher['name']} ({net}, {teacher['trained'] or 'trained along'})"
    return "pretrained with all labels of the training split" if facts else ""


def weights_identity(recipe: Recipe) -> dict[str, Any] | None:
    """Return what the identity of a stage says of the stock weights: name, and hash if local."""
    where = recipe.encoder.weights
    if where is None:
        return None
    path = Path(where).expanduser()
    return {"where": where, "sha256": files.sha256_file(path) if path.is_file() else None}


def stock_net(recipe: Recipe, label: str) -> nn.Module | None:
    """Return the plain net of a width with the recipe's stock weights; None without them.

    A net narrower than the stock one gets the first channels of every group. Its BatchNorm
    statistics are still those of the stock net's images.

    Raises:
        FileInvalid: The weights cannot be had or do not fit.
    """
    if recipe.encoder.weights is None:
        return None
    from edgessl.encoders.weights import fill, stock_weights

    spec = net_spec(recipe)
    architecture = ENCODERS.load(spec.architecture)
    network = architecture.network(
        spec.width(label), classes=None, stem=spec.stem, seed=recipe.seed
    )
    fill(network, stock_weights(architecture, recipe.encoder.weights))
    return network.eval()


def host_facts(architecture: Architecture, spec: NetSpec, sliced: Sliced) -> dict[str, Any]:
    """Return the facts that :func:`load_host` needs."""
    return {
        "form": "host",
        "architecture": spec.architecture,
        "host_width": spec.host_width,
        "slim_widths": list(spec.slim_widths),
        "stem": spec.stem,
        "bn": spec.bn,
        "features": {n: architecture.feature_size(spec.width(n)) for n in spec.labels},
        "plans": {label: slim.plan.as_dict() for label, slim in sliced.slims.items()},
        "keys": "host.<stock name>; norms.<width>.<stock module>.<part>, both with slashes for "
        "dots: BatchNorms of a slim net; head.<width>.<part>: its classifier",
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
            facts["architecture"], float(facts["host_width"]),
            tuple(float(width) for width in facts["slim_widths"]), facts["stem"], facts["bn"],
        )  # fmt: skip
        plans = {label: ChannelPlan.from_dict(facts["plans"][label]) for label in spec.labels}
    except (KeyError, TypeError, ValueError) as error:
        raise FileInvalid(f"{folder}: the document lacks or garbles {error}") from error
    architecture = ENCODERS.load(spec.architecture)
    sliced = build_sliced(architecture, spec)
    for label, plan in plans.items():
        slim = sliced.slims[label]
        if _sizes(plan) != _sizes(slim.plan):
            raise FileInvalid(f"{folder}: the channel plan does not fit {spec.architecture}")
        slim.plan = plan
    tensors = read_tensors(folder / artifact.main_file)
    heads: dict[str, dict[str, Tensor]] = {}
    for label in spec.labels:
        prefix = f"{HEAD}.{label}."
        head = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        if head:
            heads[label] = head
    body = {k: t for k, t in tensors.items() if not k.startswith(f"{HEAD}.")}
    load_strictly(sliced, body, folder)
    sliced.eval()
    seen = tuple(read_seen(folder, artifact))
    return Host(architecture, spec, sliced, artifact, heads, seen)


def _sizes(plan: ChannelPlan) -> dict[str, int]:
    return {name: len(group.keep) for name, group in plan.groups.items()}


def check_encoder(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's encoder section of the host in ``folder``.

    Args:
        folder: Pretraining checkpoint or fine-tuned host.
        settings: Dotted values that the user gave; those of the encoder must agree with it, and
            a width chooses among the slim nets (``finetune.widths``).

    Raises:
        UsageProblem: They ask for another encoder, width or stem than the checkpoint has.
    """
    facts = Artifact.load(folder).facts
    widths = [float(facts.get("host_width", 0)), *map(float, facts.get("slim_widths", ()))]
    encoder = {
        "name": facts.get("architecture"),
        "width": width_text("-".join(f"{width:g}x" for width in widths)),
        "stem": facts.get("stem"),
        "bn": facts.get("bn"),
    }
    for key, value in encoder.items():
        wanted = settings.get(f"encoder.{key}")
        if wanted is None or wanted == value:
            continue
        try:
            fits = key == "width" and set(parse_width(wanted)) <= set(widths)
        except ValueError as error:
            raise UsageProblem(f"--width: {error}") from None
        if not fits:
            raise UsageProblem(
                f"{folder} has {key} {value}, not {wanted}",
                hint="a checkpoint keeps its encoder: leave the option out",
            )
    found: dict[str, Any] = {f"encoder.{key}": value for key, value in encoder.items()}
    if wanted := settings.get("encoder.width"):
        slims = [width_label(w) for w in widths[1:] or widths]
        asked = [width_label(w) for w in parse_width(wanted)]
        found["finetune.widths"] = [w for w in slims if w in asked]
    return found


def tuned_width(folder: Path) -> str | None:
    """Return the width that a host was fine-tuned at; None for a pretraining checkpoint."""
    return Artifact.load(folder, verify=False).facts.get("tuned")


def artifact_folders(path: Path, *places: str) -> list[Path]:
    """Return the artifact folders meant by a path: itself, or those of the first fitting place.

    Args:
        path: A file of an artifact, its folder, a stage folder, or a run folder.
        places: Globs below a run folder, best first, for example ``finetune/*``.

    Raises:
        FileInvalid: Nothing fitting there.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and path.suffix not in {".safetensors", ".json"}:
        read_tensors(path)  # says why it cannot be used: a pickle, truncated, no tensors
    if _is_artifact(folder):
        return [folder]
    # a stage folder with one artifact per width, or a run folder
    for place in ("*", *places):
        if found := [part for part in sorted(folder.glob(place)) if _is_artifact(part)]:
            if place == "*" and run_of(folder) == folder:
                continue  # the stages of a run are not alternatives of each other
            return found
    raise FileInvalid(
        f"{path} holds no checkpoint (looked for {', '.join(places)})",
        hint="give a file, a stage folder or a run folder",
    )


def artifact_folder(path: Path, *places: str) -> Path:
    """Return the artifact folder meant by a path, the first one where there are several.

    Raises:
        FileInvalid: Nothing fitting there.
    """
    return artifact_folders(path, *places)[0]


def _is_artifact(folder: Path) -> bool:
    return any((folder / name).is_file() for name in DOCUMENTS.values())

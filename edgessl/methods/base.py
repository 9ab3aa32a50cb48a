"""What a method must offer to the training loop."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from edgessl.core.errors import RecipeInvalid
from edgessl.cost.training import Passes
from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.slimming.plan import Group
from edgessl.slimming.sliced import HOST, Sliced

STRICT = ConfigDict(frozen=True, extra="forbid")  # unknown names are errors
Projector = Annotated[
    tuple[Annotated[int, Field(gt=0, le=65536)], ...],
    Field(min_length=1, description="widths of the projector's Linear layers, the last one is D"),
]
# MoCo-v2 and SSL-Small on digits went down to 0.07 in their first epochs and came back to 0.4 and
# above; where the queue was longer than the data MoCo-v2 stayed at 0.037, with a rank of 1.9
LEAST_STD_MLP = 0.03
THREE_WIDE: tuple[int, ...] = (2048, 2048, 2048)


class Options(BaseModel):
    """Base of a method's options; ``projector`` is the one that every method has."""

    model_config = STRICT

    projector: Projector = THREE_WIDE
    negatives_in_queue: ClassVar[bool] = True  # older keys of an image itself would do harm there

    def passes(self, usual: Passes) -> Passes:
        """Return what a step costs with these options.

        Args:
            usual: What the table says, for the default options.
        """
        return usual

    def early(self, usual: Passes) -> tuple[int, Passes]:
        """Return how many epochs at the start cost something else, and what; usually none.

        Args:
            usual: As in :meth:`passes`.
        """
        return 0, self.passes(usual)


class BarlowOptions(Options):
    """Base of the options of Barlow Twins and what is built on its loss."""

    lam: float = Field(default=0.0051, ge=0, description="weight of the off-diagonal entries")
    scale_loss: float = Field(default=0.1, gt=0, description="factor on every loss term")
    bt_norm: Literal["sync", "local"] = Field(
        default="sync",
        description="where processes share a batch: standardise and correlate over all of it, or "
        "each its own part; one process: the same",
    )

    def codes(self, z_ND: Tensor) -> Codes:
        """Standardise embeddings over the batch."""
        return Codes(z_ND, sync=self.bt_norm == "sync")

    def distance(self, a: Codes, b: Codes) -> Tensor:
        """BT(a, b): the Barlow loss with these weights."""
        return barlow_loss(a, b, lam=self.lam, scale_loss=self.scale_loss)


@dataclass(frozen=True, slots=True)
class Teacher:
    """Another net beside the one that is trained for the device.

    Attributes:
        network: Images (B, 3, H, W) to pooled features (B, features).
        features: Their number.
        projector: What its own pretraining put behind the features; None where there is none.
        name: What it is, for messages.
    """

    network: nn.Module
    features: int
    projector: nn.Module | None
    name: str

    @property
    def dimensions(self) -> int:
        """D of its codes: what comes out of its projector, else its features."""
        layers = [] if self.projector is None else list(self.projector.modules())
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        return linear[-1].out_features if linear else self.features


@dataclass(frozen=True, slots=True)
class Parts:
    """What a method is built from.

    Attributes:
        encoder: Host and slim nets, without heads.
        features: Pooled feature channels, by the name of the slim net that keeps them.
        teacher: Of a method whose ``teacher`` is not ``none``.
        classes: Number of classes; 0 where there are no labels.
        seed: Of everything random that is not an initialisation.
        feature_group: Name of the pooled features' group in the encoder's channel plans.
    """

    encoder: Sliced
    features: Mapping[str, Group]
    teacher: Teacher | None = None
    classes: int = 0
    seed: int = 0
    feature_group: str = ""

    @property
    def feature_size(self) -> int:
        """Pooled features of the host."""
        return next(iter(self.features.values())).host


@dataclass(frozen=True, slots=True)
class Schedule:
    """The plan of a training, as far as a method has to know it.

    Attributes:
        steps: Of the whole training.
        steps_per_epoch: Of one pass over the images.
        done: Steps taken before; their effect is in the loaded state.
        optimizer: Of the method's parameters, for a method that moves them; None where nothing
            is trained.
    """

    steps: int
    steps_per_epoch: int
    done: int = 0
    optimizer: Optimizer | None = None


ENDLESS = Schedule(sys.maxsize, sys.maxsize)  # until the plan is known


class Method(nn.Module):
    """Views in, named loss terms out; the whole module's state goes into checkpoints.

    One ``forward`` runs all passes of a step, so that a data-parallel wrapper sees one call. It
    changes nothing but running statistics: what follows a step (momentum encoders, queues,
    prototypes, masks) is done in :meth:`after_step`. Where there is an attribute ``projector``,
    the monitors look at what it makes of the features.

    A subclass is built from :class:`Parts` and its ``Options``, and raises RecipeInvalid for
    widths that it does not train. ``forward`` takes a sequence of ``views`` tensors (B, 3, H, W),
    normalised, local crops after them where the recipe asks for some, and, with ``uses_labels``,
    int64 classes (B,). It returns named scalar loss terms; ``total`` is the one to differentiate.

    Attributes:
        Options: What may stand under ``pretrain.options``; derives from :class:`Options`.
        views: How many random views of each image ``forward`` takes; a preset in
            ``pretrain.views`` that makes more is cut.
        takes_local: Whether low-resolution local crops may follow those views.
        uses_labels: Whether ``forward`` also takes the labels of the images.
        teacher_kind: ``frozen`` needs a trained teacher, ``optional`` takes one where its options
            ask for it, ``online`` trains one along.
        least_std: Spread of the embeddings (see ``evaluation.monitors.embedding_std``) below which
            they have collapsed. A projector without BatchNorm gives all images a common direction
            at first, which a contrast with other images does not mind.
        encoder: The host and its slim nets; what is kept after training.
    """

    Options: ClassVar[type[Options]] = Options
    views: ClassVar[int] = 2
    takes_local: ClassVar[bool] = False
    uses_labels: ClassVar[bool] = False
    teacher_kind: ClassVar[Literal["none", "optional", "frozen", "online"]] = "none"
    least_std: ClassVar[float] = 0.25
    encoder: Sliced

    def begin(self, schedule: Schedule) -> None:
        """Hear the plan, before the first step and again when resuming."""

    def after_step(self, step: int) -> dict[str, Any] | None:
        """Update what follows the optimiser.

        Args:
            step: Steps done, this one included.

        Returns:
            JSON values for a line of ``metrics.jsonl``, where there is something to tell.
        """


class Encodes(Protocol):
    """What :func:`embed` needs of a method."""

    encoder: Sliced
    projector: Sliced


class Standardises(Encodes, Protocol):
    """What :func:`codes` needs of a method."""

    @property
    def options(self) -> BarlowOptions:
        """Say over which part of a batch."""
        ...


def embed(method: Encodes, x_BCHW: Tensor, width: str, *, frozen: bool = False) -> Tensor:
    """P(f(x)): encode and project one view with one width to (B, D).

    Args:
        method: Its encoder and the projector that follows it, of the same widths.
        x_BCHW: Images, normalised.
        width: ``host`` or the name of a slim net.
        frozen: Leave running statistics alone.
    """
    features = method.encoder(x_BCHW, width=width, frozen=frozen)
    return method.projector(features, width=width, frozen=frozen)


def codes(method: Standardises, x_BCHW: Tensor, width: str, *, frozen: bool = False) -> Codes:
    """Return :func:`embed`, standardised over the batch, for the Barlow loss."""
    return method.options.codes(embed(method, x_BCHW, width, frozen=frozen))


def host_features(encoder: nn.Module, x_BCHW: Tensor) -> Tensor:
    """Return the pooled features (B, F) of a host, or of a plain network such as a teacher.

    Args:
        encoder: Host and slim nets, or a network without head.
        x_BCHW: Images, normalised.
    """
    return encoder(x_BCHW, width=HOST) if isinstance(encoder, Sliced) else encoder(x_BCHW)


def require_teacher(parts: Parts, method: str) -> Teacher:
    """Return the teacher of a method that needs one.

    Raises:
        RecipeInvalid: There is none.
    """
    if parts.teacher is None:
        raise RecipeInvalid(
            f"method '{method}' has a teacher, and none is named",
            hint="name one: --teacher resnet18 trains a ResNet-18 along; see: edgessl list methods",
        )
    return parts.teacher


def require_one_width(encoder: Sliced, method: str) -> None:
    """Refuse a host with slim nets for a method that would not train them.

    Raises:
        RecipeInvalid: There is a slim net that is not the host.
    """
    if not encoder.is_dense:
        raise one_width_only(method)


def one_width_only(method: str) -> RecipeInvalid:
    """Return the refusal of a host with slim nets."""
    return RecipeInvalid(
        f"method '{method}' trains one width, but the width names a host and slim nets",
        hint="use --width 1x, or --method sacl-xd for several widths",
    )

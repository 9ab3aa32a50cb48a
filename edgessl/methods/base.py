"""What a method must offer to the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from edgessl.core.errors import RecipeInvalid
from edgessl.encoders.base import Axes
from edgessl.losses.barlow import Codes, barlow_loss
from edgessl.slimming.plan import ChannelPlan, Group
from edgessl.slimming.sliced import Sliced

STRICT = ConfigDict(frozen=True, extra="forbid")  # unknown names are errors
Projector = Annotated[
    tuple[Annotated[int, Field(gt=0, le=65536)], ...],
    Field(min_length=1, description="widths of the projector's Linear layers, the last one is D"),
]
THREE_WIDE: tuple[int, ...] = (2048, 2048, 2048)


class Options(BaseModel):
    """Base of a method's options; ``projector`` is the one that every method has."""

    model_config = STRICT

    projector: Projector = THREE_WIDE


class BarlowOptions(BaseModel):
    """Base of the options of Barlow Twins and what is built on its loss."""

    model_config = STRICT

    projector: Projector = THREE_WIDE
    lam: float = Field(default=0.0051, ge=0, description="weight of the off-diagonal entries")
    scale_loss: float = Field(default=0.1, gt=0, description="factor on every loss term")

    def distance(self, a: Codes, b: Codes) -> Tensor:
        """BT(a, b): the Barlow loss with these weights."""
        return barlow_loss(a, b, lam=self.lam, scale_loss=self.scale_loss)


class Encodes(Protocol):
    """What :func:`embed` needs of a method."""

    encoder: Sliced
    projector: Sliced


class Method(Protocol):
    """Views in, named loss terms out; an ``nn.Module`` whose state goes into checkpoints.

    One ``forward`` runs all passes of a step, so that a data-parallel wrapper sees one call. Where
    there is an attribute ``projector``, the monitors look at what it makes of the features.

    Attributes:
        Options: Pydantic model of what may stand under ``pretrain.options``. One of them is
            called ``projector`` (see :class:`Options`): recipes, dry runs and tests set it.
        views: How many random views of each image ``forward`` takes; set on the class. The preset
            in ``pretrain.views`` must make as many.
        encoder: The host and its slim nets; what is kept after training.
    """

    Options: ClassVar[type[BaseModel]]
    views: int
    encoder: Sliced

    @classmethod
    def from_options(cls, encoder: Sliced, features: Mapping[str, Group], options: Any) -> Self:
        """Build the method around an encoder.

        Args:
            encoder: Host and slim nets, without heads.
            features: Pooled feature channels, by the name of the slim net that keeps them.
            options: An instance of the class's ``Options``.

        Raises:
            RecipeInvalid: The method does not train these widths.
        """
        ...

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return named scalar loss terms; ``total`` is the one to differentiate.

        Args:
            views: ``self.views`` tensors (B, 3, H, W), normalised.
        """
        ...

    def after_step(self, step: int) -> None:
        """Update what follows the optimiser (averages, queues, masks)."""
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


def codes(method: Encodes, x_BCHW: Tensor, width: str, *, frozen: bool = False) -> Codes:
    """Return :func:`embed`, standardised over the batch, for the Barlow loss."""
    return Codes(embed(method, x_BCHW, width, frozen=frozen))


def require_one_width(encoder: Sliced, method: str) -> None:
    """Refuse a host with slim nets for a method that would not train them.

    Raises:
        RecipeInvalid: There is a slim net that is not the host.
    """
    if not encoder.is_dense:
        raise RecipeInvalid(
            f"method '{method}' trains one width, but the width names a host and slim nets",
            hint="use --width 1x, or --method sacl-xd for several widths",
        )


def projector(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear-BatchNorm-ReLU blocks and a last Linear, all without biases.

    Args:
        inputs: Features of the encoder.
        widths: Outputs of every Linear.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1], bias=False))


def sliced_projector(
    encoder: Sliced, features: Mapping[str, Group], widths: Sequence[int]
) -> Sliced:
    """One projector for the host and its slim nets, which read the features that they keep.

    Args:
        encoder: Names the slim nets and how BatchNorms are shared.
        features: Pooled feature channels by slim net.
        widths: Outputs of every Linear.
    """
    slims = {}
    for label, channels in features.items():
        slim = projector(len(channels.keep), widths)
        axes: Axes = {name: (None,) * tensor.ndim for name, tensor in slim.state_dict().items()}
        axes["0.weight"] = (None, "features")
        slims[label] = (slim, ChannelPlan({"features": channels}, axes))
    host = projector(next(iter(features.values())).host, widths)
    return Sliced(host, slims, bn=encoder.bn)

"""Training with all labels: what pretraining without them is held against.

    L = cross-entropy(W f(X), y)    one view, one network and its classifier, with gradient

It sees every label of the training split, so it is an upper reference and no rival. The
classifier W is thrown away: what is kept is f, as with every other method.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from edgessl.core.errors import RecipeInvalid
from edgessl.methods import base
from edgessl.slimming.sliced import HOST


class Options(base.Options):
    """Options of ``supervised``; its classifier reads the features, so there is no projector."""

    projector: tuple[int, ...] = Field(
        default=(), description="none: the classifier reads the features"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="probability that is spread over all classes"
    )

    @field_validator("projector")
    @classmethod
    def _has_none(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if widths:
            raise ValueError("supervised has no projector: its classifier reads the features")
        return widths


class Supervised(base.Method):
    """Name the class of every image. Cost 3 S."""

    Options = Options
    views = 1
    uses_labels = True

    def __init__(self, parts: base.Parts, options: Options) -> None:
        super().__init__()
        base.require_one_width(parts.encoder, "supervised")
        if parts.classes < 2:
            raise RecipeInvalid(
                f"method 'supervised' learns from labels, and there are {parts.classes} classes",
                hint="name labelled images with --labels",
            )
        self.encoder, self.options = parts.encoder, options
        self.classifier = nn.Linear(parts.feature_size, parts.classes)

    def forward(self, views: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return ``total`` for one view (B, 3, H, W) and int64 classes (B,)."""
        (x,) = views
        logits = self.classifier(self.encoder(x, width=HOST))
        smoothing = self.options.label_smoothing
        return {"total": F.cross_entropy(logits, labels, label_smoothing=smoothing)}

"""Recipe values for images that were looked at, each with its reason."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from edgessl.core.recipe import Data, Encoder, Finetune
from edgessl.exporters import EXPORTERS
from edgessl.stages.survey import Survey

SIDES = (16, 32, 64, 96, 128, 160, 192, 224)
WITHOUT_GPU = 128  # beyond this side, pretraining takes days on a few cores
SMALL_IMAGES = 64
CURVE = (1, 5, 10, 50)
BALANCE_FROM = 2.0  # largest over smallest class
# (fewest images, value): the first that fits
BATCHES = ((50_000, 256), (2_000, 128), (512, 64), (64, 32))
EPOCHS = ((200_000, 20), (20_000, 40), (2_000, 100), (0, 200))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user decided; None leaves the choice to what was seen."""

    encoder: str | None = None
    width: str | None = None
    imgsz: int | None = None
    device: str | None = None
    mirror: bool | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of the recipe and why it was chosen."""

    value: object
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The sources of a recipe as they were found; at least one is given."""

    unlabeled: Survey | None = None
    labels: Survey | None = None
    test: Survey | None = None

    @property
    def most(self) -> Survey:
        """The source that pretraining is about."""
        found = [survey for survey in (self.unlabeled, self.labels) if survey is not None]
        return max(found, key=lambda survey: survey.images)

    @property
    def training_share(self) -> float:
        """Share of the labelled images that is trained on."""
        data = Data()
        return 1 - data.validation_share - (0 if self.test else data.test_share)

    @property
    def pretraining_images(self) -> int:
        """Images to pretrain on."""
        if self.unlabeled is not None:
            return self.unlabeled.images
        return round(self.most.images * self.training_share)

    @property
    def test_images(self) -> int:
        """Images that figures are taken on, if there is a test split."""
        if self.test is not None:
            return self.test.images
        return round(self.labels.images * Data().test_share) if self.labels else 0

    @property
    def smallest_class(self) -> int:
        """Images of the smallest class that are trained on; 0 without labels."""
        counts = (self.labels.classes or {}).values() if self.labels else ()
        return math.floor(min(counts, default=0) * self.training_share)


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver; torch is not asked, as that takes seconds."""
    return shutil.which("nvidia-smi") is not None


def image_side(seen: Seen, asked: Asked) -> Choice:
    """Return ``data.imgsz``."""
    short = seen.most.short_side
    why = f"the median short side is {short} px"
    if asked.imgsz is not None:
        return Choice(asked.imgsz, f"as you asked; {why}")
    nearest = min(SIDES, key=lambda side: abs(math.log(side / short)))
    if nearest > WITHOUT_GPU and not has_gpu():
        return Choice(WITHOUT_GPU, f"{why}; more takes too long without a GPU")
    return Choice(nearest, why)


def encoder(side: int, asked: Asked) -> tuple[Choice, Choice, Choice]:
    """Return ``encoder.name``, ``encoder.width`` and ``encoder.stem``."""
    small = side <= SMALL_IMAGES
    if asked.encoder is not None:
        name = Choice(asked.encoder, "as you asked")
    elif small:
        name = Choice("mobilenet_v1_short", f"13 layers: deep enough for {side} px")
    else:
        name = Choice("mobilenet_v3_large", f"light, and made for images such as {side} px")
    if asked.width is not None:
        width = Choice(asked.width, "as you asked")
    else:
        width = Choice(Encoder().width, "a host, and inside it the net that is deployed")
    if small and name.value != "mobilenet_v1_short":
        stem = Choice("small", f"{side} px are too few to be halved in the first layer")
    else:
        stem = Choice("stock", "small: a first layer with stride 1, for images up to 64 px")
    return name, width, stem


def mirror(seen: Seen, asked: Asked) -> Choice:
    """Return the probability of flipping left and right."""
    if asked.mirror is not None:
        why = "you said that left and right {} matter".format("do not" if asked.mirror else "do")
        return Choice(0.5 if asked.mirror else 0, why)
    if not mirrors_well(seen.labels):
        return Choice(0, "the classes look like signs, and a mirrored sign is another one")
    return Choice(0.5, "set 0 where left and right differ in meaning, as in writing")


def mirrors_well(labels: Survey | None) -> bool:
    """Guess whether a mirrored image keeps its class: not so for digits, letters, directions."""
    names = list((labels.classes or {}) if labels else ())
    signs = [n for n in names if re.fullmatch(r"\w|\d+|.*(left|right).*", n, re.IGNORECASE)]
    return len(signs) * 2 <= len(names) or not names


def crop(side: int) -> Choice:
    """Return ``pretrain.views.crop_scale``."""
    if side <= 32:
        return Choice((0.4, 1.0), f"a smaller part of {side} px shows too little")
    return Choice((0.2, 1.0), "area of the random crops; raise 0.2 if what matters is small")


def batch(images: int) -> Choice:
    """Return ``pretrain.batch``."""
    size = next((value for fewest, value in BATCHES if images >= fewest), max(2, images // 2))
    return Choice(size, f"{images // size:,} steps per epoch on {images:,} images")


def epochs(images: int) -> Choice:
    """Return ``pretrain.epochs``."""
    value = next(value for fewest, value in EPOCHS if images >= fewest)
    return Choice(value, "more is better, and takes longer")


def folds(seen: Seen) -> Choice:
    """Return ``data.folds``."""
    n = seen.test_images
    if seen.test is not None:
        return Choice("auto", f"not used: there are {n:,} test images of their own")
    few = n < 50
    why = "5 folds, so that every image is measured" if few else "few labels would be folded"
    return Choice("auto", f"a test split has {n:,} images: {why}")


def curve(seen: Seen) -> Choice:
    """Return ``labels.curve``."""
    fitting = tuple(n for n in CURVE if n < seen.smallest_class)
    return Choice(fitting, f"the smallest class has {seen.smallest_class:,} training images")


def balanced(seen: Seen) -> Choice:
    """Return ``finetune.balanced``."""
    ratio = seen.labels.imbalance if seen.labels else 1.0
    return Choice(
        ratio >= BALANCE_FROM,
        f"draw classes equally; the largest has {ratio:.1f} times the smallest",
    )


def finetune_batch(seen: Seen) -> Choice:
    """Return ``finetune.batch``."""
    n = round(seen.labels.images * seen.training_share) if seen.labels else 0
    size = min(Finetune().batch, max(2, n // 4))
    return Choice(size, f"about {n:,} labelled images are trained on")


def neighbours(seen: Seen) -> Choice:
    """Return ``evaluate.neighbours``."""
    return Choice(max(1, min(20, seen.smallest_class)), "no more than the smallest class has")


def targets() -> Choice:
    """Return ``export.targets``: those whose packages are installed."""
    found = installed_targets()
    if not found:
        return Choice(("onnx",), "install it first: pip install 'edgessl[train,onnx]'")
    left = [name for name in EXPORTERS if name not in found]
    why = f"installed here; not installed: {', '.join(left)}" if left else "all are installed here"
    return Choice(tuple(found), why)


def installed_targets() -> Sequence[str]:
    """Return the targets whose converter and runtime are found, without importing them."""
    return [
        name
        for name in EXPORTERS
        if all(find_spec(package) is not None for package in EXPORTERS.load(name).needs)
    ]

"""The column "Training FLOPs (e+17)" of the SACL+XD paper, row by row, and how it comes about.

Meng et al., "Slimmed Asymmetrical Contrastive Learning and Cross Distillation for Lightweight
Model Training" (NeurIPS 2023). What was charged is not printed there: the units below are those
that come nearest. ``fair`` charges the passes that each method makes, and teachers as they were
trained. The networks are whole ImageNet classifiers at 224 pixels, as the column counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgessl.core.widths import parse_width
from edgessl.cost.training import Passes, training_flops

IMAGENET, SIDE, CLASSES = 1_281_167, 224, 1000  # training images, pixels, classes
E17 = 1e17
TOLERANCE = 0.015  # "15" stands for anything from 14.5 to 15.5: 3 %; no reproduced row needs it

# (encoder, width) to the MACs of one forward pass
Macs = Callable[[str, float], float]


@dataclass(frozen=True, slots=True)
class Accounting:
    """What is charged for a training.

    Attributes:
        passes: Units of a step.
        teacher_units: Units of a step of the teacher's own pretraining; 0 charges none.
        teacher_epochs: Its epochs.
    """

    passes: Passes
    teacher_units: int = 0
    teacher_epochs: int = 0

    def text(self, slims: int) -> str:
        """Return the formula, for example ``3 S + 1 T, before: 4 T x 200 epochs``."""
        before = f", before: {self.teacher_units} T x {self.teacher_epochs} epochs"
        return self.passes.text(slims) + (before if self.teacher_units else "")


@dataclass(frozen=True, slots=True)
class Reading:
    """Another reading of a row: what differs from it, None what does not."""

    name: str
    width: str | None = None
    epochs: int | None = None
    charged: Accounting | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes:
        method: As printed.
        encoder: Its name in the table of encoders.
        width: As printed.
        epochs: Of the row's own training.
        printed: FLOPs in units of 1e17.
        charged: Accounting that comes nearest to ``printed``.
        fair: What the method does.
        teacher: Encoder of the teacher; empty without one.
        epochs_printed: Where the table prints more than ``epochs``.
        why: What is wrong with a row that is not reproduced.
        readings: Other readings that explain ``printed``, or do not.
    """

    method: str
    encoder: str
    width: str
    epochs: int
    printed: float
    charged: Accounting
    fair: Accounting
    teacher: str = ""
    epochs_printed: str = ""
    why: str = ""
    readings: tuple[Reading, ...] = ()

    @property
    def name(self) -> str:
        """Method, encoder, width, epochs and teacher in words."""
        teacher = f", {self.teacher}" if self.teacher else ""
        return f"{self.method} {self.encoder} {self.width}, {self.epochs} epochs{teacher}"

    @property
    def slims(self) -> tuple[float, ...]:
        """Widths of the slim nets; none where one net is trained."""
        host, *slims = parse_width(self.width)
        return () if slims == [host] else tuple(slims)

    def cost(self, macs: Macs, accounting: Accounting | None = None) -> float:
        """Return the cost in units of 1e17 FLOPs.

        Args:
            macs: Counts one forward pass.
            accounting: What is charged; None means ``charged``.
        """
        rule, host = accounting or self.charged, parse_width(self.width)[0]
        teacher = macs(self.teacher, 1.0) if self.teacher else 0.0
        per_image = rule.passes.operations(
            macs(self.encoder, host), [macs(self.encoder, w) for w in self.slims], teacher=teacher
        )
        before = training_flops(rule.teacher_units * teacher, IMAGENET, rule.teacher_epochs)
        return (training_flops(per_image, IMAGENET, self.epochs) + before) / E17

    def read_as(self, reading: Reading) -> Row:
        """Return the row as another reading has it."""
        return replace(
            self, width=reading.width or self.width, epochs=reading.epochs or self.epochs,
            charged=reading.charged or self.charged,
        )  # fmt: skip


V1, V3, B0 = "mobilenet_v1", "mobilenet_v3_large", "efficientnet_b0"
R50, R101 = "resnet50", "resnet101"

SLIMMED = Accounting(Passes(host=4, slim=4, dense=6))
XD = Accounting(Passes(None, None, dense=6))
MOCO = Accounting(Passes(None, None, dense=4))
# an online teacher, without and with the momentum encoders of both nets
ONLINE = Accounting(Passes(None, None, dense=3, teacher=3))
ONLINE_WITH_KEYS = Accounting(Passes(None, None, dense=4, teacher=4))
OSS = Accounting(Passes(None, None, dense=6, teacher=6))  # our reconstruction
# a frozen teacher: charged as if trained with 6 units for 800 epochs, and free while it teaches;
# SEED's own teachers of these sizes are MoCo-v2 of 200 epochs
SEED_CHARGED = Accounting(Passes(None, None, dense=3), teacher_units=6, teacher_epochs=800)
SEED_FAIR = Accounting(Passes(None, None, dense=3, teacher=1), teacher_units=4, teacher_epochs=200)

_LIKE_REKD = "the printed figure is that of ReKD on MobileNetV3 with a ResNet-50 teacher"
_LONGER = Reading("800 epochs", epochs=800)

ROWS: tuple[Row, ...] = (
    Row(
        "SACL-XD", B0, "1.5x-1x", 200, 24, SLIMMED, SLIMMED,
        why="the figure fits a host of 1.4x, not the 1.5x of the table",
        readings=(Reading("host 1.4x", width="1.4x-1x"),),
    ),
    Row("SACL-XD", V3, "1.5x-1x", 200, 15, SLIMMED, SLIMMED),
    Row(
        "SACL-XD", V1, "1.5x-1x", 200, 19, SLIMMED, SLIMMED,
        why="the figure is the cost of 100 epochs: either the epochs or the cost is misprinted",
        readings=(Reading("100 epochs", epochs=100),),
    ),
    Row("XD only", V3, "1x", 200, 7.2, XD, XD),
    Row("XD only", V3, "1x", 100, 3.6, XD, XD),
    Row("XD only", V1, "1x", 100, 9.0, XD, XD),
    Row(
        "SSL-Small", V3, "1x", 200, 67, MOCO, MOCO,
        why=f"{_LIKE_REKD}, but SSL-Small trains no ResNet-50",
        readings=(_LONGER,),
    ),
    Row(
        "SSL-Small", B0, "1x", 200, 67, MOCO, MOCO,
        why=f"{_LIKE_REKD}, but SSL-Small trains no ResNet-50, and this is another encoder",
        readings=(_LONGER,),
    ),
    Row("ReKD", V3, "1x", 200, 67, ONLINE, ONLINE_WITH_KEYS, R50),
    Row("ReKD", V3, "1x", 200, 125, ONLINE, ONLINE_WITH_KEYS, R101),
    Row("ReKD", B0, "1x", 200, 70, ONLINE, ONLINE_WITH_KEYS, R50),
    Row(
        "OSS", B0, "1x", 200, 67, ONLINE, OSS, R50, "800+200",
        why=f"{_LIKE_REKD}; the table says 800+200 epochs and no pretraining, which exclude "
        "each other",
        readings=(
            Reading("200 epochs after 4 T x 800", charged=Accounting(
                Passes(None, None, dense=3), teacher_units=4, teacher_epochs=800)),
        ),
    ),
    Row("SEED", V3, "1x", 200, 512, SEED_CHARGED, SEED_FAIR, R50, "800+200"),
    Row("SEED", V3, "1x", 200, 971, SEED_CHARGED, SEED_FAIR, R101, "800+200"),
    Row("SEED", B0, "1x", 200, 516, SEED_CHARGED, SEED_FAIR, R50, "800+200"),
    Row("MoCo-v2", V3, "1x", 200, 4.8, MOCO, MOCO),
    Row("MoCo-v2", B0, "1x", 200, 8.5, MOCO, MOCO),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """How many times less a row costs than another one; ``printed`` None where nobody says so."""

    ours: Row
    theirs: Row
    printed: float | None = None


def row(method: str, encoder: str, teacher: str = "") -> Row:
    """Return the first row of a method with an encoder and a teacher."""
    return next(r for r in ROWS if (r.method, r.encoder, r.teacher) == (method, encoder, teacher))


CLAIMS: tuple[Claim, ...] = (
    Claim(row("SACL-XD", V3), row("SEED", V3, R101), 64.7),
    Claim(row("SACL-XD", V3), row("SEED", V3, R50)),
    Claim(row("SACL-XD", B0), row("ReKD", B0, R50), 2.9),
    Claim(row("SACL-XD", V3), row("MoCo-v2", V3)),
)

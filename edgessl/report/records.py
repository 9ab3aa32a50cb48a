"""The records beside an exported file as they are read: gate, search, layers, resizes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from edgessl.core.artifact import Document

Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
Decibels = Annotated[float, Field(ge=-1000, le=1000)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class Record(Document):
    """Base of what is read here: figures that are not finite are no figures.

    ``members`` names a list and the form of what is in it: an odd one does not hide the others.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    members: ClassVar[tuple[str, type[Any]]] = ("", object)


class Images(Record):
    """Images that something was measured on."""

    name: str
    n: Count = 0
    labelled: Count = 0


class Bounds(Record):
    """What the gate allows; proportions."""

    max_drop: Share | None = None
    confidence: Share | None = None
    max_shift: Share | None = None


class Gate(Record):
    """The judgement of a quantised file against float32.

    Drop and shift are proportions, positive when the quantised file is worse, or less confident.
    """

    seal: str
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    n: Count
    labelled: Count = 0
    flips: Count
    unlabelled_flips: Count = 0
    gained: Count = 0
    lost: Count = 0
    drop: Change | None = None
    drop_low: Change | None = None
    drop_high: Change
    shift: Change | None = None
    shift_low: Change | None = None
    shift_high: Change | None = None
    needed: Count | None = None
    to_label: Count = 0
    reasons: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    images: tuple[Images, ...] = ()
    trained_on: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        counts = (self.gained + self.lost, self.flips - self.unlabelled_flips, self.flips, self.n)
        if list(counts) != sorted(counts):
            raise ValueError("its counts of flips and images do not fit each other")
        allowed = self.bounds.max_drop
        if self.outcome == "PASS" and allowed is not None and self.drop_high > allowed + 1e-9:
            raise ValueError(
                f"it says PASS, but a drop of {self.drop_high:g} is more than {allowed:g}"
            )
        return self

    @property
    def agreement(self) -> float | None:
        """Share of images with the same answer as float32."""
        return 1 - self.flips / self.n if self.n else None


class Scheme(Record):
    """How a candidate was quantised."""

    precision: str
    calibration: str = ""
    float_layers: tuple[str, ...] = ()
    integer_io: bool = False


class Candidate(Record):
    """One way to quantise that was tried, with its figures on the selection split."""

    name: str
    scheme: Scheme
    calibration_images: Count | None = None
    n: Count | None = None
    agreement: Share | None = None
    kl: float | None = None
    shift: Change | None = None
    snr_db: Decibels | None = None
    bytes: Count | None = None
    ms: Positive | None = None
    ratio: Positive | None = None
    holds: bool = False
    pointless: bool = False
    seconds: Seconds | None = None
    aware: bool = False
    error: str | None = None


class FloatFile(Record):
    """The float32 file that candidates are compared with."""

    bytes: Count | None = None
    ms: Positive | None = None


class Selection(Record):
    """The images that the choice was made on."""

    n: Count = 0
    labelled: Count = 0
    images: tuple[Images, ...] = ()


class Search(Record):
    """Everything that was tried before a file was chosen."""

    members = ("candidates", Candidate)
    seal: str
    asked: str | None = None
    chosen: str | None = None
    selection: Selection = Selection()
    float_file: FloatFile = Field(default=FloatFile(), alias="float")
    candidates: tuple[Candidate, ...] = ()

    @property
    def choice(self) -> Candidate | None:
        """The candidate that became the file."""
        return next((c for c in self.candidates if c.name == self.chosen), None)


class LayerError(Record):
    """What quantisation does to one layer."""

    module: str
    op: str = ""
    file_snr_db: Decibels | None = None
    alone_snr_db: Decibels | None = None
    alone_kl: float | None = None
    alone_agreement: Share | None = None


class Sensitivity(Record):
    """The layers of a file in the order of execution."""

    members = ("layers", LayerError)
    seal: str
    images: Count = 0
    layers: tuple[LayerError, ...] = ()


class Resize(Record):
    """One way to prepare images: what it changes against the contract, the first row."""

    name: str
    agreement: Share
    top1: Share | None = None
    delta: Change | None = None
    delta_low: Change | None = None
    delta_high: Change | None = None


class Resizes(Record):
    """What wrong preparation of the images costs."""

    members = ("rows", Resize)
    source_seal: str = ""
    n: Count = 0
    rows: tuple[Resize, ...] = ()

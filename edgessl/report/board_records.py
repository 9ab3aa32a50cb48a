"""The records of boards as they are read: parity with the workstation, layers, energy, the grid."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgessl.core.measurement import Verdict
from edgessl.report.records import Change, Count, Positive, Record, Share

Some = Annotated[int, Field(ge=1, le=10**12)]
Signed = Annotated[float, Field(ge=-1e12, le=1e12)]
NonNegative = Annotated[float, Field(ge=0, le=1e12)]


class BoardParity(Record):
    """The answers of one file on a board and on the workstation, image by image; proportions.

    ``drop`` is positive when the board is worse.
    """

    seal: str
    outcome: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    n: Some
    agreement: Share
    agreement_low: Share
    agreement_high: Share
    least_agreement: Share
    gained: Count = 0
    lost: Count = 0
    unlabelled: Count = 0
    drop: Change | None = None
    drop_low: Change
    drop_high: Change
    max_drop: Share

    @model_validator(mode="after")
    def _fits(self) -> BoardParity:
        flips = round((1 - self.agreement) * self.n)
        if self.gained + self.lost + self.unlabelled > flips:
            raise ValueError("its counts of answers and its agreement do not fit each other")
        if self.outcome == "PASS" and self.drop_high > self.max_drop + 1e-9:
            raise ValueError(
                f"it says PASS, but a drop of {self.drop_high:g} is more than {self.max_drop:g}"
            )
        if self.outcome == "PASS" and self.agreement_high < self.least_agreement - 1e-9:
            raise ValueError(
                f"it says PASS, but an agreement of at most {self.agreement_high:g} is less than "
                f"{self.least_agreement:g}"
            )
        return self


class LayerTime(Record):
    """What one operation of a file took; ``module`` is None where no PyTorch name is known."""

    module: str | None = None
    name: str = ""
    op: str = ""
    p50: NonNegative


class LayerProfile(Record):
    """The operations of a file in the order they ran; ``note`` says why there are none."""

    members = ("rows", LayerTime)

    seal: str
    unit: str = "us"
    runs: Count = 0
    note: str = ""
    rows: tuple[LayerTime, ...] = ()


class Estimate(Record):
    """Watts and joules of the whole board by a published line, not by a meter."""

    source: str
    idle_w: Signed | None = None
    busy_w: Signed | None = None
    gross_j: Signed | None = None
    net_j: Signed | None = None


class Energy(Record):
    """What an inference drew; without figures ``notes`` say why.

    Watts, joules an inference, watt-hours; ``net`` is above idle.
    """

    scope: str | None = None
    source: str | None = None
    idle_w: Signed | None = None
    busy_w: Signed | None = None
    gross_j: Signed | None = None
    net_j: Signed | None = None
    net_low: Signed | None = None
    net_high: Signed | None = None
    j_per_correct: NonNegative | None = None
    fps: Positive | None = None
    wh_per_hour: Signed | None = None
    hours_on_battery: NonNegative | None = None
    battery_wh: Positive | None = None
    n_readings: Count | None = None
    hz: NonNegative | None = None
    notes: tuple[str, ...] = ()
    estimate: Estimate | None = None


class GridRow(Record):
    """One untrained net on a device; milliseconds, bytes, MiB."""

    encoder: str
    width: Positive
    imgsz: Some
    target: str = ""
    quantize: str = "none"
    parameters: Count | None = None
    macs: Count | None = None
    bytes: Count | None = None
    runtime: str = ""
    threads: Count | None = None
    p50: Positive | None = None
    ci_low: NonNegative | None = None
    ci_high: NonNegative | None = None
    p90: Positive | None = None
    e2e_p50: Positive | None = None
    max_rss_mb: NonNegative | None = None
    verdict: Verdict
    result: str = ""


class Grid(Record):
    """The untrained nets that were timed on one device."""

    members = ("rows", GridRow)

    device: str
    images: str = ""
    rows: tuple[GridRow, ...] = ()

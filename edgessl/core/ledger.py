"""The ledger: one row per figure, so that every accuracy point can be accounted for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgessl.core import files
from edgessl.core.artifact import Document
from edgessl.core.errors import FileInvalid

FILE = "ledger.json"


class LedgerRow(Document):
    """One figure with its interval, its images and where it was taken.

    ``value`` of accuracies is a proportion in [0, 1]; ``ci_low`` and ``ci_high`` are 95 %
    bounds made as ``interval`` says; ``delta`` is paired: to the row ``compared_with``, on the
    same images. A summary has ``draw`` null and names its draws in ``parents``.
    """

    id: str
    stage: str
    variant: str
    parents: tuple[str, ...] = ()
    artifact_sha256: str | None = None
    width: str | None = None
    target: str | None = None
    quantize: str | None = None
    where: str = "workstation"
    split: str | None = None
    data_sha256: str | None = None
    labels_per_class: int | None = None
    seed: int | None = None
    draw: int | None = None
    metric: str
    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    interval: str | None = None
    compared_with: str | None = None
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    seconds: float | None = None
    note: str | None = None


class Ledger:
    """The rows of one run folder, in the order they were first written."""

    def __init__(self, path: Path, rows: Iterable[LedgerRow] = ()) -> None:
        self.path = path
        self._rows = {row.id: row for row in rows}

    @classmethod
    def open(cls, run_folder: Path) -> Ledger:
        """Open the ledger of a run folder; an absent one is empty.

        Raises:
            FileInvalid: The file is not a ledger or a row is malformed.
        """
        path = run_folder / FILE
        if not path.exists():
            return cls(path)
        body = files.read_json(path, "ledger")
        try:
            return cls(path, TypeAdapter(list[LedgerRow]).validate_python(body.get("rows")))
        except ValidationError as error:
            raise FileInvalid(f"{path} has a malformed row: {error.errors()[0]['msg']}") from error

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """All rows."""
        return tuple(self._rows.values())

    def put(self, rows: Iterable[LedgerRow]) -> None:
        """Add rows, replacing those with the same id, and save the file whole."""
        self._save({row.id: row for row in rows})

    def replace(self, stage: str, rows: Iterable[LedgerRow], width: str | None = None) -> None:
        """Save these rows as all that a stage has to say (of a width); its earlier rows go."""
        self._rows = {
            k: row
            for k, row in self._rows.items()
            if row.stage != stage or width not in (None, row.width)
        }
        self._save({row.id: row for row in rows})

    def _save(self, rows: dict[str, LedgerRow]) -> None:
        self._rows |= rows
        body = {"rows": [row.model_dump(mode="json") for row in self._rows.values()]}
        files.write_json(self.path, "ledger", body)

    def find(self, **wanted: object) -> tuple[LedgerRow, ...]:
        """Return the rows whose fields equal ``wanted``, for example ``stage="bench"``."""
        return tuple(
            row for row in self.rows if all(getattr(row, k) == v for k, v in wanted.items())
        )

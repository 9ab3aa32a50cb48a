"""The paper's cost column beside ours: operations counted on the real networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from edgessl.cost import paper
from edgessl.cost.training import COUNTINGS
from edgessl.stages.cost_nets import meta_network, operations_of

Costs = Callable[[paper.Row, paper.Accounting | None], dict[str, float]]


def paper_costs() -> dict[str, Any]:
    """Compute every row of the table, in both countings.

    Returns:
        JSON values: ``rows`` (printed, ours in units of 1e17 FLOPs, error as a share of the
        printed figure, verdict, other readings), ``claims`` (ratios) and ``macs`` of every
        network in millions.
    """
    nets: dict[tuple[str, float], dict[str, int]] = {}

    @cache
    def counted(name: str, width: float) -> dict[str, int]:
        network = meta_network(name, width, classes=paper.CLASSES)
        return nets.setdefault((name, width), operations_of(network, paper.SIDE))

    def costs(row: paper.Row, accounting: paper.Accounting | None = None) -> dict[str, float]:
        return {
            counting: round(row.cost(lambda n, w, c=counting: counted(n, w)[c], accounting), 4)
            for counting in COUNTINGS
        }

    rows = [_row(row, costs) for row in paper.ROWS]
    claims = [_claim(claim, costs) for claim in paper.CLAIMS]
    return {
        "source": "Meng et al., NeurIPS 2023, column Training FLOPs (e+17)",
        "images": paper.IMAGENET,
        "imgsz": paper.SIDE,
        "classifier": f"{paper.CLASSES} classes, counted",
        "unit_flops": paper.E17,
        "tolerance": paper.TOLERANCE,
        "rows": rows,
        "reproduced": sum(row["reproduced"] for row in rows),
        "claims": claims,
        "macs": [{"network": f"{n} {w:g}x"} | found for (n, w), found in sorted(nets.items())],
        "kind": "computed",
    }


def _row(row: paper.Row, costs: Costs) -> dict[str, Any]:
    ours = costs(row, None)
    errors = _errors(ours, row.printed)
    return {
        "method": row.method,
        "encoder": row.encoder,
        "width": row.width,
        "epochs": row.epochs_printed or str(row.epochs),
        "teacher": row.teacher or None,
        "printed": row.printed,
        "charged": row.charged.text(len(row.slims)),
        "ours": ours,
        "error": errors,
        "reproduced": abs(errors["seed_compat"]) <= paper.TOLERANCE,
        "why": row.why,
        "readings": [
            {"name": reading.name, "ours": (read := costs(row.read_as(reading), None)),
             "error": _errors(read, row.printed)}
            for reading in row.readings
        ],
        "fair": row.fair.text(len(row.slims)),
        "fair_cost": costs(row, row.fair),
    }  # fmt: skip


def _errors(ours: dict[str, float], printed: float) -> dict[str, float]:
    return {counting: round(value / printed - 1, 5) for counting, value in ours.items()}


def _claim(claim: paper.Claim, costs: Costs) -> dict[str, Any]:
    ours, theirs = claim.ours, claim.theirs
    charged = costs(theirs, None)["seed_compat"] / costs(ours, None)["seed_compat"]
    fair = costs(theirs, theirs.fair)["seed_compat"] / costs(ours, ours.fair)["seed_compat"]
    return {
        "ours": ours.name,
        "theirs": theirs.name,
        "claimed": claim.printed,
        "of_printed_figures": round(theirs.printed / ours.printed, 4),
        "as_charged": round(charged, 4),
        "fair": round(fair, 4),
    }

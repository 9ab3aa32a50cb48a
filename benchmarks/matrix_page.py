"""Write docs/matrix.md from what benchmarks/method_matrix.py has run.

python benchmarks/matrix_page.py            # benchmarks/results/methods.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evidence_page import table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "methods.json"
PAGE = ROOT / "docs" / "matrix.md"


def arrow(before: float, after: float, digits: int) -> str:
    """What became of a figure."""
    return f"{before:.{digits}f} to {after:.{digits}f}"


def rows(found: list[dict[str, Any]]) -> str:
    """Every method on one encoder."""
    lines = [
        [
            f"`{row['method']}`", row["width"], str(row["steps"]),
            arrow(row["loss"]["early"], row["loss"]["late"], 2),
            arrow(100 * row["knn"]["before"], 100 * row["knn"]["after"], 0), f"{row['std']:.2f}",
            f"{row['rankme']:.1f}", f"{100 * row['top1']['finetune top1']:.0f}",
            "yes" if row["equivalence"]["pass"] else "NO",
            f"{row['parity']['max_abs']:.0e}" if row["parity"]["pass"] else "FAILED",
            f"{row['seconds']:.0f}",
        ]
        for row in found
    ]  # fmt: skip
    head = ["method", "width", "steps", "loss", "kNN, %", "std", "rank", "fine-tuned, %",
            "extracted: same", "ONNX: largest difference", "CPU s"]  # fmt: skip
    return table(head, lines)


def verdict(found: list[dict[str, Any]]) -> str:
    """What holds for how many, made from the figures."""
    fell = sum(row["loss"]["late"] < row["loss"]["early"] for row in found)
    rose = [f"`{r['method']}` on {r['encoder']}" for r in found
            if r["loss"]["late"] >= r["loss"]["early"]]  # fmt: skip
    alarms = [f"`{r['method']}` on {r['encoder']}: {r['alarms'][-1]}" for r in found if r["alarms"]]
    whole = sum(row["equivalence"]["pass"] and row["parity"]["pass"] for row in found)
    near = sum(row["knn"]["after"] > row["knn"]["before"] for row in found)
    return (
        f"- {whole} of {len(found)} nets were extracted and exported to ONNX, all checks passed.\n"
        f"- The loss fell in {fell} of {len(found)} trainings"
        + (f"; not for {', '.join(rose)}" if rose else "")
        + f".\n- Neighbours agree more often after {near} of {len(found)} trainings than before.\n"
        + (f"- Collapse alarms: {'; '.join(alarms)}.\n" if alarms else "- No collapse alarm.\n")
    )


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    c, found = result["conditions"], result["rows"]
    encoders = sorted({row["encoder"] for row in found})
    steps = {row["steps"] for row in found}
    tables = "".join(
        f"## {name}\n\n{rows([row for row in found if row['encoder'] == name])}"
        for name in encoders
    )
    return f"""# Every method on several encoders

Each method goes through the whole chain on real images: pretrain, evaluate, fine-tune, extract,
export to ONNX. It was run by `benchmarks/method_matrix.py`, and this page made by
`benchmarks/matrix_page.py` from `benchmarks/results/methods.json`. It shows that what a method
trains goes the same way as what any other trains, **not which method is better**: trainings are
short ({min(steps)} to {max(steps)} steps of 64 digits of 16 px), on the narrowest nets, with the
same learning rate for nearly all. [Evidence](evidence.md) compares.

{verdict(found)}
{tables}Loss: means of the second and third and of the last two lines of the log; of `disco` that of
its distillation, as its contrast gets harder while the momentum encoder improves, which holds for
`byol` as a whole. kNN: how often the neighbours of a watched image share its label, before and
after pretraining. std and rank: of the embedding, see [Monitors](monitors.md). Fine-tuned: top-1 on
test images with few labels. The largest ONNX difference is that of logits. Seconds are
{c["seconds"]}, torch {c["torch"]}, {c["machine"]}.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(json.loads(RESULT.read_text("utf-8"))), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()

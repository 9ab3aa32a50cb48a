"""MODEL_CARD.md: what a model is, how good and how fast it was measured to be, how to run it.

A run that holds only a grid of untrained nets gets a card that says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgessl import __version__
from edgessl.core import files
from edgessl.report import facts
from edgessl.report.bench_groups import bench_groups
from edgessl.report.html import environment, writable
from edgessl.report.read import read_run
from edgessl.report.summary import summarise
from edgessl.report.waterfall import agreements


def write_model_card(run_folder: Path, out: Path) -> Path:
    """Write the model card of one run as Markdown.

    Args:
        run_folder: The run folder; whatever it lacks is named as not measured.
        out: The file to write, or a folder that gets ``MODEL_CARD.md``.

    Raises:
        FileInvalid: ``run_folder`` is not a run folder, or its ledger cannot be read; nothing
            is written.
    """
    run = read_run(Path(run_folder))
    summary = summarise(run)
    target = Path(out) / "MODEL_CARD.md" if Path(out).is_dir() else Path(out)
    made = environment(autoescape=False)
    made.filters["md"] = markdown_text
    made.filters["code"] = code_span
    name = "grid_card.md.j2" if summary.only_grid else "model_card.md.j2"
    text = made.get_template(name).render(
        run=run,
        summary=summary,
        groups=bench_groups(summary.benches),
        h=summary.headline,
        findings=summary.findings,
        classes=run.class_names,
        agreements=agreements(run, summary.steps),
        commands=[line.replace("```", "'''") for line in facts.commands_of(run)],
        version=__version__,
    )
    files.write_text(target, writable(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"))
    return target


def markdown_text(value: object) -> str:
    """Escape what Markdown or the HTML inside it would act on; one line."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # an underscore inside a word is harmless, and names are full of them
    return re.sub(r"([\\`*{}\[\]|#]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def code_span(value: object) -> str:
    """Write a value as a code span that it cannot leave."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "¦")
    return f"`{text}`"

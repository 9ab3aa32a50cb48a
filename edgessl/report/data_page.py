"""The page of ``edgessl data check``: look-alikes side by side, files that cannot be used."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgessl import __version__
from edgessl.core import files
from edgessl.report.html import environment

PICTURE_SIDE = 220


def picture(image_HWC: NDArray[np.uint8]) -> str:
    """Return an image as a data URI, at most 220 pixels long; a tiny one is enlarged."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    times = PICTURE_SIDE // 2 // max(image.size)
    if times > 1:
        size = (image.width * times, image.height * times)
        image = image.resize(size, Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_data_page(
    out: Path,
    findings: Mapping[str, Any],
    pairs: Sequence[Mapping[str, Any]],
    skipped: Sequence[Mapping[str, Any]],
) -> Path:
    """Write one page that needs no network, no script and no server.

    Args:
        out: The file.
        findings: Result of the check.
        pairs: Near-duplicates with ``a``, ``b``, ``a_split``, ``b_split``, ``distance`` and the
            pictures ``a_picture``, ``b_picture``.
        skipped: Files with ``role``, ``item``, ``reason`` and ``picture``, which may be None.
    """
    page = environment(autoescape=True).get_template("data_page.html.j2")
    text = page.render(
        findings=findings,
        pairs=pairs,
        skipped=skipped,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    files.write_text(out, text)
    return out

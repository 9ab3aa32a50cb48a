"""Sphinx: Markdown pages, with the reference made from the code while they are read.

Nothing is fetched: formulas become MathML, fonts are the reader's own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import reference
from docutils.utils.math.latex2mathml import tex2mathml

import edgessl

project = "EdgeSSL"
author = "the EdgeSSL authors"
copyright = author
release = version = edgessl.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]
myst_enable_extensions = ["deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# the Python API names types of the standard library and of inner modules, which have no page
nitpick_ignore_regex = [("py:.*", r".*")]

highlight_language = "none"
html_theme = "furo"
html_title = f"EdgeSSL {release}"
html_static_path = ["_static"]
html_css_files = ["edgessl.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "friendly", "monokai"


def generated(_app: Any, _page: str, source: list[str]) -> None:
    """Replace ``<!-- generated: NAME -->`` by what :mod:`reference` makes of the code."""
    source[0] = re.sub(
        r"<!-- generated: ([a-z0-9 -]+) -->", lambda found: reference.generated(found[1]), source[0]
    )


def inline_math(self: Any, node: Any) -> None:
    """Write a formula as MathML."""
    _write_math(self, node, block=False)


def block_math(self: Any, node: Any) -> None:
    """Write a formula of its own line as MathML."""
    _write_math(self, node, block=True)


def _write_math(self: Any, node: Any, *, block: bool) -> None:
    from docutils import nodes

    self.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the generator and the renderer of formulas."""
    app.connect("source-read", generated)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline_math, None), block_renderers=(block_math, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}

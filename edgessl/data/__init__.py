"""Images in: sources, decoding, splits and the random views of pretraining.

A dataset whose name is in :data:`SOURCES` needs no path. Folders and IDX files are recognised
by what the path names (:func:`edgessl.data.sources.open_source`).
"""

from edgessl.core.registry import Entry, Table

SOURCES = Table(
    "dataset",
    {
        "digits": Entry(
            target="edgessl.data.digits:open_digits",
            summary="handwritten digits shipped with scikit-learn, to try the chain",
            extra="train",
            facts={"images": 1797, "classes": 10, "pixels": 8, "licence": "CC-BY-4.0"},
        ),
    },
)
